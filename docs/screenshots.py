"""Make the screenshots of the dock: python docs/screenshots.py [FOLDER], with a screen (or under xvfb-run).

Does what a user does, once in napari's dark theme and once in the light one, and takes a picture of each state: empty,
ready, running, done, the mask bench, an error. README and docs show some of them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
from qtpy.QtWidgets import QApplication, QScrollArea

import napari_milcnn as mil
from napari_milcnn.current import current

IMAGES = Path(__file__).parent / "images"
SIZE = (1400, 960)


def main() -> None:
    """Take every picture."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    folder.mkdir(parents=True, exist_ok=True)
    for theme in ("dark", "light"):
        tour(theme, folder)


def tour(theme: str, folder: Path) -> None:
    """Go through the dock in one theme."""
    viewer = napari.Viewer()
    viewer.theme = theme
    viewer.window._qt_window.resize(*SIZE)
    _, dock = viewer.window.add_plugin_dock_widget("napari-milcnn", "Classify")

    def shot(name: str) -> None:
        wait(lambda: False, 0.5)
        viewer.window.screenshot(str(folder / f"dock_{name}_{theme}.png"), canvas_only=False, flash=False)

    shot("empty")
    dock.model_box.load(mil.sample_folder() / "models" / "yeast-sim.zip")
    wait(lambda: current.model is not None)
    viewer.open_sample("napari-milcnn", "yeast-timelapse")
    viewer.dims.set_point(0, 5)
    shot("ready")
    dock.run_button.click()
    wait(lambda: dock.progress.value() > 0 or not dock.busy)
    shot("running")
    wait(lambda: not dock.busy and dock._bench is not None)
    shot("done")
    dock.mask_box.threshold.setValue(0.5)
    dock.mask_box.show_map.click()
    area = dock.findChild(QScrollArea)
    area.verticalScrollBar().setValue(area.verticalScrollBar().maximum())
    shot("bench")
    area.verticalScrollBar().setValue(0)
    viewer.layers.clear()
    viewer.add_image(np.random.default_rng(0).integers(0, 4000, (256, 256)).astype(np.uint16), name="one channel")
    dock.run_button.click()
    shot("error")
    viewer.close()
    current.clear()


def wait(done: Callable[[], bool], seconds: float = 60.0) -> None:
    """Let the window work until something is so, or for some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not done():
        QApplication.processEvents()
        time.sleep(0.01)


if __name__ == "__main__":
    main()
