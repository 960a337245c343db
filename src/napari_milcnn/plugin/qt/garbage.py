"""Collections of garbage that do not look through what the docks have loaded.

napari collects garbage in the window's thread whenever a layer is removed. With torch, pandas and the docks there is
four times as much to look through as in napari alone, and almost all of it stays until the end: for half a second the
window does not answer. `gc.freeze` leaves out what exists at that moment. Of that, what becomes garbage in cycles, as
layers do, would stay, so that some full collections look through everything: one every five minutes, and that in which
napari frees what a layer that was left out was drawn with.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

_EVERY = 300.0
"""Seconds after which a full collection looks through everything."""


@contextmanager
def short_collections() -> Iterator[None]:
    """Leave what exists now out of collections of garbage, while a thread loads or computes.

    Where objects are left out already, nothing is done.
    """
    own = gc.get_freeze_count() == 0
    if own:
        gc.freeze()
    try:
        yield
    finally:
        if own:
            gc.unfreeze()


class RestingObjects:
    """What full collections leave out while docks are open; there is one for the whole process, `resting`."""

    def __init__(self) -> None:
        self._viewers: list[Any] = []
        self._layers: WeakSet[Any] = WeakSet()
        self._frozen, self._at = False, 0.0
        self._layer_goes, self._again = False, True

    def dock_opened(self, viewer: Any) -> None:
        """Leave out what exists now; `dock_closed` is to be called once for each call."""
        if not self._viewers:
            gc.callbacks.append(self._on_collection)
        self._viewers.append(viewer)
        self._freeze()

    def dock_closed(self, viewer: Any) -> None:
        """Leave nothing out any more once the last dock is gone."""
        self._viewers.remove(viewer)
        if not self._viewers:
            gc.callbacks.remove(self._on_collection)
            self._layers.clear()
            self._frozen = False
            gc.unfreeze()

    def layer_goes(self, layer: Any) -> None:
        """Have the next full collection look through everything if this layer was left out."""
        self._layer_goes |= layer in self._layers

    def _freeze(self) -> None:
        gc.freeze()
        self._frozen, self._at = True, time.monotonic()
        self._layers = WeakSet(layer for viewer in self._viewers for layer in viewer.layers)

    def _on_collection(self, phase: str, info: Mapping[str, int]) -> None:
        if info["generation"] < 2:
            return
        if phase == "start":
            if self._frozen and (self._layer_goes or time.monotonic() > self._at + _EVERY):
                gc.unfreeze()
                self._frozen, self._again = False, not self._layer_goes
                self._layer_goes = False
        elif not self._frozen:
            if self._again:
                self._freeze()
            self._again = True  # the layer itself is garbage only after napari's collection


resting = RestingObjects()
