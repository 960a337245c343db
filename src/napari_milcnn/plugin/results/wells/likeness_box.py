"""The view Wells of the Results dock: a map of all wells, on which a line can be drawn, and a list of wells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QEvent, QModelIndex, QPointF, Qt
from qtpy.QtGui import QColor, QCursor, QPainter, QPen, QPolygonF
from qtpy.QtWidgets import QPushButton, QToolTip, QWidget

from napari_milcnn.figures.palette import CHOSEN, class_colours
from napari_milcnn.plugin.qt.forms import NarrowComboBox, Note, plain_text, row, there, vertical_layout
from napari_milcnn.plugin.qt.tables import FrameModel, SortedTable
from napari_milcnn.plugin.results.plot_box import PlotView
from napari_milcnn.plugin.results.wells.likeness_session import LikenessSession
from napari_milcnn.schema import PLATE, TOP, WELL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from napari_milcnn.figures.plots import FigureStyle, Size
    from napari_milcnn.plugin.results.reading import ReadResults
    from napari_milcnn.plugin.results.wells.wells_session import WellKey

_MAP_HELP = (
    "Wells that are alike lie near each other. Click a well to open it, or draw a line around some to list them."
)
_REACH = 9.0
"""Distance from a point within which a click means it, in px."""
_SHORTEST = 12.0
"""Length of the shortest line that is one, and not a click that trembled, in px."""


class Lasso(QWidget):
    """The line that the user draws over a picture; it takes no events itself."""

    def __init__(self, over: QWidget) -> None:
        super().__init__(over)
        self.corners: list[QPointF] = []
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.hide()

    def begin(self, place: QPointF) -> None:
        """Begin a line."""
        self.corners = [place]
        self.resize(there(self.parentWidget()).size())
        self.show()

    def draw_on(self, place: QPointF) -> None:
        """Draw the line on to a place."""
        self.corners.append(place)
        self.update()

    def end(self) -> list[QPointF]:
        """End the line, and return its corners; none if it is no longer than a click."""
        corners, self.corners = self.corners, []
        self.hide()
        away = max(((one - corners[0]).manhattanLength() for one in corners), default=0.0)
        return corners if away >= _SHORTEST else []

    def paintEvent(self, _event: Any) -> None:
        """Paint the line."""
        painter = QPainter(self)
        painter.setPen(QPen(QColor(CHOSEN), 1.5))
        painter.drawPolygon(QPolygonF(self.corners))
        painter.end()


class LikenessView(PlotView):
    """Draws a `LikenessSession`, and tells it what the user did."""

    title = "Wells"
    help = _MAP_HELP

    def __init__(self, session: LikenessSession) -> None:
        self.session = session
        super().__init__()
        self.lasso = Lasso(self.box.picture)
        for part in (self.words, self.table):
            self._layout.insertWidget(self._layout.count() - 1, part)
            part.hide()
        session.map_changed.connect(self._on_map)
        session.list_changed.connect(self._on_list)
        session.wells.chosen_changed.connect(self._on_chosen)

    def _add_controls(self) -> None:
        self.colour, self.unexplained = NarrowComboBox(), QPushButton("Wells like nothing known")
        self.colour.setAccessibleName("Colour of the map")
        self.colour.setToolTip("Colour the wells by their top class, or by what the layout says of them")
        self.unexplained.setToolTip("List wells first that no class of the model explains: they may be a new phenotype")
        self.bar = QWidget()
        lines = vertical_layout(self.bar)
        lines.addLayout(row("colour by", self.colour, stretch=1))
        lines.addWidget(self.unexplained)
        self.words, self.model = Note(), FrameModel(self)
        self.table = SortedTable(self.model)
        self.table.setAccessibleName("Listed wells")
        self.table.setToolTip("Click a well, or press Enter on it, to open its first image")
        self.table.clicked.connect(self._on_row)
        self.table.activated.connect(self._on_row)
        self.table.setMinimumHeight(150)
        self._layout.addWidget(self.bar)
        self.bar.hide()
        self.colour.activated.connect(lambda number: self.session.colour_by(self.colour.itemData(number)))
        self.unexplained.clicked.connect(self.session.list_unexplained)

    def show_results(self, opened: ReadResults, style: FigureStyle) -> None:
        """Show the map of other results, or the same in another style."""
        self.session.show()
        super().show_results(opened, style)

    @property
    def is_busy(self) -> bool:
        """Whether the map, its picture or a list is being made."""
        return self.session.is_busy or super().is_busy

    def _needs(self, _opened: ReadResults) -> str:
        return self.session.note or ("" if self.session.map is not None else "Laying out the wells…")

    def _height(self, _opened: ReadResults, width: int) -> int:
        return min(width + 40, 460)

    def _draw(self, opened: ReadResults, style: FigureStyle, size: Size | None) -> Figure:
        from napari_milcnn.figures.plots import map_figure

        found, by = self.session.map, self.session.colour
        assert found is not None
        chosen = np.array([key in set(self.session.wells.chosen) for key in found.keys], bool)
        values = found.table[by].rename("top class" if by == TOP else by)
        return map_figure(found.points, values, opened.found.classes if by == TOP else (), chosen, style, size)

    def _on_map(self) -> None:
        found = self.session.map
        self.colour.clear()
        for name in () if found is None else found.colours:
            self.colour.addItem("top class" if name == TOP else name, name)
        self.colour.setCurrentIndex(self.colour.findData(self.session.colour))
        self.bar.setVisible(found is not None)
        self._on_chosen()

    def _on_chosen(self) -> None:
        """Ring the chosen wells; a view that is not in front is drawn when it comes there."""
        if self.isHidden():
            self.opened = None
        else:
            self.redraw()

    def _on_list(self) -> None:
        listed, opened = self.session.listed, self.session.wells.results.opened
        self.words.say("" if listed is None else listed.words)
        self.table.setVisible(listed is not None)
        if listed is not None and opened is not None:
            self.model.show_frame(listed.table.reset_index(drop=True), class_colours(opened.found.classes))
            self.table.sortByColumn(-1, Qt.SortOrder.AscendingOrder)
            self.table.resizeColumnsToContents()

    def _on_row(self, index: QModelIndex) -> None:
        one = self.model.frame.iloc[self.table.source_row(index)]
        self.session.wells.open((str(one[PLATE]), str(one[WELL])))

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Open the well that is clicked, or choose those inside the line that is drawn."""
        kind, left = event.type(), Qt.MouseButton.LeftButton
        if kind == QEvent.Type.MouseButtonPress and event.button() == left:
            self.lasso.begin(event.position())
        elif kind == QEvent.Type.MouseMove and event.buttons() & left:
            self.lasso.draw_on(event.position())
        elif kind == QEvent.Type.MouseButtonRelease and event.button() == left:
            self._on_release(event.position())
        elif kind == QEvent.Type.MouseMove:
            self._point_at(event.position())
        return False

    def _on_release(self, place: QPointF) -> None:
        corners, well = self.lasso.end(), self._well_near(place)
        if corners and self.figure is not None:
            outline = [self._in_picture(corner) for corner in corners]
            self.session.choose_inside(self.figure.axes[0].transData.inverted().transform(outline))
        elif well is not None:
            self.session.wells.open(well)

    def _point_at(self, place: QPointF) -> None:
        """Name the well under the pointer."""
        well = self._well_near(place)
        text = "" if well is None else self.session.told(well)
        QToolTip.showText(QCursor.pos(), plain_text(text), self.box.picture)
        self.box.picture.setCursor(Qt.CursorShape.PointingHandCursor if text else Qt.CursorShape.CrossCursor)

    def _in_picture(self, place: QPointF) -> tuple[float, float]:
        """Return a place in the widget as pixels of the figure."""
        assert self.figure is not None
        ratio = float(self.box.devicePixelRatioF())
        return place.x() * ratio, self.figure.bbox.height - place.y() * ratio

    def _well_near(self, place: QPointF) -> WellKey | None:
        """Return the well nearest to a place in the picture; None if none is near."""
        found, figure = self.session.map, self.figure
        if found is None or figure is None:
            return None
        away = np.hypot(*(figure.axes[0].transData.transform(found.points) - self._in_picture(place)).T)
        nearest = int(away.argmin())
        return found.keys[nearest] if away[nearest] <= _REACH * self.box.devicePixelRatioF() else None
