"""Small parts that the docks share: forms made of option models, headings, notes, colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin
from weakref import WeakMethod, ref

from magicgui.widgets import Container, create_widget
from pydantic.fields import FieldInfo
from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QComboBox, QFrame, QHBoxLayout, QLabel, QLayout, QScrollArea, QSizePolicy, QWidget

from napari_milcnn.options import Options

ERROR, WARNING = "#d55e00", "#c98500"
"""Text colours that are read on napari's dark and light themes."""
_ENDS: set[Callable[[], None]] = set()
_FINE, _COARSE = 0.0005, 0.05
"""Steps of numbers with a point: rates are small."""
_MOST = 65536.0
"""The most that a number without a limit of its own can be set to in a form."""


def options_form(kind: type[Options], names: Sequence[str], choices: Mapping[str, Sequence[Any]]) -> Container:
    """Make a form of some fields of an option model: their defaults, their limits and their descriptions.

    `choices` lists the values offered for a field, or pairs of what is shown and the value; a field that knows its
    choices needs none. An optional number is left out by 0.
    """
    return Container(widgets=[_field(kind, name, choices.get(name)) for name in names], labels=True)


def _field(kind: type[Options], name: str, choices: Sequence[Any] | None) -> Any:
    field = kind.model_fields[name]
    annotation, value = field.annotation, field.default
    options: dict[str, Any] = {"tooltip": field.description}
    if choices is None and get_origin(annotation) is Literal:
        choices = get_args(annotation)
    if choices is not None:
        options |= {"choices": list(choices), "widget_type": "ComboBox"}
    elif type(None) in get_args(annotation):
        annotation, value = next(one for one in get_args(annotation) if one is not type(None)), 0
        options |= _limits(annotation, field) | {"min": 0}
    elif annotation in (int, float):
        options |= _limits(annotation, field)
    return create_widget(value=value, annotation=annotation, name=name, label=name.replace("_", " "), options=options)


def _limits(number: Any, field: FieldInfo) -> dict[str, Any]:
    """Limits of a field's spin box, and for a number with a point its step, which sets the digits."""
    step = 1.0 if number is int else _FINE if 0 < (field.default or 0) < 0.01 else _COARSE
    least: Any = 0.0
    most: Any = _MOST
    for limit in field.metadata:
        least = getattr(limit, "ge", getattr(limit, "gt", least - step) + step)
        most = getattr(limit, "le", getattr(limit, "lt", most + step) - step)
    return {"min": number(least), "max": number(min(most, _MOST)), "step": number(step)}


def form_values(form: Container, kind: type[Options]) -> dict[str, Any]:
    """Return what stands in a form, as keywords of its option model."""
    values = {widget.name: widget.value for widget in form}
    return {name: None if value == 0 and kind.model_fields[name].default is None else value
            for name, value in values.items()}  # fmt: skip


def heading(text: str) -> QLabel:
    """Make the title of a part of a dock."""
    label = QLabel(text)
    label.setStyleSheet("font-weight: bold; margin-top: 6px;")
    return label


class Note(QLabel):
    """Text below a control, wrapped and selectable; it takes no room while it is empty."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        self.hide()

    def say(self, text: str, colour: str = "") -> None:
        """Show a text in a colour; hide for an empty one."""
        self.setText(text)
        self.setStyleSheet(f"color: {colour};" if colour else "")
        self.setVisible(bool(text))


class NarrowComboBox(QComboBox):
    """A combo box that a long entry does not widen: the dock stays as narrow as the user wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)


def row(*parts: QWidget | str, stretch: int | None = None) -> QLayout:
    """Lay widgets and texts side by side; the one at `stretch` takes the room that is left."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(6)
    for i, part in enumerate(parts):
        layout.addWidget(QLabel(part) if isinstance(part, str) else part, 1 if i == stretch else 0)
    return layout


def scrolled(inside: QWidget) -> QScrollArea:
    """Let a page that is higher than the dock be scrolled; it is as wide as the dock."""
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setWidget(inside)
    return area


def duration(seconds: float) -> str:
    """Write a time in seconds, or from a minute and a half on in minutes."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def swatch(colour: str) -> QIcon:
    """Return a small square of a colour, on the dark ground that makes white and yellow seen in every theme."""
    pixmap = QPixmap(12, 12)
    pixmap.fill(QColor("#262930"))
    inner = QPixmap(8, 8)
    inner.fill(QColor(colour))
    _paste(pixmap, inner)
    return QIcon(pixmap)


def _paste(ground: QPixmap, picture: QPixmap) -> None:
    from qtpy.QtGui import QPainter

    painter = QPainter(ground)
    painter.drawPixmap(2, 2, picture)
    painter.end()


def chip(colour: str, text: str) -> str:
    """Return rich text: a square of a colour and a name that stay on one line."""
    name = text.replace("&", "&amp;").replace("<", "&lt;").replace(" ", "&nbsp;")
    return f'<span style="background:#262930;color:{colour}">&nbsp;■&nbsp;</span>&nbsp;{name}'


def connect_while_alive(emitter: Any, slot: Any, widget: QWidget) -> None:
    """Connect a slot of a widget to an emitter that may outlive it (viewer events, the current model).

    The emitter does not keep the widget alive; it gets a function, since it looks into bound methods, also of what is
    destroyed. What disconnects it is kept until the widget is destroyed: where Python collects both at once it would
    have been cleared before it is called.
    """
    method, source = WeakMethod(slot), _weak(emitter)

    def call(event: Any = None) -> None:
        alive = method()
        if alive is not None:
            alive(event)

    def end() -> None:
        _ENDS.discard(end)
        there = source()
        if there is not None:
            there.disconnect(call)

    emitter.connect(call)
    _ENDS.add(end)
    widget.destroyed.connect(end)


def _weak(emitter: Any) -> Callable[[], Any]:
    try:
        return ref(emitter)
    except TypeError:  # a signal of psygnal's, which knows its owner weakly itself
        return lambda: emitter


class DeletedWhenClosed(QObject):
    """Deletes the widget of a dock once the dock was closed, and stops its jobs with it.

    napari takes it out of the dock and leaves it to Python, which would destroy it at any time, and in any thread.
    """

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self._widget = widget
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """See the widget taken out."""
        if event.type() == QEvent.Type.ParentChange and self._widget.parent() is None:
            QTimer.singleShot(0, self._delete)
        return bool(super().eventFilter(watched, event))

    def _delete(self) -> None:
        if self._widget.parent() is None:  # not put elsewhere meanwhile
            self._widget.deleteLater()
