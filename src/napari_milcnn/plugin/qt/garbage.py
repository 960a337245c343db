"""Collections of garbage that do not look through what the docks have loaded.

napari collects garbage in the window's thread whenever a layer is removed. With torch, pandas and the docks there is
several times as much to look through as in napari alone, and almost all of it stays until the end; the window does not
answer meanwhile. `gc.freeze` leaves out what exists at that moment, so that less is looked through where layers that
are added later, such as masks, are removed. Of what was left out, what becomes garbage in cycles, as layers do, would
stay: a collection therefore looks through everything a minute after such a layer was removed at the latest, at once
where those that were removed hold much memory, and now and then in any case.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from qtpy.QtCore import QTimer

_LOOK, _EVERY = 60, 300
"""Seconds after which what is left out is looked through: if a layer went that was left out, and in any case."""
_MOST_HELD = 100e6
"""Bytes of the data of removed layers that may wait for that."""


@contextmanager
def short_collections() -> Iterator[None]:
    """Leave what exists now out of collections of garbage, while a thread loads a dock.

    Where objects are left out already, or a dock is open, nothing is done.
    """
    own = gc.get_freeze_count() == 0 and not resting.has_docks
    if own:
        gc.freeze()
    try:
        yield
    finally:
        if own:
            gc.unfreeze()


class RestingObjects:
    """What collections of garbage leave out while docks are open; there is one for the whole process, `resting`.

    Where the program around this one leaves objects out by itself, nothing is done.
    """

    def __init__(self) -> None:
        self._viewers: dict[int, Any] = {}
        self._layers: WeakSet[Any] = WeakSet()
        self._gone: WeakSet[Any] = WeakSet()
        self._timer: QTimer | None = None
        self._looked = 0.0

    @property
    def has_docks(self) -> bool:
        """Whether objects are left out because a dock is open."""
        return bool(self._viewers)

    def dock_opened(self, dock: int, viewer: Any) -> None:
        """Leave out what exists now, until the dock of this `id` is closed."""
        if not self._viewers and gc.get_freeze_count():
            return
        if not self._viewers:
            self._looked = time.monotonic()
            self._timer = QTimer()
            self._timer.timeout.connect(self._on_time)
            self._timer.start(1000 * _LOOK)
        self._viewers[dock] = viewer
        self._freeze()

    def dock_closed(self, dock: int) -> None:
        """Leave nothing out any more, once the last dock is gone."""
        if self._viewers.pop(dock, None) is not None and not self._viewers:
            self._timer = None
            gc.unfreeze()

    def layer_goes(self, layer: Any) -> None:
        """Remember that a layer goes that was left out; let napari free it now if much memory waits to be freed."""
        if self._viewers and layer in self._layers:
            self._gone.add(layer)
            if sum(getattr(one.data, "nbytes", math.inf) for one in self._gone) > _MOST_HELD:
                gc.unfreeze()
                QTimer.singleShot(0, self._freeze)

    def _on_time(self) -> None:
        """Free what is garbage among what was left out, if it is time."""
        if self._gone or time.monotonic() > self._looked + _EVERY:
            gc.unfreeze()
            gc.collect()
            self._gone.clear()  # what is still there is held by someone, such as the console
            self._looked = time.monotonic()
            self._freeze()

    def _freeze(self) -> None:
        if self._viewers:
            gc.freeze()
            self._layers = WeakSet(layer for viewer in self._viewers.values() for layer in viewer.layers)


resting = RestingObjects()
