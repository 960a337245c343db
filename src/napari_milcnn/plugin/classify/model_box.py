"""The section of the Classify dock for the model: which one, what it knows, and the device it runs on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QFileDialog, QPushButton, QWidget

from napari_milcnn.figures.palette import class_colours
from napari_milcnn.model.shipped import shipped_models
from napari_milcnn.plugin.current_model import current
from napari_milcnn.plugin.docks import TrainPage, open_page
from napari_milcnn.plugin.qt.forms import (
    ERROR,
    NarrowComboBox,
    Note,
    browse_button,
    chip,
    connect_while_alive,
    plain_text,
    row,
    vertical_layout,
)
from napari_milcnn.plugin.qt.job import Ending, Job
from napari_milcnn.plugin.user_settings import recent_models, remember_model

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_milcnn.inference.devices import DeviceChoice
    from napari_milcnn.model.card import ModelCard
    from napari_milcnn.model.trained_model import TrainedModel

_PRACTICE_IMAGE, _PRACTICE_MODEL = "yeast-timelapse", "yeast-sim"
_GET_A_MODEL = (
    "Choose a model, open a model .zip, or drop one here. The shipped models are to practise with: they know only the "
    "classes on their cards, in images like those they were trained on. For your own images and phenotypes, train a "
    "model on a few dozen labelled images."
)
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
    """Choose a model, show its card, unload it; without a model, where to get one.

    Parameters
    ----------
    viewer : Viewer
        Where the Train dock and the practice images open.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self.choice: DeviceChoice | None = None
        self.models = NarrowComboBox()
        self.models.setObjectName("models")
        self.models.setAccessibleName("Model")
        self.models.setToolTip("Shipped models and models used recently. You can also drop a model .zip on napari.")
        self.open_button = browse_button("Open a model file")
        self.open_button.setToolTip("Open a model .zip")
        self.card = Note()
        self.device = Note()
        self.unload_button = QPushButton("Unload")
        self.unload_button.setToolTip("Unload the model and free its memory; what it found stays")
        self.train_button, self.practice_button = QPushButton("Train a model…"), QPushButton("Practice images")
        self.train_button.setToolTip("Open the Train dock: label some of your own images, and train a model on them")
        self.practice_button.setToolTip("Open a simulated time-lapse of yeast, and the model that knows its classes")
        self.unload_button.hide()
        self._lay_out()
        self._fill()
        self.models.activated.connect(self._on_activated)
        self.open_button.clicked.connect(self._on_open)
        self.unload_button.clicked.connect(lambda: current.clear())
        self.train_button.clicked.connect(lambda: open_page(viewer, TrainPage))
        self.practice_button.clicked.connect(self.practise)
        connect_while_alive(current.changed, self._on_changed, self)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._say_device)
        self._timer.start(_REFRESH)
        self._on_changed(current.model)

    def _lay_out(self) -> None:
        layout = vertical_layout(self)
        layout.addLayout(row(self.models, self.open_button, stretch=0))
        layout.addWidget(self.card)
        layout.addLayout(row(self.train_button, self.practice_button))
        layout.addLayout(row(self.device, self.unload_button, stretch=0))

    def load(self, path: Path) -> None:
        """Load a model file beside the window and make it the current model."""
        self.models.setEnabled(False)
        self.card.say("loading…")
        Job(lambda: load(path), self, self._on_loaded, self._on_load_end)

    def practise(self) -> None:
        """Open a simulated time-lapse, and the shipped model that knows its classes."""
        self._viewer.open_sample("napari-milcnn", _PRACTICE_IMAGE)
        self.load(shipped_models()[_PRACTICE_MODEL])

    def _fill(self) -> None:
        """List shipped and recent models, and choose the current one."""
        self.models.clear()
        self.models.addItem("choose a model", None)
        for name, path in shipped_models().items():
            self.models.addItem(name, str(path))
        for path in recent_models():
            self.models.addItem(path.stem, str(path))
            self.models.setItemData(self.models.count() - 1, plain_text(str(path)), Qt.ItemDataRole.ToolTipRole)
        chosen = current.model.path if current.model is not None else None
        self.models.setCurrentIndex(max(0, self.models.findData(str(chosen))) if chosen else 0)

    def _on_activated(self, index: int) -> None:
        path = self.models.itemData(index)
        if path is not None:
            self.load(Path(path))

    def _on_open(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a model", "", "Models (*.zip rdf.yaml)")
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
        about = filter(None, [model.card.description, model.card.trained_on]) if model else ()
        self.card.setToolTip(plain_text("\n".join(about)))
        if model:
            self.card.say_rich(card_summary(model))
        else:
            self.card.say(_GET_A_MODEL)
        self.practice_button.setVisible(model is None)
        self.train_button.setVisible(model is None or _is_shipped(model))
        self.unload_button.setVisible(model is not None)
        self._say_device()

    def _say_device(self) -> None:
        model = current.model
        if model is None:
            self.device.say("")
            return
        self.device.say(device_line(model, self.choice))


def card_summary(model: TrainedModel) -> str:
    """Return rich text: what a model is for, how often it was right, what images it needs, and its classes."""
    card, colours = model.card, class_colours(model.classes)
    about = re.split(r"(?<=[.;])\s", card.description or card.trained_on)[0].rstrip(";")
    size = f"{card.pixel_size:.3g} µm per pixel" if card.pixel_size else "pixel size unknown"
    needs = f"Needs {' and '.join(card.channels)}, {size}."
    practice = "Shipped to practise with: train a model for your own images." if _is_shipped(model) else ""
    classes = " &nbsp; ".join(chip(colours[name], name) for name in card.classes)
    lines = [*map(escape, (about, card_sentence(card), f"{needs} {practice}".rstrip())), classes]
    return "<br>".join(filter(None, lines))


def _is_shipped(model: TrainedModel) -> bool:
    return model.path in set(shipped_models().values())


def card_sentence(card: ModelCard) -> str:
    """Say in a sentence how often a model was right, on which images; empty if its card does not say.

    The share of affected cells is said where the card names it in the words of our own benchmarks.
    """
    known = [(name, value) for name, value in card.metrics.items() if "accuracy" in name and 0 <= value <= 1]
    if not known:
        return ""
    name, value = known[0]
    right = f"{100 if value == 1 else min(99, round(100 * value))} of 100"
    unseen = "unseen images" if re.search("validation|test|held", name) else "images"
    share = re.search(r"(\d+)\s?[-–]\s?(\d+) % show", card.trained_on)
    cells = f" with {share[1]}–{share[2]} % affected cells" if share else ""
    if "yes or no" in name:
        return f"In {unseen}{cells}, it was right in {right} answers, one for each class and image."
    return f"Right on {right} {unseen}{cells}."


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
