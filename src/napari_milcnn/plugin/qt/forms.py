"""Small widgets and layouts that all docks share: headings, notes, sections, rows and columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakMethod, ref

from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer
from qtpy.QtWidgets import (
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLayout,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QScrollBar,
    QSizePolicy,
    QStackedWidget,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QToolButton,
    QToolTip,
    QVBoxLayout,
    QWidget,
)

from napari_milcnn.plugin.qt.icons import DARK_GROUND
from napari_milcnn.plugin.qt.notices import Level, Notice
from napari_milcnn.progress import duration

ERROR, WARNING = "#d55e00", "#b37500"
"""Colours of the bar beside a text. The text has the theme's colour: no colour of text is legible in every theme."""
_LEVEL_COLOURS = {Level.NOTE: "", Level.WARNING: WARNING, Level.ERROR: ERROR}
LIKE, UNSURE = "#00785a", "#5b6470"
"""Grounds of a `Band`: all is well, and nothing is known. With the two above they suit white text."""
_DISCONNECTORS: set[Callable[[], None]] = set()
"""Keeps each function of `connect_while_alive` that disconnects a widget until the widget is destroyed."""
_ROOM = 6
"""Pixels between the text of a combo box and its arrow."""
Part = TypeVar("Part")


def plain_label(text: str = "") -> QLabel:
    """Make a label that shows a text as it is: Qt would guess, and show the class <b>x</b> in bold."""
    label = QLabel(text)
    label.setTextFormat(Qt.TextFormat.PlainText)
    return label


def heading(text: str) -> QLabel:
    """Make the title of a section of a dock."""
    label = plain_label(text)
    label.setStyleSheet("font-weight: bold; margin-top: 6px;")
    return label


class Note(QLabel):
    """Wrapped, selectable text below a control; hidden while it is empty.

    Names of classes, groups and files come from tables of others, so a text is shown as it is, unless it is said to be
    rich text.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        policy.setHeightForWidth(True)  # else a long text is cut off where the page is full
        self.setSizePolicy(policy)
        self.hide()

    def say(self, text: str, colour: str = "") -> None:
        """Show a text, with a bar of a colour beside it; an empty text hides the note."""
        bar = f"border-left: 3px solid {colour}; padding-left: 5px;" if colour else ""
        self._show_text(text, bar, Qt.TextFormat.PlainText)

    def show_notice(self, notice: Notice) -> None:
        """Show a notice, with the colour of its level."""
        self.say(notice.text, _LEVEL_COLOURS[notice.level])

    def say_rich(self, html: str) -> None:
        """Show rich text, in which every name is escaped; an empty text hides the note."""
        self._show_text(html, "", Qt.TextFormat.RichText)

    def _show_text(self, text: str, style: str, kind: Qt.TextFormat) -> None:
        self.setTextFormat(kind)
        self.setText(text)
        if style != self.styleSheet():  # Qt would polish the label again, and sessions say the same many times
            self.setStyleSheet(style)
        self.setVisible(bool(text))


class Band(Note):
    """A note in white on a coloured ground."""

    def show_on(self, text: str, ground: str) -> None:
        """Show a text; an empty text hides the band."""
        style = f"background: {ground}; color: white; padding: 3px 6px; border-radius: 3px;"
        self._show_text(text, style, Qt.TextFormat.PlainText)


class LatePart(QWidget):
    """A part of a dock that is made late: when the section that it is in is unfolded, or something needs it.

    A part of many widgets that few users need would make opening the dock, and changing its theme, slower.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_made = False

    def make(self) -> None:
        """Make it, unless it has been made."""
        if not self.is_made:
            self._make()
            self.is_made = True

    def _make(self) -> None:
        """Make what it holds."""
        raise NotImplementedError


