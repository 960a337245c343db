"""The section of the Classify dock for the image: which layers, and their axes, channels, pixel size and planes.

All fields are filled in, and all of them can be edited.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QDoubleSpinBox,
    QFormLayout,
    QLineEdit,
    QRadioButton,
    QWidget,
)

from napari_milcnn.errors import ImageError
from napari_milcnn.plugin.layers_to_image import (
    LayerImage,
    SourceReading,
    channel_count,
    data_shape,
    group_layers,
    image_name_of,
    numbered_channels,
    open_layers,
    suggest,
)
from napari_milcnn.plugin.qt.forms import (
    ERROR,
    WARNING,
    NarrowComboBox,
    Note,
    connect_layers,
    connect_while_alive,
    plain_text,
    row,
    vertical_layout,
)
from napari_milcnn.plugin.qt.notices import as_sentence
from napari_milcnn.plugin.results_to_layers import OURS

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_milcnn.images.stack import ImageStack

SEPARATE_PLANES, MAXIMUM = "planes", "maximum"
_FRAME = 18
"""Width of the frame and the margins of a line of text, in px."""
CHOOSE, GREY_CHOICE = "choose…", "grey (mean of red, green and blue)"


class ImageBox(QWidget):
    """Choose the layers of the image and how to read them.

    Signals
    -------
    changed
        Other layers are chosen, or they are read in another way.
    """

    changed = Signal()

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._groups: list[tuple[Image, ...]] = []
        self._wanted: tuple[str, ...] = ()
        self._model_size: float | None = None
        self._suggested: SourceReading | None = None
        self._refused = ""
        self._readings: dict[tuple[Image, ...], SourceReading] = {}
        self._choices: dict[tuple[object, ...], dict[str, int]] = {}
        self._make_fields()
        self._lay_out()
        self.layers.currentIndexChanged.connect(self._on_chosen)
        self.axes.editingFinished.connect(self._on_edited)
        self.pixel_size.editingFinished.connect(self._on_edited)
        self.z.activated.connect(self._on_edited)
        connect_layers(viewer.layers, ("inserted", "removed", "reordered", "renamed"), self.refresh, self)
        connect_while_alive(viewer.layers.selection.events.changed, self._on_selection, self)
        self.refresh()
        self._fill()

    def _make_fields(self) -> None:
        self.layers = NarrowComboBox()
        self.layers.setObjectName("image layers")
        self.layers.setToolTip("The image: a layer, or the layers of its channels; follows the selected layers")
        self.facts = Note()
        self.axes = QLineEdit()
        self.axes.setMaxLength(8)
        self.axes.setToolTip(
            "One letter for each axis of the layer, in order: P (position), T, Z, C, Y, X, and S for colour samples"
        )
        self.pixel_size = QDoubleSpinBox()
        self.pixel_size.setDecimals(4)
        self.pixel_size.setRange(0, 10_000)
        self.pixel_size.setSpecialValueText("unknown")
        self.pixel_size.setSuffix(" µm")
        self.pixel_size.setToolTip("Size of a pixel; 0 if it is unknown: the image is then not rescaled")
        self.this_plane, self.all_planes = QRadioButton("this"), QRadioButton("all")
        self.this_plane.setToolTip("Classify the plane in view alone")
        self.all_planes.setToolTip("Classify every time point, position and z slice")
        self.all_planes.setChecked(True)
        self._planes = QButtonGroup(self)
        for button in (self.this_plane, self.all_planes):
            self._planes.addButton(button)
        self.z = NarrowComboBox()
        self.z.addItem("each slice is a plane", SEPARATE_PLANES)
        self.z.addItem("maximum projection", MAXIMUM)
        self.z.setToolTip("Classify each z slice by itself, or the maximum projection over z")
        for widget, name in ((self.layers, "Image"), (self.axes, "Axes"), (self.pixel_size, "Pixel size"),
                             (self.z, "Z slices")):  # fmt: skip
            widget.setAccessibleName(name)
        self.message = Note()

    def _lay_out(self) -> None:
        layout = vertical_layout(self)
        layout.addWidget(self.layers)
        self._form = QWidget()
        inner = vertical_layout(self._form)
        self.axes.setFixedWidth(self.axes.fontMetrics().horizontalAdvance("PTZCYX") + _FRAME)
        inner.addWidget(self.facts)
        inner.addLayout(row("axes", self.axes, QWidget(), stretch=2))
        inner.addLayout(row("pixel size", self.pixel_size, stretch=1))
        self._channels = QFormLayout()
        self._channels.setContentsMargins(0, 0, 0, 0)
        inner.addLayout(self._channels)
        inner.addLayout(row("planes", self.this_plane, self.all_planes, stretch=2))
        self._z_part = QWidget()
        vertical_layout(self._z_part).addLayout(row("z", self.z, stretch=1))
        inner.addWidget(self._z_part)
        layout.addWidget(self._form)
        layout.addWidget(self.message)

    # What is chosen

    def chosen(self) -> tuple[Image, ...]:
        """Return the layers of the image; none if there is no image."""
        index = self.layers.currentIndex()
        return self._groups[index] if 0 <= index < len(self._groups) else ()

    @property
    def summary(self) -> str:
        """The chosen image in a few words."""
        return f"{image_name_of(self.chosen())} · {self.facts.text()}" if self.chosen() else "none"

    def choose(self, layers: Sequence[Image]) -> None:
        """Choose some layers as one image, and read them as suggested."""
        self.refresh()
        if tuple(layers) not in self._groups:
            self._groups.append(tuple(layers))
            self.layers.addItem(_group_name(layers))
        self.layers.setCurrentIndex(self._groups.index(tuple(layers)))

    def choose_with(self, layer: Image) -> None:
        """Choose the image that a layer belongs to."""
        self.refresh()
        self.layers.setCurrentIndex(next(i for i, group in enumerate(self._groups) if layer in group))

    def set_channels(self, wanted: Sequence[str], pixel_size: float | None = None) -> None:
        """Offer a choice for each channel of the model, and ask for the pixel size where the model knows its own."""
        self._wanted, self._model_size = tuple(wanted), pixel_size
        self._fill_channels()

    def remember(self, layers: Sequence[Image], reading: SourceReading) -> None:
        """Store how to read layers that the dock opened itself, so that nothing is guessed."""
        self._readings[tuple(layers)] = reading

    @property
    def problem(self) -> str:
        """Why the chosen layers cannot be read with these settings; empty if they can."""
        if not self.chosen() or self._suggested is None:
            return str(self.message.text())
        return self._question()

    def source(self) -> LayerImage:
        """Open the chosen layers with these settings.

        Raises
        ------
        ImageError
            If nothing is chosen, or the settings do not fit the layers.
        """
        layers = self.chosen()
        if not layers:
            raise ImageError("there is no image layer; open an image, or drop TIFFs here")
        return open_layers(layers, self.reading(), z=self.z.currentData() if self._has_z() else SEPARATE_PLANES)

    def openers(self, but: Sequence[Image]) -> list[Callable[[], ImageStack]]:
        """Return functions that open the images of the viewer, as they are offered here, without those of some layers.

        The functions raise `ImageError` for layers that cannot be read as an image.
        """
        return [partial(_open_group, group, self._readings.get(group)) for group in self._groups
                if not set(group) & set(but)]  # fmt: skip

    def reading(self) -> SourceReading:
        """Return the settings; the channels that the model uses have the names that the model knows."""
        if self._suggested is None:
            raise ImageError(self._refused)
        if self._question():
            raise ImageError(self._question())
        chosen = [int(combo.currentData()) for combo in self._combos()]
        reading = self._suggested.with_choice(self._wanted, chosen)
        return replace(reading, pixel_size=self.pixel_size.value() or None)

    # What happens

    def refresh(self, _event: Any = None) -> None:
        """List the image layers again; the chosen image stays chosen if it still exists."""
        before = self.chosen()
        images = [layer for layer in self._viewer.layers if isinstance(layer, Image) and OURS not in layer.metadata]
        self._readings = {group: one for group, one in self._readings.items() if set(group) <= set(images)}
        groups = group_layers(images, [group for group in self._readings if len(group) > 1])
        selected = tuple(layer for layer in images if layer in self._viewer.layers.selection)
        if len(selected) > 1 and selected not in groups:
            groups.insert(0, selected)
        names = [_group_name(group) for group in groups]
        if groups == self._groups and names == [self.layers.itemText(i) for i in range(self.layers.count())]:
            return
        looked_at = [group for group in groups if set(group) & set(selected)]
        fallback = groups.index(looked_at[-1]) if looked_at else len(groups) - 1
        with QSignalBlocker(self.layers):
            self._groups = groups
            self.layers.clear()
            self.layers.addItems(names)
            self.layers.setCurrentIndex(groups.index(before) if before in groups else fallback)
        if self.chosen() != before:
            self._on_chosen()

    def _on_selection(self, _event: Any = None) -> None:
        """Follow the selection in the layer list."""
        self.refresh()
        selected = {layer for layer in self._viewer.layers.selection if isinstance(layer, Image)}
        fitting = [i for i, group in enumerate(self._groups) if selected and selected <= set(group)]
        if fitting and not (selected <= set(self.chosen())):
            self.layers.setCurrentIndex(fitting[0])

    def _on_chosen(self, _index: int = 0) -> None:
        layers = self.chosen()
        self._suggested = None
        if layers:
            try:
                self._suggested = self._readings.get(layers) or suggest(layers)
            except ImageError as error:
                self._refused = str(error)
                self.message.say(as_sentence(self._refused), ERROR)
        self._fill()
        self.changed.emit()

    def _on_edited(self, _value: Any = None) -> None:
        """Read the layers with the typed axes, which may change the number of channels."""
        layers, before = self.chosen(), self._suggested
        if not layers or before is None:
            return
        axes = self.axes.text().strip().upper()
        if axes != before.axes:
            channels = _channels_of(layers, axes, before)
            named = before.named and channels == before.channels
            edited = replace(before, axes=axes, channels=channels, notes=(), named=named)
            try:
                open_layers(layers, edited)
            except ImageError as error:
                self.message.say(as_sentence(str(error)), ERROR)
                return
            self._suggested = self._readings[layers] = edited
            self._fill()
        self._say()
        self.changed.emit()

    def _fill(self) -> None:
        reading = self._suggested
        self._form.setVisible(reading is not None)
        if reading is None:
            if not self.chosen():
                self.message.say("Open an image, or drop TIFFs or a folder of them here.")
            return
        self.facts.say(_facts(self.chosen(), reading))
        self.axes.setText(reading.axes)
        self.pixel_size.setValue(reading.pixel_size or 0)
        self._z_part.setVisible(self._has_z())
        self._fill_channels()

    def _has_z(self) -> bool:
        return self._suggested is not None and "Z" in self._suggested.axes

    def _too_few_channels(self) -> str:
        assert self._suggested is not None
        names = self._suggested.channels
        return (
            f"the model needs {len(self._wanted)} channels ({', '.join(self._wanted)}) and the image has {len(names)} "
            f"({', '.join(names)}); select the layers of all channels together, or correct the axes"
        )

    def _combos(self) -> list[NarrowComboBox]:
        fields = (self._channels.itemAt(i, QFormLayout.ItemRole.FieldRole) for i in range(self._channels.rowCount()))
        widgets = (item.widget() for item in fields if item is not None)
        return [widget for widget in widgets if isinstance(widget, NarrowComboBox)]

    def _fill_channels(self) -> None:
        """Offer the channels of the image for each channel of the model; what is not certain is left to the user."""
        while self._channels.rowCount():
            self._channels.removeRow(0)
        reading = self._suggested
        if reading is None:
            return
        offered = (*reading.channels, *((GREY_CHOICE,) if reading.is_picture else ()))
        known = self._choices.get(self._choice_key(), {})
        if len(self._wanted) <= len(reading.channels):
            for wanted, number in zip(self._wanted, reading.match(self._wanted).numbers, strict=True):
                self._channels.addRow(f"{wanted}  ←", self._channel_combo(wanted, offered, known.get(wanted, number)))
        self._say()

    def _channel_combo(self, wanted: str, offered: Sequence[str], number: int | None) -> NarrowComboBox:
        combo = NarrowComboBox()
        combo.setObjectName(f"channel {wanted}")
        combo.setAccessibleName(f"Channel {wanted}")
        combo.setToolTip(plain_text(f"The channel of the image that shows what {wanted} showed in the training images"))
        for i, name in enumerate(offered):
            combo.addItem(name, i)
        if number is None:
            combo.insertItem(0, CHOOSE, None)
            combo.setCurrentIndex(0)
        else:
            combo.setCurrentIndex(combo.findData(number))
        combo.activated.connect(partial(self._on_channel, wanted, combo))
        return combo

    def _on_channel(self, wanted: str, combo: NarrowComboBox, _index: int) -> None:
        """Keep the user's choice for this image, and for others whose channels have the same names."""
        if combo.currentData() is None:
            return
        if combo.findText(CHOOSE) >= 0:
            combo.removeItem(combo.findText(CHOOSE))
        self._choices.setdefault(self._choice_key(), {})[wanted] = int(combo.currentData())
        self._say()
        self.changed.emit()

    def _choice_key(self) -> tuple[object, ...]:
        assert self._suggested is not None
        by_name = self._suggested.named and not self._suggested.is_picture
        return ("names", *self._suggested.channels) if by_name else ("layers", *self.chosen())

    def _question(self) -> str:
        """Say what of the channels is not known, and what to do; empty if everything is."""
        assert self._suggested is not None
        if len(self._wanted) > len(self._suggested.channels):
            return self._too_few_channels()
        open_ones = [combo for combo in self._combos() if combo.currentData() is None]
        asked = self._suggested.match(self._wanted).question if open_ones else ""
        return f"The image {asked}. Choose it above." if asked else ""

    def _say(self) -> None:
        """Show what is not known, or which values are guessed or doubtful."""
        assert self._suggested is not None
        question = self._question()
        if question:
            self.message.say(as_sentence(question), ERROR)
            return
        notes = list(self._suggested.notes)
        note = self._suggested.match(self._wanted).note
        if note and not self._choices.get(self._choice_key()):
            notes.append(as_sentence(note))
        if self._model_size is not None and not self.pixel_size.value():
            notes.append(
                f"The pixel size of the image is unknown, and the model has {self._model_size:.4g} µm: enter it above. "
                "Without it the image is taken to have the model's, and cells of another size are not recognised."
            )
        self.message.say(" ".join(notes), WARNING)


def _group_name(layers: Sequence[Image]) -> str:
    if len(layers) == 1:
        return str(layers[0].name)
    return " + ".join(layer.name for layer in layers)


def _channels_of(layers: Sequence[Image], axes: str, before: SourceReading) -> tuple[str, ...]:
    """Name the channels that other axes give: as before if their number is the same, else by numbers."""
    count = channel_count(layers[0], axes) * len(layers)
    return before.channels if len(before.channels) == count else numbered_channels(count)


def _open_group(layers: Sequence[Image], reading: SourceReading | None) -> ImageStack:
    return open_layers(layers, reading or suggest(layers)).image


def _facts(layers: Sequence[Image], reading: SourceReading) -> str:
    sizes = dict(zip(reading.axes, data_shape(layers[0]), strict=False))
    parts = [f"{axis} {sizes[axis]}" for axis in "PTZ" if axis in sizes]
    parts += [f"C {len(reading.channels)}"] if len(reading.channels) > 1 else []
    parts += [f"{len(layers)} layers as one image"] if len(layers) > 1 else []
    return " · ".join([*parts, f"{sizes.get('Y', '?')} × {sizes.get('X', '?')} px"])
