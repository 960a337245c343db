"""A user who does anything: python -m benchmarks.speed.monkey [--actions 2000] [--seed 1] [--viewers 2].

Needs a screen, or one that is not seen: `xvfb-run -a -s "-screen 0 1600x1000x24 +extension GLX" python -m ...`.

Two viewers of napari, or one; the docks are open in the first, and may be opened in the other. An action is drawn at
random: a click, a key, a turn of the wheel or a choice on any control of a dock that can be seen and used; a drop of
an image, a folder, a table or something unfit; and what users do to the viewer meanwhile: rename, delete, move and
select layers, change the theme, show 3D, step through planes, close and open docks. Questions get a random answer;
file dialogs get a file, or are cancelled. The same seed draws the same actions, although threads may end earlier or
later.

Reported: exceptions (those of napari and vispy alone apart: two viewers in one process under software OpenGL raise
some), windows that are left when the viewers are closed, results that vanished although no question was answered and
nobody removed them, and how long the window did not answer, with the time for which its thread computed: what others
do on the machine lengthens the first alone. What was done to napari is then done in a new process without the docks, in
viewers with as many layers, so that what is napari's own stands beside. The longest gaps are named with the function
in which most of them passed.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import napari
import numpy as np
import tifffile
from napari._vispy.canvas import VispyCanvas
from qtpy.QtCore import QEvent, QPoint, QPointF, QSettings, Qt
from qtpy.QtGui import QColor, QDesktopServices, QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QColorDialog,
    QComboBox,
    QFileDialog,
    QLineEdit,
    QMenu,
    QMessageBox,
    QScrollBar,
    QTabBar,
    QWidget,
)
from vispy.app.backends._qt import CanvasBackendDesktop

import napari_milcnn as mil
from benchmarks.record import report, table
from benchmarks.speed.ticks import Causes, Gap, Ticks
from benchmarks.train_dock import drop_on
from napari_milcnn.plugin.current_model import current
from napari_milcnn.plugin.docks import OpeningDock, pages_of
from napari_milcnn.simulation.microscope import simulate_field
from napari_milcnn.simulation.options import SimulationOptions

DOCKS = ("Classify", "Train", "Results")
KEYS = (*"123abz .,-", Qt.Key.Key_Return, Qt.Key.Key_Escape, Qt.Key.Key_Tab, Qt.Key.Key_Up, Qt.Key.Key_Down,
        Qt.Key.Key_Delete, Qt.Key.Key_Space)  # fmt: skip
CONTROLS = (QAbstractButton, QComboBox, QAbstractSpinBox, QAbstractSlider, QLineEdit, QAbstractItemView, QTabBar)
OF_NAPARI = ("add_layer", "delete_layer", "rename_layer", "select_layer", "move_layer", "theme", "show_3d",
             "step_plane", "canvas_key", "delete_old_layers")  # fmt: skip
"""Actions that napari has without this plugin, too."""
MOST_LAYERS = 20
"""A user tidies up where a viewer has more layers: what napari does takes longer with each."""
SETTLED = 0.003
"""Seconds that a window needs where nothing is due."""
LOSES = ("remove", "delete", "forget", "clear", "close")
"""Words on a control, or in the name of an action, that say that something goes."""


NO_GAP = Gap(0, 0, "")
THE_END = "the end"


@dataclass
class Step:
    """An action that was done: what it was, and what napari needs to do the same without the docks.

    Attributes
    ----------
    kind : str
        The action.
    state : tuple
        Of the random numbers before it.
    layers : list of int
        How many each viewer had before it.
    longest : Gap
        The longest time for which the window did not answer.
    """

    kind: str
    state: Any
    layers: list[int]
    longest: Gap = NO_GAP


class Monkey:
    """Two viewers, their docks, and random actions on them."""

    def __init__(self, viewers: list[napari.Viewer], folder: Path, seed: int, *, docks: bool = True) -> None:
        self.random = random.Random(seed)
        self.viewers, self.folder, self.files = viewers, folder, make_files(folder)
        self.faults: list[str] = []
        self.elsewhere: Counter[str] = Counter()
        self.lost: list[str] = []
        self.log: list[str] = []
        self.steps: list[Step] = []
        self.questions, self.most = 0, 0
        self.ticks = Ticks()
        self.ticks.start()
        self.causes = Causes(self.ticks)
        self.actions = [getattr(self, name) for name in dir(self) if name.startswith("do_")]
        for viewer in self.viewers:
            viewer.window._qt_window.resize(1366, 768)
        for name in DOCKS if docks else ():
            self.viewers[0].window.add_plugin_dock_widget("napari-milcnn", name)
        self.live(1)

    # what is there -----------------------------------------------------------------------------------------------

    def pages(self) -> list[OpeningDock]:
        """Return the open docks of this plugin."""
        return [page for viewer in self.viewers for page in pages_of(viewer)]

    def controls(self) -> list[QWidget]:
        """Return what a user can see and use in the docks."""
        inside = [one for page in self.pages() for one in page.findChildren(QWidget)]
        found = [one for one in inside if isinstance(one, CONTROLS) and one.isVisible() and one.isEnabled()
                 and not isinstance(one, QScrollBar)]  # fmt: skip
        self.ticks.pass_over()
        return found

    def results(self) -> int:
        """Count the planes that have results in all docks."""
        docks = [page.dock for page in self.pages() if type(page.dock).__name__ == "ClassifyDock"]
        return sum(len(image.planes) for dock in docks for image in dock.session.images.records.values())

    def live(self, seconds: float) -> None:
        """Let the windows work."""
        end = time.monotonic() + seconds
        while True:
            QApplication.processEvents()
            if time.monotonic() > end:
                return
            time.sleep(0.002)

    def settle(self) -> None:
        """Let the windows do what is due, so that the next action does not pay for it."""
        for _ in range(20):
            began = time.thread_time()
            QApplication.processEvents()
            if time.thread_time() - began < SETTLED:
                return

    # one action after another ------------------------------------------------------------------------------------

    def go(self, actions: int) -> None:
        """Do so many actions, then close all windows."""
        hook = sys.excepthook
        sys.excepthook = self._on_error
        try:
            with self._dialogs(), layers_go_in_their_own_context(), canvas_keys_report_their_errors():
                self.causes.start()
                self.classify_first()
                for _ in range(actions):
                    self.step()
                self.ticks.doing = THE_END
                self.live(1)
                self.close()
        finally:
            sys.excepthook = hook
            self.causes.over.set()

    def classify_first(self) -> None:
        """Drop an image on the Classify dock and wait for its results, so that there is something to lose."""
        page = next(one for one in self.pages() if one.name == "Classify")
        end = time.monotonic() + 120
        while page.dock is None and time.monotonic() < end:
            self.live(0.05)
        drop_on(page.dock, self.files[0])
        while not self.results() and time.monotonic() < end:
            self.live(0.05)
        if not self.results():
            self.faults.append("the first image was not classified")

    def step(self) -> None:
        """Do something, let the windows work, and see whether results vanished."""
        full = any(len(viewer.layers) > MOST_LAYERS for viewer in self.viewers)
        action = self.delete_old_layers if full else self.random.choice(self.actions)
        before, asked = self.results(), self.questions
        self.most = max(self.most, before)
        self.ticks.doing = action.__name__.removeprefix("do_")
        self.log.append(self.ticks.doing)
        self.steps.append(Step(self.ticks.doing, self.random.getstate(), [len(one.layers) for one in self.viewers]))
        self.measured(action)
        said = self.ticks.doing.lower()
        if self.results() < before and self.questions == asked and not any(word in said for word in LOSES):
            self.lost.append(f"{before} -> {self.results()} after {self.log[-4:]}")

    def measured(self, action: Callable[[], None]) -> None:
        """Do something, let the windows work, and keep the longest gap."""
        first = len(self.ticks.gaps)
        try:
            action()
            self.live(self.random.choice((0, 0.01, 0.05, 0.1)))
            self.settle()
        except Exception:  # noqa: BLE001 - all of them are reported
            self._on_error(*sys.exc_info())
        self.steps[-1].longest = max(self.ticks.gaps[first:], default=NO_GAP)

    def replay(self, steps: list[Step]) -> None:
        """Do the same actions on napari, with as many layers, where there is no dock."""
        with self._dialogs(), layers_go_in_their_own_context(), canvas_keys_report_their_errors():
            for step in steps:
                self.have_layers(step.layers)
                self.settle()
                self.steps.append(Step(step.kind, None, step.layers))
                self.random.setstate(step.state)
                self.ticks.doing = step.kind
                self.measured(getattr(self, f"do_{step.kind}", self.delete_old_layers))
            self.close()

    def have_layers(self, wanted: list[int]) -> None:
        """Add small images to the viewers, or remove layers, until they have so many."""
        for viewer, count in zip(self.viewers, wanted, strict=True):
            while len(viewer.layers) < count:
                viewer.add_image(np.zeros((192, 192), np.uint16), name="field")
            while len(viewer.layers) > count:
                viewer.layers.pop()
        self.ticks.pass_over()

    def close(self) -> None:
        """Close the viewers and wait until what is to be deleted is gone."""
        for viewer in self.viewers:
            viewer.close()
        end = time.monotonic() + 120
        while time.monotonic() < end and left_windows():
            self.live(0.2)
        self.faults += [f"left after closing: {one}" for one in sorted(left_windows())]

    def _on_error(self, kind: Any, error: Any, trace: Any) -> None:
        text = "".join(traceback.format_exception(kind, error, trace))
        if "napari_milcnn" in text:
            self.faults.append(f"after {self.log[-5:]}:\n{text}")
        else:
            self.elsewhere[
                f"{kind.__name__} in {traceback.extract_tb(trace)[-1].filename.split('site-packages/')[-1]}"
            ] += 1

    @contextmanager
    def _dialogs(self) -> Iterator[None]:
        """Answer questions and file dialogs at random; open no browser."""

        def ask(*_: Any, **__: Any) -> Any:
            self.questions += 1
            buttons = (QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.No, QMessageBox.StandardButton.Cancel)
            return self.random.choice(buttons)

        def file(*_: Any, **__: Any) -> tuple[str, str]:
            return str(self.random.choice([*self.files, self.folder / "new.csv", ""])), ""

        def files(*_: Any, **__: Any) -> tuple[list[str], str]:
            name, kind = file()
            return [name] if name else [], kind

        answers = {"question": ask, "warning": ask, "information": ask, "critical": ask, "exec": ask, "exec_": ask}
        dialogs = {"getOpenFileName": file, "getSaveFileName": file, "getOpenFileNames": files,
                   "getExistingDirectory": lambda *_, **__: str(self.random.choice((self.folder, "")))}  # fmt: skip
        with ExitStack() as stack:
            for owner, methods in ((QMessageBox, answers), (QFileDialog, dialogs)):
                for name, method in methods.items():
                    if hasattr(owner, name):
                        stack.enter_context(patch.object(owner, name, method))
            stack.enter_context(patch.object(QMenu, "exec", lambda *_: None))
            stack.enter_context(patch.object(QColorDialog, "getColor", lambda *_: QColor("orange")))
            stack.enter_context(patch.object(QDesktopServices, "openUrl", lambda *_: True))
            yield

    # actions on the docks ----------------------------------------------------------------------------------------

    def do_click(self) -> None:
        """Click a control."""
        control = self._control()
        if control is not None:
            QTest.mouseClick(self._surface(control), Qt.MouseButton.LeftButton, pos=self._place(control))
            self._close_popup()

    do_click_again = do_press = do_click

    def do_key(self) -> None:
        """Type a key into a control."""
        control = self._control()
        if control is not None:
            control.setFocus()
            key = self.random.choice(KEYS)
            typed = QTest.keyClicks if isinstance(key, str) else QTest.keyClick
            typed(control, key)
            self._close_popup()

    def do_undo_key(self) -> None:
        """Type Ctrl+Z into a control."""
        control = self._control()
        if control is not None:
            QTest.keyClick(control, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)

    def do_wheel(self) -> None:
        """Turn the wheel over a control."""
        control = self._control()
        if control is not None:
            where = QPointF(control.rect().center())
            QApplication.sendEvent(control, QWheelEvent(
                where, QPointF(control.mapToGlobal(where.toPoint())), QPoint(0, 0),
                QPoint(0, self.random.choice((-240, -120, 120, 240))), Qt.MouseButton.NoButton,
                Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
            ))  # fmt: skip

    def do_choose(self) -> None:
        """Choose an entry of a combo box."""
        boxes = [one for one in self.controls() if isinstance(one, QComboBox) and one.count()]
        if boxes:
            box = self.random.choice(boxes)
            self._name(box)
            box.setCurrentIndex(self.random.randrange(box.count()))
            box.activated.emit(box.currentIndex())

    def do_drop(self) -> None:
        """Drop a file or a folder on a dock."""
        pages = [page for page in self.pages() if page.dock is not None]
        if pages:
            path = self.random.choice([*self.files, self.folder])
            self.ticks.doing += f" {path.name}"
            drop_on(self.random.choice(pages).dock, path)

    def do_close_dock(self) -> None:
        """Close a dock, not often."""
        pages = self.pages()
        if pages and self.random.random() < 0.2:
            page = self.random.choice(pages)
            above = page.parentWidget()
            while not hasattr(above, "destroyOnClose"):
                above = above.parentWidget()
            above.destroyOnClose()

    def do_open_dock(self) -> None:
        """Open a dock, or bring it to the front."""
        viewer = self.random.choice(self.viewers)
        holder, _ = viewer.window.add_plugin_dock_widget("napari-milcnn", self.random.choice(DOCKS))
        holder.raise_()

    # actions on napari -------------------------------------------------------------------------------------------

    def do_add_layer(self) -> None:
        """Add an image, a stack or labels to a viewer."""
        shape = self.random.choice([(96, 128), (3, 96, 128), (2, 2, 96, 128)])
        pixels = np.random.default_rng(self.random.randrange(99)).integers(0, 4000, shape).astype(np.uint16)
        viewer = self.random.choice(self.viewers)
        if self.random.random() < 0.3:
            viewer.add_labels((pixels[..., :, :] > 3000).astype(int), name="cells")
        else:
            viewer.add_image(pixels, name=self.random.choice(("GFP", "RFP", "field", "field")))

    def do_delete_layer(self) -> None:
        """Delete a layer."""
        viewer = self.random.choice(self.viewers)
        if viewer.layers:
            viewer.layers.pop(self.random.randrange(len(viewer.layers)))

    def delete_old_layers(self) -> None:
        """Delete all layers of a full viewer but the five at the top."""
        layers = next(viewer.layers for viewer in self.viewers if len(viewer.layers) > MOST_LAYERS)
        layers.selection = set(layers[:-5])
        layers.remove_selected()

    def do_rename_layer(self) -> None:
        """Rename a layer."""
        viewer = self.random.choice(self.viewers)
        if viewer.layers:
            self.random.choice(list(viewer.layers)).name = self.random.choice(("renamed", "a [b]", "GFP", "<b>x</b>"))

    def do_select_layer(self) -> None:
        """Select one layer, or several."""
        viewer = self.random.choice(self.viewers)
        if viewer.layers:
            viewer.layers.selection = set(self.random.sample(list(viewer.layers), self.random.choice((1, 1, 2))
                                                             if len(viewer.layers) > 1 else 1))  # fmt: skip

    def do_move_layer(self) -> None:
        """Move a layer to the bottom."""
        viewer = self.random.choice(self.viewers)
        if len(viewer.layers) > 1:
            viewer.layers.move(len(viewer.layers) - 1, 0)

    def do_theme(self) -> None:
        """Change the theme."""
        self.random.choice(self.viewers).theme = self.random.choice(("dark", "light"))

    def do_show_3d(self) -> None:
        """Show 3D, or go back."""
        self.random.choice(self.viewers).dims.ndisplay = self.random.choice((2, 2, 3))

    def do_step_plane(self) -> None:
        """Step along the first axis."""
        dims = self.random.choice(self.viewers).dims
        if dims.ndim > 2:
            dims.set_current_step(0, self.random.randrange(max(1, int(dims.nsteps[0]))))

    def do_canvas_key(self) -> None:
        """Type a key on the canvas."""
        canvas = self.random.choice(self.viewers).window._qt_viewer.canvas.native
        QTest.keyClicks(canvas, self.random.choice("12vo"))

    def do_wait(self) -> None:
        """Look at what is there."""
        self.live(0.3)

    # helpers -----------------------------------------------------------------------------------------------------

    def _control(self) -> QWidget | None:
        controls = self.controls()
        if not controls:
            return None
        control = self.random.choice(controls)
        self._name(control)
        return control

    def _name(self, control: QWidget) -> None:
        text = control.text() if isinstance(control, QAbstractButton) else ""
        said = control.accessibleName() or text or control.toolTip()[:40] or type(control).__name__
        self.ticks.doing += f" {said!r}"
        self.log[-1:] = [self.ticks.doing]

    def _surface(self, control: QWidget) -> QWidget:
        return control.viewport() if isinstance(control, QAbstractItemView) else control

    def _place(self, control: QWidget) -> QPoint:
        surface = self._surface(control)
        return QPoint(self.random.randrange(max(1, surface.width())), self.random.randrange(max(1, surface.height())))

    def _close_popup(self) -> None:
        popup = QApplication.activePopupWidget()
        if popup is not None:
            popup.close()


@contextmanager
def layers_go_in_their_own_context() -> Iterator[None]:
    """Make a canvas's OpenGL context the current one before napari frees what a removed layer drew with.

    napari 0.6.6 to 0.9.2 frees it in whatever context is current, and that is often the window's. Mesa's llvmpipe and
    softpipe then take the vertex shader from the canvas's context without noting it (free_zombie_shaders binds NULL
    behind the back of the cache of bound shaders), and the next drawing reads address 0x135: napari alone dies so after
    4 to 30 removed layers. No setting of Mesa prevents it.
    """
    free, free_several = VispyCanvas._remove_layer, getattr(VispyCanvas, "_clean_and_update_scenegraph", None)

    def remove_layer(canvas: VispyCanvas, event: Any) -> None:
        canvas._scene_canvas.set_current()
        free(canvas, event)

    def clean_and_update_scenegraph(canvas: VispyCanvas) -> None:
        canvas._scene_canvas.set_current()
        free_several(canvas)

    with ExitStack() as stack:
        stack.enter_context(patch.object(VispyCanvas, "_remove_layer", remove_layer))
        if free_several is not None:
            stack.enter_context(patch.object(VispyCanvas, "_clean_and_update_scenegraph", clean_and_update_scenegraph))
        yield


@contextmanager
def canvas_keys_report_their_errors() -> Iterator[None]:
    """Give the errors of napari's keys to `sys.excepthook`, where those of a keyboard end.

    QTest calls Qt from Python, and PySide6 keeps what an override raises until that call returns. In 6.10 to 6.12, an
    override that is looked up for the first time meanwhile loses a reference that nobody took (Sbk_GetPyOverride gives
    up, and frees what getOverride only lent it), and the error itself may never be freed. napari's key o raises an
    IndexError where 3D shows an image of two axes: QtViewer.keyPressEvent was freed while its class still had it, or
    the frames of the error kept the viewer. A key of the keyboard comes from Qt's event loop: there PySide6 reports an
    error at once, and loses nothing.
    """
    send = CanvasBackendDesktop._keyEvent

    def send_key(canvas: CanvasBackendDesktop, function: Any, event: Any) -> None:
        try:
            send(canvas, function, event)
        except Exception:  # noqa: BLE001 - all of them are reported
            sys.excepthook(*sys.exc_info())

    with patch.object(CanvasBackendDesktop, "_keyEvent", send_key):
        yield


def left_windows() -> set[str]:
    """Name the windows of this plugin that there are."""
    gc.collect()
    for _ in range(3):
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        QApplication.processEvents()
    return {type(one).__name__ for one in QApplication.allWidgets() if type(one).__module__.startswith("napari_milcnn")}


def make_files(folder: Path) -> list[Path]:
    """Write what is dropped: fields, a table, a model, a text that is no image, a damaged image."""
    files = []
    for i, kind in enumerate(("nucleus", "mitochondria", "cell periphery")):
        field = simulate_field([kind], SimulationOptions(size=(192, 192), cells=(10, 14)), i)
        files.append(folder / f"field{i}.ome.tif")
        facts = {"axes": "CYX", "PhysicalSizeX": 0.16, "PhysicalSizeXUnit": "µm", "Channel": {"Name": ["GFP", "RFP"]}}
        tifffile.imwrite(files[-1], field.image, photometric="minisblack", metadata=facts)
    (folder / "labels.csv").write_text("file,label\nfield0.ome.tif,a\nfield1.ome.tif,b\nfield2.ome.tif,\n")
    (folder / "notes.txt").write_text("no image")
    (folder / "damaged.tif").write_bytes(files[0].read_bytes()[:5000])
    model = folder / "yeast-sim.zip"  # a copy: the monkey also saves to files that it was asked for
    shutil.copy(mil.sample_folder() / "models" / model.name, model)
    return [*files, folder / "labels.csv", folder / "notes.txt", folder / "damaged.tif", model]


def main() -> None:
    """Let the monkey loose and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--viewers", type=int, default=2)
    parser.add_argument("--replay", type=Path, help="do the actions of this file without docks, and write their gaps")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    args = parser.parse_args()
    QSettings.setPath(QSettings.Format.NativeFormat, QSettings.Scope.UserScope, tempfile.mkdtemp())
    folder, docks = Path(tempfile.mkdtemp()), args.replay is None
    if docks:
        current.set(mil.load_model("yeast-sim"))
    monkey = Monkey([napari.Viewer() for _ in range(args.viewers)], folder, args.seed, docks=docks)
    if docks:
        monkey.go(args.actions)
        report("All docks, random actions", summary(monkey, args, without_docks(monkey, args)), keep=args.record)
    else:
        monkey.replay(read_steps(args.replay))
        write_steps(args.replay, monkey.steps)