class Section(QWidget):
    """A part of a dock below a title that folds it; while it is folded, its summary stands beside the title.

    What it holds of `LatePart`, in no section within it, is made when it is unfolded for the first time.

    Parameters
    ----------
    title : str
        The title.
    inside : QWidget
        What it holds.
    is_open : bool
        Whether it is unfolded at first.
    """

    def __init__(self, title: str, inside: QWidget, *, is_open: bool = True) -> None:
        super().__init__()
        self._title, self._summary = title, ""
        self.inside, self.button = inside, QToolButton()
        self.button.setCheckable(True)
        self.button.setChecked(is_open)
        self.button.setAutoRaise(True)
        self.button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.button.setStyleSheet("QToolButton { border: none; background: transparent; font-weight: bold; }")
        self.button.setToolTip(f"Fold or unfold {title}")
        self.button.setAccessibleName(title)
        self.button.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.button.toggled.connect(self._on_toggled)
        layout = vertical_layout(self, 2)
        layout.addWidget(self.button)
        layout.addWidget(inside)
        self._on_toggled()

    @property
    def is_open(self) -> bool:
        """Whether it is unfolded."""
        return bool(self.button.isChecked())

    def fold(self, *, is_open: bool = False) -> None:
        """Fold it, or unfold it."""
        self.button.setChecked(is_open)

    def rename(self, title: str) -> None:
        """Give it another title."""
        if title != self._title:
            self._title = title
            self.button.setAccessibleName(title)
            self._show()

    def summarise(self, text: str) -> None:
        """Say in a few words what it holds, for when it is folded."""
        if text != self._summary:
            self._summary = text
            self._show()

    def resizeEvent(self, event: Any) -> None:
        """Shorten the summary to the new width."""
        super().resizeEvent(event)
        self._show()

    def make_parts(self) -> None:
        """Make the late parts that it holds, and let the Tab key go through them."""
        late = [part for part in self.findChildren(LatePart) if not part.is_made and _section_of(part) is self]
        for part in late:
            part.make()
        if late:
            tab_through(self.button, self)

    def _on_toggled(self, is_open: bool = False) -> None:
        if self.is_open:
            self.make_parts()
        self._show()

    def _show(self) -> None:
        self.inside.setVisible(self.is_open)
        whole = self._title if self.is_open or not self._summary else f"{self._title}: {self._summary}"
        room = max(40, self.width() - 30)
        shown = self.button.fontMetrics().elidedText(whole, Qt.TextElideMode.ElideRight, room)
        self.button.setText(shown.replace("&", "&&"))  # Qt would underline the letter after it
        self.button.setArrowType(Qt.ArrowType.DownArrow if self.is_open else Qt.ArrowType.RightArrow)


def _section_of(part: QWidget) -> QWidget | None:
    """Return the innermost section that a part is in."""
    above = part.parentWidget()
    while above is not None and not isinstance(above, Section):
        above = above.parentWidget()
    return above


def tab_through(first: QWidget, whole: QWidget) -> None:
    """Let the Tab key go from a widget to the fields of a whole: Qt puts what is made later behind all else."""
    before = first
    for field in whole.findChildren(QWidget):
        is_here = field is not first and field.window() is whole.window()  # lists of combo boxes are windows
        if is_here and field.focusPolicy() & Qt.FocusPolicy.TabFocus and field.focusProxy() is None:
            QWidget.setTabOrder(before, field)
            before = field


class PageStack(QStackedWidget):
    """Pages of which one is shown; it is as high as that page wants to be, and not as high as the highest."""

    def __init__(self) -> None:
        super().__init__()
        self.currentChanged.connect(lambda _number: self.updateGeometry())

    def sizeHint(self) -> QSize:
        """Return the size that the page in front wants."""
        page = self.currentWidget()
        return super().sizeHint() if page is None else page.sizeHint()

    def minimumSizeHint(self) -> QSize:
        """Return the least size of the page in front."""
        page = self.currentWidget()
        return super().minimumSizeHint() if page is None else page.minimumSizeHint()


class NoticesBox(QWidget):
    """The notices of a session, a line each."""

    def __init__(self) -> None:
        super().__init__()
        self.notices: tuple[Notice, ...] = ()
        self._notes: list[Note] = []
        self._lines = vertical_layout(self, 2)
        self.hide()

    def show_notices(self, notices: tuple[Notice, ...]) -> None:
        """Show these notices, each in the colour of its level, and no others."""
        if notices == self.notices:
            return
        self.notices = notices
        while len(self._notes) < len(notices):
            self._notes.append(Note())
            self._lines.addWidget(self._notes[-1])
        for place, note in enumerate(self._notes):
            note.show_notice(notices[place] if place < len(notices) else Notice("", ""))
        self.setVisible(bool(notices))

    def text(self) -> str:
        """Return all that is said, a line each."""
        return "\n".join(one.text for one in self.notices)


