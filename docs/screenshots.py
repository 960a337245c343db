"""Make the screenshots of the docks: python docs/screenshots.py [FOLDER], with a screen (or under xvfb-run).

Does what a user does, once in napari's dark theme and once in the light one, and takes a picture of each state: empty,
ready, running, done, the mask bench, an error. README and docs show some of them.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import napari
import numpy as np
import tifffile
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QScrollArea, QWidget

import napari_milcnn as mil
from napari_milcnn.plugin.current_model import current
from napari_milcnn.results.folder import classify_files
from napari_milcnn.simulation.microscope import simulate_field
from napari_milcnn.simulation.options import SimulationOptions

IMAGES = Path(__file__).parent / "images"
SIZE = (1400, 960)


def main() -> None:
    """Take every picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=IMAGES, help="where the pictures go; docs/images")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for theme in ("dark", "light"):
        tour(theme, folder)
        train_tour(theme, folder)
    results_tour(folder)


def tour(theme: str, folder: Path) -> None:
    """Go through the dock in one theme."""
    viewer = napari.Viewer()
    viewer.theme = theme
    viewer.window._qt_window.resize(*SIZE)
    _, dock = _open(viewer, "Classify")

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
    wait(lambda: not dock.busy and dock.session.preview.held is not None)
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


DOSES = {2: 0.0, 3: 0.01, 4: 0.03, 5: 0.1, 6: 0.3, 7: 1.0, 8: 3.0, 9: 10.0}
"""Column of the simulated plate -> dose; half of the cells answer at a dose of 0.3."""


def results_tour(folder: Path) -> None:
    """Open a simulated dose series on a plate in the Results dock, and go through its views."""
    with tempfile.TemporaryDirectory() as made:
        run = classified_plate(Path(made))
        for theme in ("dark", "light"):
            results_in(theme, run, folder)


def classified_plate(folder: Path) -> Path:
    """Simulate three rows of wells in which more cells turn nuclear with the dose, and classify them."""
    (folder / "images").mkdir()
    rows = ["file,label,group,dose"]
    for seed, (letter, (column, dose)) in enumerate(product("BCD", DOSES.items())):
        share = 0.95 * dose / (dose + 0.3)
        options = SimulationOptions(size=(300, 300), cells=(18, 24), penetrance=(share, share))
        file = f"images/{letter}{column:02}.ome.tif"
        facts = {"axes": "CYX", "PhysicalSizeX": 0.16, "PhysicalSizeXUnit": "µm", "Channel": {"Name": ["GFP", "RFP"]}}
        tifffile.imwrite(folder / file, simulate_field(["nucleus"], options, seed).image, metadata=facts)
        rows.append(f"{file},{'nucleus' if dose >= 0.3 else 'cytoplasm'},{letter}{column:02},{dose}")
    (folder / "labels.csv").write_text("\n".join(rows))
    list(classify_files(mil.load_model("yeast-sim"), [folder / "images"], folder / "dose series"))
    return folder / "dose series"


def results_in(theme: str, run: Path, folder: Path) -> None:
    """Take a picture of each view of the Results dock in one theme."""
    viewer = napari.Viewer()
    viewer.theme = theme
    viewer.window._qt_window.resize(*SIZE)
    holder, dock = _open(viewer, "Results")
    viewer.window._qt_window.resizeDocks([holder], [330], Qt.Orientation.Horizontal)

    def shot(name: str, whole: bool = False) -> None:
        wait(lambda: not dock.busy)
        wait(lambda: False, 0.5)
        path = str(folder / f"results_{name}_{theme}.png")
        viewer.window.screenshot(path, canvas_only=False, flash=False) if whole else dock.grab().save(path)

    shot("empty")
    dock.session.open(run)
    wait(lambda: not dock.busy)
    for view, button in zip(dock.views, dock.view_buttons, strict=True):
        button.click()
        shot(view.title.lower())
    nucleus = dock.found.classes.index("nucleus")
    for box in (dock.plate.shown, dock.dose.classes, dock.gallery.rank):
        box.setCurrentIndex(nucleus + (box is dock.plate.shown))
        box.activated.emit(box.currentIndex())
    dock.view_buttons[6].click()
    shot("dose")
    dock.view_buttons[4].click()
    dock.gallery.evidence.click()
    shot("gallery")
    dock.view_buttons[5].click()
    row = dock.found.table["name"].tolist().index("C08")
    dock.session.open_image(row)
    shot("plate", whole=True)
    viewer.close()


