# ruff: noqa: D102 - each action is named after what it does
"""A random walk over the Train dock: nothing raises, no window is left, and no label is ever lost."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
import pytest
from qtpy.QtCore import QSettings, QThreadPool
from qtpy.QtWidgets import QApplication, QMessageBox

from conftest import PATIENCE, noise
from napari_milcnn.plugin.current_model import current

pytest.importorskip("napari")
from qt_actions import RandomWalk, open_dock, windows

ACTIONS, SEEDS = 120, (0,)
FAST = {"epochs": 3, "epoch_steps": 1, "patch": 80, "batch_size": 4, "device": "cpu", "precision": "float32"}


class Walk(RandomWalk):
    """A user of the Train dock."""

    def __init__(self, viewer, folder: Path, seed: int) -> None:
        super().__init__(viewer, folder, seed)
        self.epochs = 0
        self.open_dock()

    def open_dock(self) -> None:
        """Open the dock as the Plugins menu opens it, and the folder of images."""
        self.holder, self.dock = open_dock(self.viewer, "Train")
        self.box = self.dock.label_box
        for name, value in FAST.items():
            form = self.dock.plan_box.options if name in ("epochs", "patch") else self.dock.plan_box.more
            form[name].value = value
        self.box.open([self.folder])

    def perform(self, action) -> None:
        """Do an action, then let the window work for a while; the table on disk equals the one in the dock."""
        action()
        self.breathe(self.random.choice((0, 0.01, 0.05, 0.1)))
        self.check()

    def breathe(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while True:
            QApplication.processEvents()
            self.epochs = max(self.epochs, self.epochs_done())
            if time.perf_counter() >= end:
                return
            time.sleep(0.001)  # whatever else computes gets on meanwhile

    def epochs_done(self) -> int:
        learning = self.dock.session.learning
        return learning.done if learning is not None else 0

    def check(self) -> None:
        """Compare the labels on disk with those in the dock, and the enabled buttons with the state of the dock."""
        it, dock = self.box.labelling, self.dock
        if it is not None:
            shown = {it.file_name(row): set(it.images[row].labels) for row in it.labelled()}
            assert labels_of(it.path) == shown
            assert not it.unsaved
        assert dock.progress.isVisibleTo(dock.tabs.widget(1)) == dock.session.busy
        assert not (dock.busy and (dock.start_button.isEnabled() or dock.resume_button.isVisibleTo(dock)))
        if dock.session.paused:
            assert dock.session.can_pause

    def rest(self, qtbot) -> None:
        """Stop all jobs and wait until the dock has nothing left to do."""
        dock, box = self.dock, self.box

        def at_rest() -> bool:
            dock.stop()
            box.session.cancel()
            return not (dock.busy or dock.waits or box.busy or box.images.pictures.busy)

        qtbot.waitUntil(at_rest, timeout=PATIENCE)
        qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0, timeout=PATIENCE)
        self.breathe(0.2)

    def click(self, button) -> None:
        """Click a button if it is visible."""
        if button.isVisibleTo(button.parentWidget()):
            button.click()

    def class_name(self) -> str | None:
        names = [each.name for each in self.box.labelling.classes] if self.box.labelling is not None else []
        return self.random.choice(names) if names else None

    # Labels

    def do_select(self):
        rows = len(self.box.images.images)
        if rows:
            self.box.table.select(self.random.sample(range(rows), min(rows, self.random.choice((1, 1, 3)))))

    def do_label(self):
        self.box.press(self.random.choice((1, 2)))

    def do_label_all(self):
        for row in range(len(self.box.images.images)):
            self.box.table.select([row])
            self.box.press(1 + row % 2)

    do_label_more = do_label_once_more = do_label

    def do_label_also(self):
        if self.random.random() < 0.3:
            self.box.press(self.random.choice((1, 2, 3)), add=True)

    def do_unlabel(self):
        self.box.press(0)

    def do_undo(self):
        self.click(self.box.undo_button)

    def do_redo(self):
        self.click(self.box.redo_button)

    def do_add_class(self):
        if self.box.labelling is not None and self.box.class_box.isEnabled():
            self.box.class_box.new.setText(self.random.choice(("none", "spots", "third", "a|b", " ")))
            self.box.class_box.new.returnPressed.emit()

    def do_rename_class(self):
        name = self.class_name()
        if name:
            self.box.class_box.renamed.emit(name, self.random.choice(("none", "spots", "new name", "")))

    def do_remove_class(self):
        name = self.class_name()
        if name and self.random.random() < 0.3:
            self.click(self.box.class_box.removers[name])
            self.click(self.random.choice((self.box.class_box.remove, self.box.class_box.keep)))

    def do_group(self):
        rows = len(self.box.images.images)
        if rows:
            index = self.box.images.index(self.random.randrange(rows), self.random.choice((2, 3)))
            text = self.random.choice(("", "w1") if index.column() == 2 else ("", "train", "validation"))
            if self.box.images.editable:
                self.box.images.setData(index, text)

    def do_filter(self):
        self.box.filter.setText(self.random.choice(("", "", "1", "(")))

    def do_filter_class(self):
        self.box.shown.setCurrentIndex(self.random.randrange(max(1, self.box.shown.count())))
        self.box.shown.activated.emit(self.box.shown.currentIndex())

    def do_what_next(self):
        self.click(self.box.next_button)

    def do_check(self):
        self.click(self.box.check_button)
        self.breathe(0.1)
        if self.box.list.count():
            self.box.list.itemClicked.emit(self.box.list.item(0))

    def do_cancel(self):
        self.click(self.box.cancel_button)

    def do_open(self):
        if self.box.open_box.open_button.isEnabled() and self.random.random() < 0.5:
            labels = self.folder / "labels.csv"
            self.box.open([self.random.choice((self.folder, labels, self.folder / "absent"))])
            self.breathe(0.1)

    # Train

    def do_tab(self):
        tab = self.random.randrange(3)
        if self.dock.tabs.isTabEnabled(tab):
            self.dock.tabs.setCurrentIndex(tab)

    def do_start(self):
        self.click(self.dock.start_button)

    def do_learn(self):
        """Label all images, train with possible options, and wait for an epoch."""
        if self.dock.busy or self.box.labelling is None:
            return
        for name in ("none", "spots")[len(self.box.labelling.classes) :]:
            self.box.class_box.new.setText(name)
            self.box.class_box.new.returnPressed.emit()
        self.do_label_all()
        self.dock.plan_box.options["validation"].value = 0
        self.dock.plan_box.start.setCurrentIndex(1)
        self.dock.plan_box.start.activated.emit(1)
        for name, value in FAST.items():
            form = self.dock.plan_box.options if name in ("epochs", "patch") else self.dock.plan_box.more
            form[name].value = value
        self.click(self.dock.start_button)
        end = time.perf_counter() + 60
        while self.dock.busy and not self.epochs_done() and time.perf_counter() < end:
            self.breathe(0.02)

    do_learn_again = do_learn
    do_start_again = do_start

    def do_pause(self):
        self.click(self.dock.pause_button)

    def do_stop(self):
        self.click(self.dock.stop_button)

    def do_resume(self):
        self.click(self.dock.resume_button)

    do_resume_again = do_resume

    def do_estimate(self):
        self.click(self.dock.estimate_button)

    def do_cross_validate(self):
        self.dock.plan_box.folds.setValue(2)
        self.click(self.dock.validate_button)

    def do_wait(self):
        self.breathe(0.4)

    def do_options(self):
        if self.dock.plan_box.isEnabled():
            self.dock.plan_box.options["patch"].value = self.random.choice((0, 80, 80, 30))
            self.dock.plan_box.options["validation"].value = self.random.choice((0, 0.2))

    def do_start_from(self):
        start = self.dock.plan_box.start
        if self.dock.plan_box.isEnabled():
            start.setCurrentIndex(self.random.choice((1, 1, start.count() - 2)))
            start.activated.emit(start.currentIndex())
            self.dock.plan_box.options["epochs"].value = 3
            self.dock.plan_box.options["patch"].value = 80
            self.dock.plan_box.more["batch_size"].value = 4

    def do_use(self):
        if self.dock.tabs.isTabEnabled(2) and self.random.random() < 0.3:
            self.click(self.dock.outcome_box.use_button)

    def do_save_card(self):
        if self.dock.tabs.isTabEnabled(2):
            self.dock.outcome_box.fields["authors"].setText(self.random.choice(("", "A, B")))
            self.click(self.dock.outcome_box.save_button)

    # The viewer

    def do_theme(self):
        self.viewer.theme = self.random.choice(("dark", "light"))

    def do_add_layer(self):
        self.viewer.add_image(noise(64, 64), name="other")

    def do_remove_layers(self):
        self.viewer.layers.clear()

    def do_show_3d(self):
        self.viewer.dims.ndisplay = self.random.choice((2, 2, 3))

    def do_reopen_dock(self):
        if self.random.random() < 0.5:
            self.holder.destroyOnClose()
            self.breathe(0.05)
            self.open_dock()
            self.breathe(0.3)


def labels_of(path: Path) -> dict[str, set[str]]:
    """Read a table of labels: file -> labels."""
    if not path.exists():
        return {}
    found = pd.read_csv(path, dtype=str, keep_default_na=False)
    return {file: set(label.split("|")) for file, label in zip(found["file"], found["label"], strict=True)}


@pytest.fixture
def folder(table, tmp_path, tmp_path_factory, monkeypatch):
    """Make eight labelled images; the test has its own settings, and answers the question before closing with yes."""
    rows = (tmp_path / "labels.csv").read_text().splitlines()
    (tmp_path / "labels.csv").write_text("\n".join(",".join(row.split(",")[:2]) for row in rows[:9]))
    for number in range(8, 16):
        (tmp_path / f"{number}.tif").unlink()
    QSettings.setPath(QSettings.Format.NativeFormat, QSettings.Scope.UserScope, str(tmp_path_factory.mktemp("own")))
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes)
    yield tmp_path
    current.clear()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.slow
def test_whatever_a_user_does_no_label_is_lost(make_napari_viewer, qtbot, folder, caplog, record_property, seed):
    walk = Walk(make_napari_viewer(), folder, seed)
    before = windows()
    qtbot.waitUntil(lambda: walk.box.labelling is not None, timeout=PATIENCE)
    walk.go(qtbot, ACTIONS, last=walk.do_learn)
    walk.check()
    found = f"{walk.epochs} epochs at most, {len(walk.box.labelling.labelled())} labels"
    record_property(f"random walk over the Train dock, seed {seed}", found)
    walk.assert_no_faults(caplog)
    assert windows() <= before
    assert walk.epochs >= 1, walk.dock.message.text()