class JobProgress(QProgressBar):
    """How much of a job is done, and how long the rest will take; whoever has it hides it while none runs."""

    def __init__(self, name: str = "Progress") -> None:
        super().__init__()
        self.setRange(0, 1000)
        self.setAccessibleName(name)

    def show_share(self, share: float, seconds_left: float | None) -> None:
        """Show a share from 0 to 1, and the time that is left where it is known."""
        left = f" · {duration(seconds_left)} left" if seconds_left is not None else ""
        self.say(share, f"{share:.0%}{left}" if share else "starting…")

    def say(self, share: float, text: str) -> None:
        """Show a share from 0 to 1, and a text."""
        self.setUpdatesEnabled(False)  # for a new value, Qt would at once draw all that is to be drawn of the window
        self.setValue(round(share * 1000))
        self.setFormat(text)
        self.setUpdatesEnabled(True)


class NarrowComboBox(QComboBox):
    """A combo box that long entries do not widen, so that the dock stays as narrow as the user made it.

    The middle of an entry that does not fit gives way to dots, and its tooltip has it whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        there(self.view()).setTextElideMode(Qt.TextElideMode.ElideMiddle)

    def shown_text(self) -> str:
        """Return the entry as it is drawn, with dots where it does not fit."""
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        part = QStyle.SubControl.SC_ComboBoxEditField
        field = there(self.style()).subControlRect(QStyle.ComplexControl.CC_ComboBox, option, part, self)
        room = field.width() - _ROOM
        return str(self.fontMetrics().elidedText(self.currentText(), Qt.TextElideMode.ElideMiddle, room))

    def paintEvent(self, _event: Any) -> None:
        """Draw the box with as much of its entry as fits."""
        painter, option = QStylePainter(self), QStyleOptionComboBox()
        self.initStyleOption(option)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        option.currentText = self.shown_text()
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)
        painter.end()

    def event(self, event: Any) -> bool:
        """Show a shortened entry whole in its tooltip."""
        if event.type() == QEvent.Type.ToolTip and self.shown_text() != self.currentText():
            tip = self.toolTip()
            about = tip if "<" in tip else escape(tip).replace("\n", "<br>")
            QToolTip.showText(event.globalPos(), f"<b>{escape(self.currentText())}</b><br>{about}", self)
            return True
        return bool(super().event(event))


def there(part: Part | None) -> Part:
    """Return what Qt's types say may be missing, such as the header of a table, where it is known to be there."""
    assert part is not None
    return part


def row(*parts: QWidget | str, stretch: int | None = None) -> QLayout:
    """Lay widgets and texts side by side; the part with the index `stretch` takes the remaining width."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(6)
    for i, part in enumerate(parts):
        layout.addWidget(plain_label(part) if isinstance(part, str) else part, 1 if i == stretch else 0)
    return layout


def vertical_layout(widget: QWidget, spacing: int | None = None) -> QVBoxLayout:
    """Give a widget a layout from top to bottom without margins, for sections that lie inside a dock."""
    layout = QVBoxLayout(widget)
    layout.setContentsMargins(0, 0, 0, 0)
    if spacing is not None:
        layout.setSpacing(spacing)
    return layout


def page_layout(widget: QWidget) -> QVBoxLayout:
    """Give the outermost widget of a dock or a tab a layout from top to bottom with the margins of all docks."""
    layout = QVBoxLayout(widget)
    layout.setContentsMargins(8, 4, 8, 8)
    layout.setSpacing(5)
    return layout


def browse_button(name: str) -> QPushButton:
    """Make the small button that opens a file dialog; `name` says for screen readers what is chosen."""
    button = QPushButton("…")
    button.setFixedWidth(32)
    button.setAccessibleName(name)
    return button


def dropped_paths(event: Any) -> list[Path]:
    """Accept the drop of files on a widget and return their paths."""
    event.acceptProposedAction()
    return [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]


def scrolled(inside: QWidget) -> QScrollArea:
    """Put a page into a scroll area that is as wide as the dock and scrolls up and down only.

    The wheel scrolls it also over a field, unless the field has the focus.
    """
    _WheelScrolls(inside).watch(inside)
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setWidget(inside)
    return area


class _WheelScrolls(QObject):
    """Keeps the mouse wheel from changing a field that has no focus: the page scrolls in its place.

    It watches the fields of a page, and the widgets that hold others for fields that are added later.
    """

    def watch(self, widget: QWidget) -> None:
        """Watch a widget and what it holds."""
        if _is_field(widget):
            widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)  # no focus by the wheel
        if _is_field(widget) or widget.layout() is not None:
            widget.installEventFilter(self)
        for child in widget.findChildren(QWidget, options=Qt.FindChildOption.FindDirectChildrenOnly):
            self.watch(child)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Ignore the wheel over a field without the focus, so that Qt passes it on; watch what is added to a page."""
        if event.type() == QEvent.Type.ChildPolished and isinstance(event.child(), QWidget):
            self.watch(event.child())
        if event.type() == QEvent.Type.Wheel and _is_field(watched) and not watched.hasFocus():
            event.ignore()
            return True
        return False


