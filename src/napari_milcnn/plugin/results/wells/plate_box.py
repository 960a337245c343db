"""The plate view of the Results dock: the picture of `figures.plates`, whose wells can be clicked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QByteArray, QRectF, Qt, Signal
from qtpy.QtGui import QImage, QPainter
from qtpy.QtSvg import QSvgRenderer
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from napari_milcnn.atomic_write import cannot_write, replacing
from napari_milcnn.figures.plates import PlateMap, plate_svg, well_at, well_words
from napari_milcnn.images.instruments import Well
from napari_milcnn.plugin.qt.forms import NarrowComboBox, Note, plain_text, row, vertical_layout
from napari_milcnn.plugin.results.plot_box import View, fill_choices
from napari_milcnn.plugin.results.wells.wells_session import WellKey, WellsSession

if TYPE_CHECKING:
    from napari_milcnn.figures.plots import FigureStyle
    from napari_milcnn.plugin.results.reading import ReadResults

_NEEDS_WELLS = (
    "Needs wells. Image names must contain the well, such as B03, r02c03 or B/3, or click Layout… to open a table with "
    "the column well."
)
_HELP = "Click a well to open its first image. Ctrl+click chooses further wells; Table lists their images."
_SAVED_WIDTH, _SAVED_ZOOM = 620.0, 3
"""Width of a saved picture, and pixels of its PNG for each of them."""


class PlatePicture(QWidget):
    """Draws the SVG of a plate as wide as it is itself.

    Signals
    -------
    picked : Well, bool
        A well was clicked; whether it is chosen beside others.
    """

    picked = Signal(object, bool)

    def __init__(self) -> None:
        super().__init__()
        self.svg = ""
        self._plate: PlateMap | None = None
        self._make: Any = None
        self._renderer = QSvgRenderer(self)
        self.tell: Any = lambda _well: ""
        self.setMouseTracking(True)
        self.setAccessibleName("Plate")
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def show_plate(self, plate: PlateMap | None, make: Any) -> None:
        """Show the picture of a plate: `make` returns its SVG for a width; None shows nothing."""
        self._plate, self._make = plate, make
        self.setVisible(plate is not None)
        self._draw()

    def _draw(self) -> None:
        if self._plate is None:
            self.svg = ""
            return
        self.svg = self._make(float(max(self.width(), 200)))
        self._renderer.load(QByteArray(self.svg.encode()))
        self.setFixedHeight(self._renderer.defaultSize().height())
        self.update()

    def paintEvent(self, _event: Any) -> None:
        """Paint the picture."""
        if self._plate is not None:
            painter = QPainter(self)
            self._renderer.render(painter, QRectF(self._renderer.viewBoxF()))
            painter.end()

    def resizeEvent(self, event: Any) -> None:
        """Draw the picture for the new width."""
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self._draw()

    def well_under(self, x: float, y: float) -> Well | None:
        """Return the well at a place in the widget."""
        return None if self._plate is None else well_at(self._plate, x, y, float(max(self.width(), 200)))

    def place_of(self, well: Well) -> tuple[float, float]:
        """Return the middle of a well in the widget."""
        assert self._plate is not None
        box = self._renderer.viewBoxF()
        step = (box.width() - 25) / self._plate.values.shape[1]
        return 24 + (well.column + 0.5) * step, 24 + (well.row + 0.5) * step

    def mouseMoveEvent(self, event: Any) -> None:
        """Say what is in the well under the pointer."""
        text = self._told(event)
        QToolTip.showText(event.globalPosition().toPoint(), plain_text(text), self)
        self.setCursor(Qt.CursorShape.PointingHandCursor if text else Qt.CursorShape.ArrowCursor)

    def mousePressEvent(self, event: Any) -> None:
        """Choose the well under the pointer."""
        well = self.well_under(event.position().x(), event.position().y())
        if well is not None and event.button() == Qt.MouseButton.LeftButton and self._told(event):
            self.picked.emit(well, bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier))

    def _told(self, event: Any) -> str:
        well = self.well_under(event.position().x(), event.position().y())
        return "" if well is None else str(self.tell(well))


class PlateView(View):
    """Draws the plates of a `WellsSession`; a click on a well chooses it, and opens its first image."""

    title = "Plate"

    def __init__(self, session: WellsSession) -> None:
        super().__init__()
        self.session = session
        self._style: FigureStyle | None = None
        self.shown, self.names, self.list = NarrowComboBox(), NarrowComboBox(), NarrowComboBox()
        for box, name, tip in (
            (self.shown, "Colour of the wells", "Colour wells by their top class, a score, a share, z, or quality"),
            (self.names, "Plate", "The plate in view"),
            (self.list, "Well", "Choose a well and open its first image"),
        ):
            box.setAccessibleName(name)
            box.setToolTip(tip)
        self.note, self.hint, self.picture = Note(), Note(), PlatePicture()
        self.bar = QWidget()
        lines = vertical_layout(self.bar)
        lines.addWidget(self.shown)
        lines.addLayout(row(self.list, self.names, stretch=0))
        layout = vertical_layout(self)
        for part in (self.note, self.bar, self.picture, self.hint):
            layout.addWidget(part)
        layout.addStretch()
        self.picture.tell = self.text_of
        self.picture.picked.connect(self._on_picked)
        self.shown.activated.connect(lambda number: session.show_value(self.shown.itemData(number)))
        self.names.activated.connect(self._draw)
        self.list.activated.connect(self._on_list)
        session.values_changed.connect(self._on_values)
        session.plates_changed.connect(self._on_plates)
        session.chosen_changed.connect(self._draw)

    @property
    def plate(self) -> PlateMap | None:
        """The plate in view."""
        plates, number = self.session.plates, self.names.currentIndex()
        return plates.maps[number] if plates is not None and 0 <= number < len(plates.maps) else None

    def show_results(self, _opened: ReadResults, style: FigureStyle) -> None:
        """Show the plates of other results, or the same in another style."""
        self._style = style
        self.session.show()
        self._draw()

    def text_of(self, well: Well) -> str:
        """Say what is in a well of the plate in view; empty where the screen has none."""
        plates, plate = self.session.plates, self.plate
        if plates is None or plate is None or not plate.is_used(well):
            return ""
        return well_words(plate, plates.scale, well)

    def _on_values(self) -> None:
        opened = self.session.results.opened
        assert opened is not None
        self.shown.clear()
        for value in opened.values:
            self.shown.addItem(value.label, value)

    def _on_plates(self) -> None:
        session = self.session
        self.shown.setCurrentIndex(-1 if session.value is None else self.shown.findText(session.value.label))
        maps = () if session.plates is None else session.plates.maps
        fill_choices(self.names, [plate.name for plate in maps])
        self.names.setVisible(len(maps) > 1)
        self._draw()

    def _draw(self, _number: int = 0) -> None:
        """Draw the plate in view."""
        plates, plate, style = self.session.plates, self.plate, self._style
        needs = _NEEDS_WELLS if plate is None and not self.session.is_busy else ""
        self.note.say(needs)
        self.hint.say("" if plate is None else _HELP)
        self.bar.setVisible(plate is not None)
        if plates is None or plate is None or style is None:
            self.picture.show_plate(None, None)
            return
        own = self._own_wells()
        chosen = [place for place, key in own.items() if key in self.session.chosen]
        self.picture.show_plate(plate, lambda width: plate_svg(
            plate, plates.scale, width=width, ink=style.text, chosen=chosen, legend=True))  # fmt: skip
        self._list_wells(own)

    def _list_wells(self, own: dict[Well, WellKey]) -> None:
        if [self.list.itemData(number) for number in range(1, self.list.count())] != list(own.values()):
            self.list.clear()
            self.list.addItem("open a well…")
            for key in own.values():
                self.list.addItem(key[1], key)

    def _own_wells(self) -> dict[Well, WellKey]:
        """Return the wells of the plate in view that have results, by their places, in their order."""
        plates, plate = self.session.plates, self.plate
        if plates is None or plate is None:
            return {}
        return {place: plates.keys[name, place] for name, place in sorted(plates.keys) if name == plate.name}

    def _on_picked(self, well: Well, more: bool) -> None:
        key = self._own_wells().get(well)
        if key is not None and more:
            self.session.choose([key], more=True)
        elif key is not None:
            self.session.open(key)

    def _on_list(self, number: int) -> None:
        key = self.list.itemData(number)
        if key is not None:
            self.session.open(key)

    @property
    def is_busy(self) -> bool:
        """Whether the plates are being made."""
        return self.session.is_busy

    @property
    def can_save(self) -> bool:
        """Whether there is a plate to save."""
        return self.plate is not None

    def save(self, path: Path) -> None:
        """Save the plate in view with its legend, on white ground in every theme."""
        from napari_milcnn.figures.plots import PAPER, picture_kind

        kind, plates, plate = picture_kind(path), self.session.plates, self.plate
        assert plates is not None
        assert plate is not None
        text = plate_svg(plate, plates.scale, width=_SAVED_WIDTH, ink=PAPER.text, legend=True, ground=PAPER.ground)
        with replacing(path) as draft:
            if kind == ".svg":
                draft.write_text(text, encoding="utf-8")
            elif not _image_of(text).save(str(draft), "PNG"):
                raise cannot_write(path, OSError("the picture could not be written"))


def _image_of(svg: str) -> QImage:
    renderer = QSvgRenderer(QByteArray(svg.encode()))
    image = QImage(renderer.defaultSize() * _SAVED_ZOOM, QImage.Format.Format_RGB32)
    painter = QPainter(image)
    renderer.render(painter)
    painter.end()
    return image