def without_docks(monkey: Monkey, args: argparse.Namespace) -> list[Step]:
    """Have a new process do what was done to napari, without docks."""
    file = monkey.folder / "steps.json"
    write_steps(file, [step for step in monkey.steps if step.kind in OF_NAPARI])
    call = [sys.executable, "-m", "benchmarks.speed.monkey", "--replay", str(file), "--viewers", str(args.viewers)]
    subprocess.run(call, check=True)
    return read_steps(file)


def write_steps(file: Path, steps: list[Step]) -> None:
    """Write steps as JSON."""
    file.write_text(json.dumps([astuple(step) for step in steps]))


def read_steps(file: Path) -> list[Step]:
    """Read what `write_steps` wrote."""
    rows = json.loads(file.read_text())
    return [Step(kind, state and (state[0], tuple(state[1]), state[2]), layers, Gap(*longest))
            for kind, state, layers, longest in rows]  # fmt: skip


def summary(monkey: Monkey, args: argparse.Namespace, bare: list[Step]) -> list[str]:
    """Say what the monkey found."""
    apart = ", ".join(f"{count} {name}" for name, count in monkey.elsewhere.items()) or "none"
    own = [step for step in monkey.steps if step.kind not in OF_NAPARI]
    quarters = [own[i * len(own) // 4 : (i + 1) * len(own) // 4] for i in range(4)]
    of_docks = {step.kind for step in own}
    gaps = np.array([gap[:2] for gap in monkey.ticks.gaps if gap.doing.split(" ")[0] in of_docks])
    ms, cpu = np.percentile(gaps, 99, axis=0)
    closing = max((gap for gap in monkey.ticks.gaps if gap.doing == THE_END), default=NO_GAP)
    return [
        f"{args.actions} actions, seed {args.seed}, viewers: {args.viewers}. "
        f"{len(monkey.faults)} exceptions or windows left, "
        f"{len(monkey.lost)} times results vanished without a question ({monkey.questions} message boxes answered; "
        f"results of up to {monkey.most} planes at once; up to {max(max(step.layers) for step in monkey.steps)} layers "
        "in a viewer).",
        f"Exceptions of napari and vispy with nothing of this plugin in their traceback: {apart}.",
        f"Gaps of the window after actions on the docks: 99th percentile {ms:.0f} ms, of which its thread computed "
        f"{cpu:.0f} ms; the longest while all windows were closed at the end, {closing.ms:.0f} ({closing.cpu_ms:.0f}) "
        "ms, is not among them. The longest gap of each action, in ms; in brackets what the thread computed of it:\n",
        *table(["action", "times", "median", "99th percentile", "longest", "without docks: median", "99th percentile",
                "longest"], rows_of(monkey.steps, bare)),
        "\nActions on the docks, the first quarter to the last, median and 99th percentile in ms: "
        + "; ".join(", ".join(of_steps(quarter)[:2]) for quarter in quarters) + ".",
        "\nLongest after actions on the docks, and where they passed:\n",
        *(f"- {step.longest.ms:.0f} ({step.longest.cpu_ms:.0f}) ms, {step.longest.doing}: "
          f"{monkey.causes.of(step.longest.doing)}"
          for step in sorted(own, key=lambda step: -step.longest.cpu_ms)[:8]),
        *monkey.faults, *monkey.lost,
    ]  # fmt: skip


def rows_of(steps: list[Step], bare: list[Step]) -> list[list[object]]:
    """Return a row for each kind of action, those of the docks first."""
    kinds = sorted({step.kind for step in steps}, key=lambda kind: (kind in OF_NAPARI, kind))
    rows: list[list[object]] = []
    for kind in kinds:
        both = [[step for step in part if step.kind == kind] for part in (steps, bare)]
        rows.append([kind.replace("_", " "), len(both[0]), *(text for part in both for text in of_steps(part))])
    return rows


def of_steps(steps: list[Step]) -> list[str]:
    """Return the median, the 99th percentile and the highest of the gaps of actions: ms (ms computed)."""
    if not steps:
        return [""] * 3
    found = np.percentile([step.longest[:2] for step in steps], (50, 99, 100), axis=0)
    return [f"{ms:.0f} ({cpu:.0f})" for ms, cpu in found]


if __name__ == "__main__":
    main()
