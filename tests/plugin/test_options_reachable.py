"""Every option can be set where it counts: each widget says which options it shows, and no form forgets one of its own.

An `OptionsForm` shows a new option by itself. A widget of another kind says so by `shows_option`.
"""

from __future__ import annotations

import pytest

pytest.importorskip("napari")
from qtpy.QtWidgets import QWidget

from conftest import PATIENCE
from napari_milcnn import options
from napari_milcnn.options import (
    EvaluateOptions,
    EvidenceOptions,
    ForegroundOptions,
    InputOptions,
    MaskOptions,
    NetworkOptions,
    Options,
    ScreenOptions,
    TrainOptions,
)
from napari_milcnn.plugin.qt.option_forms import OPTION, home_of_option
from qt_actions import open_dock, unfold

FORMS = {
    ("Classify", ""): (EvidenceOptions, ForegroundOptions, MaskOptions),
    ("Train", ""): (NetworkOptions, InputOptions, ForegroundOptions, TrainOptions),
    ("Results", "evaluation_box"): (EvaluateOptions, ForegroundOptions, TrainOptions),
    ("Results", "screen_box"): (ScreenOptions, EvidenceOptions, ForegroundOptions, MaskOptions),
}
"""Dock and its part, if it does several things -> the option models of what it does."""
GIVEN_BY_THE_IMAGES = {"NetworkOptions.channels", "NetworkOptions.classes"}
"""A training reads these from its images and their labels."""
MODELS_OF_THEIR_OWN = {"EvidenceOptions.foreground"}
"""The model that stands there has a form of its own."""


def wanted(*models: type[Options]) -> set[str]:
    """Name the fields of option models by the model that defines them."""
    fields = {home_of_option(model, name) for model in models for name in model.model_fields}
    return fields - GIVEN_BY_THE_IMAGES - MODELS_OF_THEIR_OWN


def shown_options(form: QWidget) -> set[str]:
    """Name the options that the widgets of a dock or of a part show."""
    return {name for one in form.findChildren(QWidget) for name in str(one.property(OPTION) or "").split()}


def test_every_option_model_belongs_to_a_dock():
    models = [one for one in vars(options).values() if isinstance(one, type) and issubclass(one, Options)]
    assert wanted(*models) == wanted(*(model for each in FORMS.values() for model in each))
    assert len(wanted(*models)) > 60


@pytest.mark.parametrize("dock", dict.fromkeys(name for name, _ in FORMS))
def test_every_option_is_in_its_form(make_napari_viewer, qtbot, dock):
    _, opened = open_dock(make_napari_viewer(), dock)
    qtbot.waitUntil(lambda: not getattr(opened, "waits", False), timeout=PATIENCE)
    unfold(opened)
    for part, models in ((part, models) for (name, part), models in FORMS.items() if name == dock):
        assert shown_options(getattr(opened, part) if part else opened) == wanted(*models), part
