"""Forms of options: their fields, defaults, limits and descriptions come from the option models.

A form has several widgets for each option. Each of them makes opening a dock, and changing its theme, slower, and most
forms stay folded; so a form makes its widgets when it is unfolded. It knows its values without them: those that it was
told, until the user changes them in a field.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args, get_origin

import numpy as np
from magicgui.widgets import Container, create_widget
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QAbstractSpinBox, QComboBox, QDoubleSpinBox, QLineEdit, QWidget

from napari_milcnn.options import Options
from napari_milcnn.plugin.qt.forms import LatePart, vertical_layout

_FINE, _COARSE = 0.0001, 0.05
"""Steps of spin boxes for decimal numbers; learning rates need the fine one."""
_UPPER_LIMITS = {int: 2**31 - 1, float: 65536.0}
"""Upper limits of spin boxes."""
_DEFAULT_TEXT = "default"
_NOTHING = object()
"""What is the value of no field."""
OPTION = "milcnn_options"
"""Property of a widget that names the options it shows."""


class OptionsForm(LatePart):
    """A form for some fields of an option model.

    Where the default of a field is None, its spin box says "default" at its lowest value, or its line is empty. A field
    is made, and returned, by `form[name]`.

    Parameters
    ----------
    kind : type
        The option model.
    names : sequence of str
        Fields to show, in this order.
    choices : mapping
        Field -> the values to choose from, or pairs (text, value). A `Literal` field offers its own values.
    labels : mapping
        Field -> its label, where the name of the field is not the word that users know.

    Signals
    -------
    changed
        The user chose another value.
    """

    changed = Signal()

    def __init__(
        self,
        kind: type[Options],
        names: Iterable[str],
        choices: Mapping[str, Sequence[Any]] = {},
        labels: Mapping[str, str] = {},
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self._kind, self._choices, self._labels = kind, dict(choices), labels
        self._values = {name: _usual(kind, name) for name in self.names}
        self._form: Container[Any]

    def _make(self) -> None:
        fields = [_field(self._kind, name, self._choices.get(name), self._labels.get(name)) for name in self.names]
        for field in fields:
            field.native.setAccessibleName(field.label)
            shows_option(field.native, self._kind, field.name)
            field.changed.connect(partial(self._on_edited, field.name))
        self._form = Container(widgets=fields, labels=True)
        vertical_layout(self).addWidget(self._form.native)
        for name in self.names:
            self._show(name)

    def __getitem__(self, name: str) -> Any:
        """Return the field of an option."""
        self.make()
        return self._form[name]

    def __iter__(self) -> Iterator[Any]:
        """Go through the fields."""
        self.make()
        return iter(self._form)

    def values(self) -> dict[str, Any]:
        """Return the values as keywords of the option model; it is for the model to refuse a text."""
        return dict(self._values)

    def _on_edited(self, name: str, _value: Any) -> None:
        self._values[name] = self._entered(name)
        self.changed.emit()

    def _entered(self, name: str) -> Any:
        """Return what stands in a field as a value of its option."""
        field, optional = self._form[name], is_optional(self._kind, name)
        value = field.value
        if isinstance(field.native, QLineEdit):
            return value.strip() or (None if optional else value)
        number = plain_type(self._kind, name)
        if optional and number in (int, float) and value is not None:
            return None if value <= _limits(self._kind, name)["min"] else number(value)
        return value

    def given(self) -> dict[str, Any]:
        """Return the values that differ from the defaults of the option model."""
        return {name: value for name, value in self._values.items() if value != _usual(self._kind, name)}

    def show_values(self, values: Mapping[str, Any]) -> None:
        """Show values without emitting a signal; fields without a value stay as they are."""
        for name, value in values.items():
            if name in self.names:
                self._values[name] = value
                if self.is_made:
                    self._show(name)

    def _show(self, name: str) -> None:
        """Show a value in its field, also one that the user could not enter there."""
        field, value = self._form[name], self._values[name]
        with field.changed.blocked():
            if isinstance(field.native, QAbstractSpinBox):
                _show_number(field.native, value, _limits(self._kind, name))
            elif isinstance(field.native, QLineEdit):
                field.value = _as_text(value)
            else:
                if isinstance(field.native, QComboBox) and value not in field.choices:
                    field.set_choice(str(value), value)
                field.value = value

    def offer(self, name: str, choices: Sequence[tuple[str, Any]]) -> None:
        """Offer other choices for a field, pairs (text, value); a value that is not among them becomes the first."""
        self._choices[name] = choices
        if self._values[name] not in (values := [value for _, value in choices]):
            self._values[name] = values[0]
        if self.is_made:
            with self._form[name].changed.blocked():
                self._form[name].choices = choices
            self._show(name)


def _usual(kind: type[Options], name: str) -> Any:
    """Return the default of a field; None for one that has none."""
    field = kind.model_fields[name]
    return None if field.is_required() else field.default


def _field(kind: type[Options], name: str, choices: Sequence[Any] | None, label: str | None) -> Any:
    field, annotation = kind.model_fields[name], plain_type(kind, name)
    value, optional = _usual(kind, name), is_optional(kind, name)
    options: dict[str, Any] = {"tooltip": field.description}
    if choices is None and get_origin(annotation) is Literal:
        choices = [*([(_DEFAULT_TEXT, None)] if optional else []), *((str(one), one) for one in get_args(annotation))]
    if choices is not None:
        options |= {"choices": list(choices), "widget_type": "ComboBox", "nullable": False}  # no choice "-----"
    elif annotation in (int, float):
        options |= _limits(kind, name)
        value = options["min"] if value is None else value
        annotation = float if optional else annotation  # the spin box of whole numbers cannot say "default"
    elif annotation is not bool:
        value, annotation = _as_text(value), str
    label = label or name.replace("_", " ")
    widget: Any = create_widget(value=value, annotation=annotation, name=name, label=label, options=options)
    widget.null_value = _NOTHING  # for its own None, magicgui would not say that the user chose it
    if isinstance(widget.native, QLineEdit):
        widget.native.setPlaceholderText(_DEFAULT_TEXT if optional else "")
    elif isinstance(widget.native, QDoubleSpinBox) and optional:
        widget.native.setSpecialValueText(_DEFAULT_TEXT)
    return widget


def _show_number(box: Any, value: float | None, limits: Mapping[str, Any]) -> None:
    """Show a number in a spin box, also one with more digits than its steps have, or beyond the numbers it offers."""
    shown = limits["min"] if value is None else value
    if isinstance(box, QDoubleSpinBox):
        box.setDecimals(max(_digits(limits["step"]), _digits(shown)))
    box.setRange(min(limits["min"], shown), max(limits["max"], shown))
    box.setValue(shown)


def _digits(number: float) -> int:
    """Return how many digits a number has after its point."""
    return len(np.format_float_positional(float(number), trim="-").partition(".")[2])


def plain_type(kind: type[Options], name: str) -> Any:
    """Return the type of a field, without None."""
    annotation: Any = kind.model_fields[name].annotation
    others = [one for one in get_args(annotation) if one is not type(None)]
    return others[0] if is_optional(kind, name) and len(others) == 1 else annotation


def is_optional(kind: type[Options], name: str) -> bool:
    """Whether None is a value of a field."""
    return type(None) in get_args(kind.model_fields[name].annotation)


def _limits(kind: type[Options], name: str) -> dict[str, Any]:
    """Return limits and step of a spin box; for decimal numbers the step also sets the number of digits."""
    field, number = kind.model_fields[name], plain_type(kind, name)
    step = 1.0 if number is int else _FINE if field.default and field.default < 0.01 else _COARSE
    least: Any = 0.0
    most: Any = _UPPER_LIMITS[number]
    for limit in field.metadata:
        least = getattr(limit, "ge", getattr(limit, "gt", least - step) + step)
        most = getattr(limit, "le", getattr(limit, "lt", most + step) - step)
    if is_optional(kind, name):
        least = 0 if least > 0 else least - step
    return {"min": number(least), "max": number(min(most, _UPPER_LIMITS[number])), "step": number(step)}


def _as_text(value: Any) -> str:
    """Write a value as options are typed: a list with commas, names and values as a=1|b=2, and nothing for None."""
    if isinstance(value, Mapping):
        return "|".join(f"{name}={one}" for name, one in value.items())
    return "" if value is None else ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def shows_option(widget: QWidget, kind: type[Options], *names: str) -> None:
    """Note on a widget of a dock which options it shows; a test finds from this whether any option has no widget."""
    widget.setProperty(OPTION, " ".join(home_of_option(kind, name) for name in names))


def home_of_option(kind: type[Options], name: str) -> str:
    """Name a field by the option model that defines it, such as ComputeOptions.device for that of EvidenceOptions."""
    homes = (one.__name__ for one in kind.__mro__ if name in vars(one).get("__annotations__", {}))
    return f"{next(homes)}.{name}"
