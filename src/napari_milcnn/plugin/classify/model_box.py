"""The section of the Classify dock for the model: which one, what it knows, and the device it runs on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QFileDialog, QPushButton, QWidget

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.model.shipped import shipped_models
from napari_milcnn.plugin.current_model import current
from napari_milcnn.plugin.qt.forms import (
    ERROR,
    NarrowComboBox,
    Note,
    browse_button,
    chip,
    connect_while_alive,
    heading,
    row,
    vertical_layout,
)
from napari_milcnn.plugin.qt.job import Ending, Job
from napari_milcnn.plugin.user_settings import recent_models, remember_model

if TYPE_CHECKING:
    from napari_milcnn.inference.devices import DeviceChoice
    from napari_milcnn.model.trained_model import TrainedModel

_REFRESH = 5000
"""Time between two updates of the free memory, in ms."""


@dataclass(frozen=True)
class Loaded:
    """A model read from disk, and the device that `auto` chooses for it."""

    model: TrainedModel
    choice: DeviceChoice


def load(path: Path) -> Iterator[Loaded]:
    """Load a model and choose its device. Both import torch, which takes seconds, so this runs in a job."""
    from napari_milcnn.inference.devices import choose_device
    from napari_milcnn.model.package_read import load_model

    yield Loaded(load_model(path), choose_device())


class ModelBox(QWidget):
    """Choose a model, show its card, unload it."""

    def __init__(self) -> None:
        super().__init__()
        self.choice: DeviceChoice | None = None
        self.models = NarrowComboBox()
        self.models.setObjectName("models")
        self.models.setToolTip("Shipped models and models used recently. You can also drop a model .zip on napari.")
        self.open_button = browse_button("Open a model file")
        self.open_button.setToolTip("Open a model .zip")
        self.card = Note()
        self.device = Note()
        self.unload_button = QPushButton("Unload")
        self.unload_button.setToolTip("Unload the model and free its memory")
        self.unload_button.hide()
        self._lay_out()
        self._fill()
        self.models.activated.connect(self._on_activated)
        self.open_button.clicked.connect(self._on_open)
        self.unload_button.clicked.connect(lambda: current.clear())
        connect_while_alive(current.changed, self._on_changed, self)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._say_device)
        self._timer.start(_REFRESH)
        self._on_changed(current.model)

    def _lay_out(self) -> None:
        layout = vertical_layout(self)
        layout.addWidget(heading("Model"))
        layout.addLayout(row(self.models, self.open_button, stretch=0))
        layout.addWidget(self.card)
        layout.addLayout(row(self.device, self.unload_button, stretch=0))

    def load(self, path: Path) -> None:
        """Load a model file beside the window and make it the current model."""
        self.models.setEnabled(False)
        self.card.say("loading…")
        Job(lambda: load(path), self, self._on_loaded, self._on_load_end)

    def _fill(self) -> None:
        """List shipped and recent models, and choose the current one."""
        self.models.clear()
        self.models.addItem("choose a model", None)
        for name, path in shipped_models().items():
            self.models.addItem(name, str(path))
        for path in recent_models():
            self.models.addItem(path.stem, str(path))
            self.models.setItemData(self.models.count() - 1, str(path), Qt.ItemDataRole.ToolTipRole)
        chosen = current.model.path if current.model is not None else None
        self.models.setCurrentIndex(max(0, self.models.findData(str(chosen))) if chosen else 0)

    def _on_activated(self, index: int) -> None:
        path = self.models.itemData(index)
        if path is not None:
            self.load(Path(path))

    def _on_open(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a model", "", "Models (*.zip)")
        if path:
            self.load(Path(path))

    def _on_loaded(self, loaded: Loaded) -> None:
        self.choice = loaded.choice
        current.set(loaded.model)

    def _on_load_end(self, ending: Ending) -> None:
        self.models.setEnabled(True)
        if ending.error:
            self._on_changed(current.model)
            self.card.say(ending.error, ERROR)

    def _on_changed(self, model: TrainedModel | None) -> None:
        """Show the current model, whichever dock or drop set it."""
        if model is not None and model.path is not None:
            remember_model(model.path)
        self._fill()
        self.card.setToolTip("\n".join(filter(None, [model.card.description, model.card.trained_on])) if model else "")
        self.card.say(card_summary(model) if model else "Choose a shipped model, open a model .zip, or drop one here.")
        self.unload_button.setVisible(model is not None)
        self._say_device()

    def _say_device(self) -> None:
        model = current.model
        if model is None:
            self.device.say("")
            return
        self.device.say(device_line(model, self.choice))


def card_summary(model: TrainedModel) -> str:
    """Return rich text: channels, pixel size, first metric and description of a model, and its classes in colour."""
    card, colours = model.card, class_colours(model.classes)
    size = f"{card.pixel_size:.3g} µm/px" if card.pixel_size else "pixel size unknown"
    figures = [f"{name} {value:.2f}" for name, value in card.metrics.items()][:1]
    facts = " · ".join([", ".join(card.channels), size, *figures])
    about = re.split(r"(?<=[.;])\s", card.description or card.trained_on)[0].rstrip(";")
    classes = " &nbsp; ".join(chip(colours[name], name) for name in card.classes)
    return "<br>".join(filter(None, [facts, about, classes]))


def device_line(model: TrainedModel, choice: DeviceChoice | None) -> str:
    """Return the device with the reason for it, the precision, the free memory there and the size of the model."""
    from napari_milcnn.inference.devices import choose_device, free_memory

    choice = choice or choose_device(precision="float32")
    size = sum(p.numel() * p.element_size() for p in model.network.parameters()) / 1e6
    name = str(choice.device).upper() if choice.device.type == "cpu" else choice.reason
    why = f" ({choice.reason})" if choice.device.type == "cpu" else ""
    free = free_memory(choice.device) / 1e9
    precision = str(choice.precision).removeprefix("torch.")
    return f"{name}, {precision}{why} · {free:.1f} GB free · model: {size:.0f} MB"