def _is_field(widget: QObject) -> bool:
    """Whether the wheel changes the value of a widget."""
    return isinstance(widget, QAbstractSpinBox | QAbstractSlider | QComboBox) and not isinstance(widget, QScrollBar)


def chip(colour: str, text: str) -> str:
    """Return rich text: a colour square and a name, kept together on one line."""
    name = text.replace("&", "&amp;").replace("<", "&lt;").replace(" ", "&nbsp;")
    return f'<span style="background:{DARK_GROUND};color:{colour}">&nbsp;■&nbsp;</span>&nbsp;{name}'


def plain_text(text: str) -> str:
    """Return a tooltip that shows a text as it is: Qt reads what looks like HTML, such as a class <b>, as rich text."""
    return "<br>".join(f"<span>{escape(line)}</span>" for line in text.split("\n")) if "<" in text else text


def connect_while_alive(emitter: Any, slot: Any, widget: QObject, only: str = "") -> None:
    """Connect a slot of a widget to an emitter that may outlive the widget, such as the viewer or the current model.

    The emitter does not keep the widget alive. It gets a plain function, because napari's emitters inspect bound
    methods, also those of destroyed widgets. The function that disconnects is stored until the widget is destroyed:
    otherwise Python could collect it together with the widget, before it is called. Of an emitter of several events,
    `only` names the one that counts.
    """
    method, source = WeakMethod(slot), _weak(emitter)

    def call(event: Any = None) -> None:
        alive = method()
        if alive is not None and only in ("", getattr(event, "type", "")):
            alive(event)

    def end() -> None:
        _DISCONNECTORS.discard(end)
        there = source()
        if there is not None:
            there.disconnect(call)

    emitter.connect(call)
    _DISCONNECTORS.add(end)
    widget.destroyed.connect(end)


def connect_layers(layers: Any, kinds: Sequence[str], slot: Any, widget: QObject) -> None:
    """Connect a slot of a widget to events of a viewer's list of layers, such as inserted, removed and renamed.

    The list of older versions of napari has no event `renamed`, but passes on the events of its layers.
    """
    for kind in kinds:
        if kind == "renamed" and not hasattr(layers.events, kind):
            connect_while_alive(layers.events, slot, widget, only="name")
        else:
            connect_while_alive(getattr(layers.events, kind), slot, widget)


def _weak(emitter: Any) -> Callable[[], Any]:
    try:
        return ref(emitter)
    except TypeError:  # a psygnal signal, which holds its owner weakly itself
        return lambda: emitter


class DeletedWhenClosed(QObject):
    """Deletes the widget of a dock after the dock was closed; its jobs stop with it.

    napari removes the widget from the dock and leaves it to Python's garbage collector, which may destroy it at any
    time and in any thread.
    """

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self._widget = widget
        widget.installEventFilter(self)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Notice that napari removes the widget from its dock."""
        if event.type() == QEvent.Type.ParentChange and self._widget.parent() is None:
            QTimer.singleShot(0, self._delete)
        return bool(super().eventFilter(watched, event))

    def _delete(self) -> None:
        if self._widget.parent() is None:  # nobody has put the widget elsewhere meanwhile
            self._widget.deleteLater()
