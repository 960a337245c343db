"""The Train dock as its user has it: opened from the menu of napari, given a folder by drag and drop, and clicked.

Needs a screen, or one that is not seen: `xvfb-run -a -s "-screen 0 1600x1000x24 +extension GLX" python -m ...`.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import torch
from qtpy.QtCore import QElapsedTimer, QEventLoop, QMimeData, QPoint, QPointF, QSettings, Qt, QTimer, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QWidget

SIZE, DOCK_WIDTH = (1300, 860), 360


def read_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Add the arguments that both scripts share and read all; the settings of whoever runs them stay as they are."""
    parser.add_argument("--work", type=Path, default=Path("build/train_dock"), help="for images and screenshots")
    parser.add_argument("--threads", type=int, help="of torch; default: as the dock has them")
    parser.add_argument("--quick", action="store_true", help="under a minute, to see that it runs")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    QSettings.setPath(QSettings.Format.NativeFormat, QSettings.Scope.UserScope, tempfile.mkdtemp())
    if args.threads:
        torch.set_num_threads(args.threads)
    return args


def open_viewer() -> napari.Viewer:
    """Open napari."""
    viewer = napari.Viewer()
    viewer.window._qt_window.resize(*SIZE)
    return viewer


def open_dock(viewer: napari.Viewer, name: str = "Train") -> Any:
    """Open a dock as the Plugins menu does, and wait until it has loaded what it needs."""
    window = viewer.window._qt_window
    holder, page = viewer.window.add_plugin_dock_widget("napari-milcnn", name)
    window.resizeDocks([holder], [DOCK_WIDTH], Qt.Orientation.Horizontal)
    wait(lambda: page.dock is not None and (name != "Train" or bool(page.dock.device.text())))
    return page.dock


def wait(done: Callable[[], bool], seconds: float = 7200) -> None:
    """Let the window live until something is done."""
    loop, timer, clock = QEventLoop(), QTimer(), QElapsedTimer()
    timer.timeout.connect(lambda: loop.quit() if done() or clock.hasExpired(int(1000 * seconds)) else None)
    clock.start()
    timer.start(50)
    loop.exec()
    timer.stop()


def settle(dock: Any) -> None:
    """Wait until nothing runs any more in the dock."""
    box = dock.label_box
    wait(lambda: not (dock.busy or dock.waits or box.busy or box.images.pictures.busy))


def drop_on(widget: QWidget, path: Path) -> None:
    """Drop a file or a folder on a widget, as a file manager does."""
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path.resolve()))])
    how = (Qt.DropAction.CopyAction, mime, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        QApplication.sendEvent(widget, QDragEnterEvent(QPoint(5, 5), *how))
    QApplication.sendEvent(widget, QDropEvent(QPointF(5, 5), *how))


def drop(dock: Any, folder: Path) -> None:
    """Drop a folder on the first tab, and wait until its images are there."""
    drop_on(dock.label_box, folder)
    wait(lambda: dock.label_box.labelling is not None)
    settle(dock)


def choose(dock: Any, **options: Any) -> None:
    """Set options in the form."""
    for name, value in options.items():
        dock.plan_box.options[name].value = value


def shot(viewer: napari.Viewer, path: Path) -> None:
    """Take a picture of the whole window."""
    wait(lambda: False, 1)
    viewer.window.screenshot(str(path), canvas_only=False, flash=False)