def train_tour(theme: str, folder: Path) -> None:
    """Label the shipped training images by keys, train on them, and use the model."""
    viewer = napari.Viewer()
    viewer.theme = theme
    viewer.window._qt_window.resize(*SIZE)
    viewer.window._qt_window.activateWindow()
    _, dock = _open(viewer, "Train")
    dock.continue_button.hide()  # what another session left is not part of the tour

    def shot(name: str) -> None:
        wait(lambda: False, 0.8)
        viewer.window.screenshot(str(folder / f"train_{name}_{theme}.png"), canvas_only=False, flash=False)

    with tempfile.TemporaryDirectory() as place:
        _label(dock, Path(place) / "practice", shot)
        _train(dock, shot)
        _use(dock, viewer)
        shot("used")
        viewer.close()
        wait(lambda: False, 1)
    current.clear()


def _label(dock: QWidget, images: Path, shot: Callable[[str], None]) -> None:
    """Copy the shipped training images to a folder and label them by keys."""
    box = dock.label_box
    shutil.copytree(mil.sample_folder() / "training" / "images", images)
    shot("empty")
    box.open([images])
    wait(lambda: box.labelling is not None and not box.busy)
    names = ("nucleus", "mitochondria", "cell periphery")
    for name in names:
        QTest.keyClicks(box.class_box.new, name)
        QTest.keyClick(box.class_box.new, Qt.Key.Key_Return)
    box.table.setFocus()
    for number in range(len(box.labelling.images)):
        file = box.labelling.images[box.table.current_row()].file.name
        place_of = next(i for i, name in enumerate(names) if file.startswith(name.replace(" ", "-")))
        QTest.keyClick(box.table, Qt.Key(Qt.Key.Key_1 + place_of))
        if number == 11:
            wait(lambda: not box.busy and not box.images.pictures.busy)
            shot("labelling")


def _train(dock: QWidget, shot: Callable[[str], None]) -> None:
    """Train on the labels, with a look at the curves and the previews on the way."""
    dock.tabs.setCurrentIndex(1)
    wait(lambda: not dock.waits)
    dock.plan_box.options["patch"].value = 0
    dock.estimate_button.click()
    wait(lambda: not dock.busy and not dock.waits)
    shot("ready")
    dock.start_button.click()
    wait(lambda: dock.session.learning is not None and dock.session.learning.done >= 8, 900)
    dock.pause_button.click()
    area = dock.tabs.widget(1).findChild(QScrollArea)
    wait(lambda: False, 1)
    shot("looks")
    curves = dock.learning_box.curves
    area.verticalScrollBar().setValue(curves.mapTo(area.widget(), QPoint(0, 0)).y() - 20)
    shot("curves")
    dock.pause_button.click()
    wait(lambda: not dock.busy, 900)
    shot("done")


def _open(viewer: napari.Viewer, name: str) -> tuple[QWidget, QWidget]:
    """Open a dock as the Plugins menu does and wait until it is there; napari's dock and ours."""
    holder, page = viewer.window.add_plugin_dock_widget("napari-milcnn", name)
    wait(lambda: page.dock is not None)
    return holder, page.dock


def _use(dock: QWidget, viewer: napari.Viewer) -> None:
    """Use the trained model on an image that it has not seen."""
    dock.outcome_box.use_button.click()
    _, classifier = _open(viewer, "Classify")
    viewer.layers.clear()
    viewer.open(mil.sample_folder() / "yeast-nucleus.ome.tif")
    classifier.run_button.click()
    wait(lambda: not classifier.busy and classifier.session.preview.held is not None)


def wait(done: Callable[[], bool], seconds: float = 60.0) -> None:
    """Let the window work until something is so, or for some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not done():
        QApplication.processEvents()
        time.sleep(0.01)


if __name__ == "__main__":
    main()
