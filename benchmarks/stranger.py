"""A stranger's first ten minutes, by clicks and keys alone: python -m benchmarks.stranger [FOLDER].

Needs a screen, or one that is not seen: `xvfb-run -a -s "-screen 0 1600x1000x24 +extension GLX" python -m ...`.

The stranger has an image and no model. The Classify dock leads to the Train dock; there the practice images are copied
to a folder, labelled with the number keys and trained on. The model then finds the cells in an image that it has not
seen, and says that the stranger's own image is unlike those that it learned from. A picture of the window is taken
after each step. A test takes the same way with smaller images.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import napari
import numpy as np
import tifffile
from qtpy.QtCore import QPoint, QSettings, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog, QScrollArea, QTabWidget, QWidget

import napari_milcnn as mil
from benchmarks.train_dock import drop_on, shot, wait
from napari_milcnn.plugin.current_model import current
from napari_milcnn.plugin.docks import ClassifyPage, OpeningDock, TrainPage

LONG = 1800
"""Longest time, in s, that a step may take."""


class Stranger:
    """Somebody who sees the window for the first time, and uses a mouse and a keyboard.

    Parameters
    ----------
    viewer : Viewer
        The window.
    folder : Path
        The folder of the stranger, in which the practice images go.
    after : callable
        Called with the name of each step once it is done.
    """

    def __init__(self, viewer: napari.Viewer, folder: Path, after: Callable[[str], None] = lambda _: None) -> None:
        self.viewer, self.folder, self.after = viewer, folder, after
        viewer.window._qt_window.activateWindow()  # so that keys reach the docks

    # The way

    def ask_about(self, image: Path) -> None:
        """Open the Classify dock and drop an image on it, although there is no model."""
        self.open_from_menu("Classify")
        self.after("no model")
        drop_on(self.classify, image)
        wait(lambda: bool(self.classify.session.notices.all), LONG)
        self.after("an image waits")

    def practise(self) -> None:
        """Follow the way to the Train dock, and have the practice images copied and opened."""
        self.click(self.classify.model_box.train_button)
        wait(lambda: self.page(TrainPage) is not None and self.page(TrainPage).dock is not None, LONG)
        wait(lambda: bool(self.train.device.text()), LONG)
        self.after("nothing to train on")
        with patch.object(QFileDialog, "getExistingDirectory", lambda *_: str(self.folder)):
            self.click(self.train.label_box.open_box.practice_button)
        wait(lambda: self.train.label_box.labelling is not None, LONG)
        self.rest()
        self.after("practice images")

    def label(self, classes: Sequence[str]) -> None:
        """Add classes, and label each image as its file is called."""
        box = self.train.label_box
        for name in classes:
            self.type_into(box.class_box.new, name)
        self.click(box.table, box.table.visualRect(box.table.view_index(0)).center())
        for number in range(len(box.labelling.images)):
            file = box.labelling.images[box.table.current_row()].file.name
            place = next(i for i, name in enumerate(classes) if file.startswith(name.replace(" ", "-")))
            QTest.keyClick(box.table, Qt.Key(Qt.Key.Key_1 + place))
            if number == len(box.labelling.images) // 2:
                self.rest()
                self.after("half of them labelled")
        self.rest()
        self.after("all of them labelled")

    def learn(self, **options: str) -> None:
        """Go to the second tab, type options, press Start and wait until the model is there."""
        dock = self.train
        self.click_tab(dock.tabs, 1)
        wait(lambda: not dock.waits, LONG)
        for name, value in options.items():
            self.type_option(name, value)
        self.rest()
        self.after("ready to train")
        self.click(dock.start_button)
        wait(lambda: dock.session.learning is not None and dock.session.learning.done > 0, LONG)
        self.after("it learns")
        wait(lambda: not dock.busy, LONG)
        self.rest()
        self.after("trained")

    def use(self) -> None:
        """Take the model to the Classify dock, where the image that waits is classified."""
        self.click(self.train.outcome_box.use_button)
        self.settle()
        self.after("the image that waited")

    def classify_another(self, image: Path) -> None:
        """Drop an image such as those that the model learned from."""
        drop_on(self.classify, image)
        self.settle()
        self.after("masks")

    # Mouse and keys

    def open_from_menu(self, name: str) -> None:
        """Choose a dock in the Plugins menu."""
        menu = self.viewer.window.plugins_menu
        menu.aboutToShow.emit()  # napari fills it then
        entries = [one for one in menu.actions() if one.menu() is not None]
        inside = [action for entry in entries for action in entry.menu().actions()]
        next(one for one in inside if one.text().startswith(name)).trigger()
        wait(lambda: self.page(ClassifyPage).dock is not None, LONG)

    def click(self, widget: QWidget, at: QPoint | None = None) -> None:
        """Scroll to a widget, which has to be in the window and enabled, and click it."""
        above = widget.parentWidget()
        while above is not None:
            if isinstance(above, QScrollArea):
                above.ensureWidgetVisible(widget)
            above = above.parentWidget()
        assert widget.isVisible(), f"{widget} cannot be seen"
        assert widget.isEnabled(), f"{widget} is disabled: {widget.toolTip()}"
        surface = widget.viewport() if hasattr(widget, "viewport") else widget
        QTest.mouseClick(surface, Qt.MouseButton.LeftButton, pos=at or surface.rect().center())

    def click_tab(self, tabs: QTabWidget, place: int) -> None:
        """Click a tab."""
        bar = tabs.tabBar()
        assert bar.isTabEnabled(place)
        QTest.mouseClick(bar, Qt.MouseButton.LeftButton, pos=bar.tabRect(place).center())

    def type_into(self, field: QWidget, text: str) -> None:
        """Click a field, replace its text and press Enter."""
        self.click(field)
        QTest.keyClick(field, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
        QTest.keyClicks(field, text)
        QTest.keyClick(field, Qt.Key.Key_Return)

    def type_option(self, name: str, value: str) -> None:
        """Type the value of an option into the form of the second tab; its section is unfolded first."""
        box = self.train.plan_box
        form = next(one for one in (box.options, box.more) if name in one.names)
        for section in box.findChildren(QWidget):
            if getattr(section, "inside", None) is form and not section.is_open:
                self.click(section.button)
        self.type_into(form[name].native, value)

    # The window

    def page(self, kind: type[OpeningDock]) -> Any:
        """Return the page of a dock that is open, else None."""
        return next(iter(self.viewer.window._qt_window.findChildren(kind)), None)

    @property
    def classify(self) -> Any:
        """The Classify dock."""
        return self.page(ClassifyPage).dock

    @property
    def train(self) -> Any:
        """The Train dock."""
        return self.page(TrainPage).dock

    def rest(self) -> None:
        """Wait until the Train dock has nothing left to do."""
        box = self.train.label_box
        wait(lambda: not (self.train.busy or self.train.waits or box.busy or box.images.pictures.busy), LONG)

    def settle(self) -> None:
        """Wait until the Classify dock has nothing left to do."""
        session, over = self.classify.session, ("done", "failed")
        wait(lambda: not session.busy and not session.preview.busy
             and all(one.state.value in over for one in session.images.records.values()), LONG)  # fmt: skip


def own_image(folder: Path, channels: int = 2) -> Path:
    """Write the image of the stranger: one channel or two without names, of something that is no yeast."""
    random = np.random.default_rng(0)
    y, x = np.ogrid[:300, :300]
    stripes = 1500 + 1200 * np.sin(x / 4) * np.sin(y / 60)
    image = np.stack([stripes, 3000 - stripes][:channels]) + random.normal(0, 60, (channels, 300, 300))
    path = folder / "my image.tif"
    tifffile.imwrite(path, image.astype(np.uint16), metadata={"axes": "CYX"})
    return path


def main() -> None:
    """Go the whole way with the shipped practice images, and take pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/stranger"), help="where the pictures go")
    parser.add_argument("--epochs", default="25")
    parser.add_argument("--theme", default="dark")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    QSettings.setPath(QSettings.Format.NativeFormat, QSettings.Scope.UserScope, tempfile.mkdtemp())
    current.clear()
    viewer = napari.Viewer()
    viewer.theme = args.theme
    viewer.window._qt_window.resize(1366, 768)
    steps: list[str] = []

    def after(step: str) -> None:
        steps.append(step)
        shot(viewer, args.folder / f"{len(steps):02d} {step}.png")

    with tempfile.TemporaryDirectory() as place:
        stranger = Stranger(viewer, Path(place), after)
        stranger.ask_about(own_image(Path(place)))
        stranger.practise()
        stranger.label(("nucleus", "mitochondria", "cell periphery"))
        stranger.learn(epochs=args.epochs, patch="0")
        stranger.use()
        stranger.classify_another(mil.sample_folder() / "yeast-nucleus.ome.tif")
        viewer.close()
        wait(lambda: False, 1)


if __name__ == "__main__":
    main()
