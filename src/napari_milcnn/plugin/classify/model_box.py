"""The top of the dock: which model, what it knows, and where it will run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QSettings, QTimer
from qtpy.QtWidgets import QFileDialog, QPushButton, QVBoxLayout, QWidget

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.model.shipped import shipped_models
from napari_milcnn.plugin.current_model import current
from napari_milcnn.plugin.qt.forms import ERROR, NarrowComboBox, Note, chip, connect_while_alive, heading, row
from napari_milcnn.plugin.qt.job import Ending, Job

if TYPE_CHECKING:
    from napari_milcnn.inference.devices import DeviceChoice
    from napari_milcnn.model.trained_model import TrainedModel

_RECENT = 6
_REFRESH = 5000
"""Milliseconds between two looks at the free memory."""


@dataclass(frozen=True)
class Loaded:
    """A model read from disk, and the device that an automatic choice gives it."""

    model: TrainedModel
    choice: DeviceChoice


def load(path: Path) -> Iterator[Loaded]:
    """Load a model and choose its device; both need the engine, which takes seconds to import."""
    from napari_milcnn.inference.devices import choose_device
    from napari_milcnn.model.package_read import load_model

    yield Loaded(load_model(path), choose_device())


class ModelBox(QWidget):
    """Choose a model, see its card, unload it."""

    def __init__(self) -> None:
        super().__init__()
        self.choice: DeviceChoice | None = None
        self.models = NarrowComboBox()
        self.models.setObjectName("models")
        self.models.setToolTip("Shipped models and those used last. A model .zip dropped on napari is taken as well.")
        self.open_button = QPushButton("…")
        self.open_button.setFixedWidth(32)
        self.open_button.setToolTip("Open a model .zip")
        self.open_button.setAccessibleName("Open a model file")
        self.card = Note()
        self.device = Note()
        self.unload_button = QPushButton("Unload")
        self.unload_button.setToolTip("Give the model's memory back")
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
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(heading("Model"))
        layout.addLayout(row(self.models, self.open_button, stretch=0))
        layout.addWidget(self.card)
        layout.addLayout(row(self.device, self.unload_button, stretch=0))

    def load(self, path: Path) -> None:
        """Load a model file beside the window; it then becomes the current model."""
        self.models.setEnabled(False)
        self.card.say("loading…")
        Job(lambda: load(path), self, self._on_loaded, self._on_load_end)

    def _fill(self) -> None:
        """List shipped and recent models, the current one chosen."""
        self.models.clear()
        self.models.addItem("choose a model", None)
        for name, path in shipped_models().items():
            self.models.addItem(name, str(path))
        for path in recent_models():
            self.models.addItem(path.stem, str(path))
            self.models.setItemData(self.models.count() - 1, str(path), _TOOL_TIP)
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
        """Show the current model, whoever set it."""
        if model is not None and model.path is not None:
            remember_model(model.path)
        self._fill()
        self.card.setToolTip("\n".join(filter(None, [model.card.description, model.card.trained_on])) if model else "")
        self.card.say(card_glance(model) if model else "Choose a shipped model, open one, or drop a model .zip.")
        self.unload_button.setVisible(model is not None)
        self._say_device()

    def _say_device(self) -> None:
        model = current.model
        if model is None:
            self.device.say("")
            return
        self.device.say(device_line(model, self.choice))


_TOOL_TIP = 3
"""Qt.ToolTipRole, whose enum the bindings spell differently."""


def card_glance(model: TrainedModel) -> str:
    """Return rich text: classes with their colours, channels, pixel size, what it was trained on and how well."""
    card, colours = model.card, class_colours(model.classes)
    size = f"{card.pixel_size:.3g} µm/px" if card.pixel_size else "pixel size unknown"
    figures = [f"{name} {value:.2f}".replace("0.", ".") for name, value in card.metrics.items()][:1]
    facts = " · ".join([", ".join(card.channels), size, *figures])
    about = re.split(r"(?<=[.;])\s", card.description or card.trained_on)[0].rstrip(";")
    classes = " &nbsp; ".join(chip(colours[name], name) for name in card.classes)
    return "<br>".join(filter(None, [facts, about, classes]))


def device_line(model: TrainedModel, choice: DeviceChoice | None) -> str:
    """Say where it runs, why, how much memory is free there and how much the model holds."""
    from napari_milcnn.inference.devices import choose_device, free_memory

    choice = choice or choose_device(precision="float32")
    held = sum(p.numel() * p.element_size() for p in model.network.parameters()) / 1e6
    name = str(choice.device).upper() if choice.device.type == "cpu" else choice.reason
    why = f" ({choice.reason})" if choice.device.type == "cpu" else ""
    free = free_memory(choice.device) / 1e9
    precision = str(choice.precision).removeprefix("torch.")
    return f"{name}, {precision}{why} · {free:.1f} GB free · the model holds {held:.0f} MB"


def recent_models() -> list[Path]:
    """Return the model files used last that are still there, shipped ones apart."""
    stored = QSettings("napari-milcnn", "napari-milcnn").value("recent_models") or []
    paths = [Path(one) for one in ([stored] if isinstance(stored, str) else stored)]
    shipped = set(shipped_models().values())
    return [path for path in paths if path not in shipped and path.is_file()]


def remember_model(path: Path) -> None:
    """Put a model file first among those used last."""
    if path not in set(shipped_models().values()):
        kept = [path, *(one for one in recent_models() if one != path)][:_RECENT]
        QSettings("napari-milcnn", "napari-milcnn").setValue("recent_models", [str(one) for one in kept])
