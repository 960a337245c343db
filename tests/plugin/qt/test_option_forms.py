"""Forms of options: what their fields say, and that a form knows its values before it has any field."""

from __future__ import annotations

import pytest

pytest.importorskip("napari")
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QPushButton, QWidget

from napari_milcnn.options import (
    ComputeOptions,
    EvaluateOptions,
    ForegroundOptions,
    InputOptions,
    MaskOptions,
    TrainOptions,
    make_options,
)
from napari_milcnn.plugin.qt.forms import LatePart, Section, vertical_layout
from napari_milcnn.plugin.qt.option_forms import OptionsForm
from qt_actions import next_by_tab


@pytest.fixture
def form_of(qtbot):
    """Return a function that makes a form."""

    def make(*args, **kwargs) -> OptionsForm:
        form = OptionsForm(*args, **kwargs)
        qtbot.addWidget(form)
        return form

    return make


def test_fields_of_a_form_have_names_for_screen_readers(form_of):
    form = form_of(ComputeOptions, ("batch_size", "precision", "tile"))
    assert [field.native.accessibleName() for field in form] == ["batch size", "precision", "tile"]


def test_a_choice_that_may_be_left_out_is_offered_once(form_of):
    form = form_of(EvaluateOptions, ("detail", "split"), {"detail": [("as on the card", None), ("2", 2)]})
    texts = [[field.native.itemText(i) for i in range(field.native.count())] for field in form]
    assert texts == [["as on the card", "2"], ["default", "train", "validation", "test"]]
    assert form.values() == {"detail": None, "split": None}
    form["detail"].value = 2
    assert form.values()["detail"] == 2


def test_a_number_that_may_be_left_out_says_default(form_of):
    form = form_of(ForegroundOptions, ("min_size", "size"))
    assert [field.native.text() for field in form] == ["default", "default"]
    assert form.values() == {"min_size": None, "size": None}
    form["min_size"].value = 0
    form.show_values({"size": 30.0})
    assert [field.native.text() for field in form] == ["0", "30.00"]
    assert repr(form.values()) == "{'min_size': 0, 'size': 30.0}"
    form.show_values({"min_size": None})
    assert form["min_size"].native.text() == "default"


@pytest.mark.parametrize("kind", [ComputeOptions, ForegroundOptions, InputOptions, MaskOptions, TrainOptions])
def test_a_form_says_the_same_before_and_after_it_is_made(form_of, kind):
    form = form_of(kind, kind.model_fields)
    before, given = form.values(), form.given()
    assert not form.findChildren(QWidget)
    form.make()
    assert make_options(kind, form.values()) == make_options(kind, before) == kind()
    assert given == {}


def test_values_that_a_form_was_told_stand_in_it_once_it_is_made(form_of):
    told = {"epochs": 3, "max_minutes": 1.5, "threads": None, "schedule": "cosine", "flip_rotate": False}
    form = form_of(TrainOptions, tuple(told))
    form.show_values({**told, "seed": 7})  # which another form shows
    assert form.values() == told
    assert form.given() == {name: value for name, value in told.items() if value is not None}
    form.make()
    assert form.values() == told
    assert form["threads"].native.text() == "default"


def test_what_the_user_changes_is_said_and_what_the_program_shows_is_not(form_of, qtbot):
    form = form_of(TrainOptions, ("epochs",))
    form.make()
    with qtbot.assertNotEmitted(form.changed):
        form.show_values({"epochs": 5})
    with qtbot.waitSignal(form.changed):
        form["epochs"].value = 6
    assert form.values() == {"epochs": 6}


UNUSUAL = {
    "device": ("cuda:1", "cuda:1"), "encoder_rate": (0.25, "0.25"), "learning_rate": (0.00012345, "0.00012345"),
    "max_minutes": (0.000123, "0.000123"), "head_rate": (0.001, "0.001"), "average": (0.9876543, "0.9876543"),
    "seed": (2**32 - 1, str(2**32 - 1)), "num_workers": (3, "3"), "patience": (7, "7"), "epochs": (3, "3"),
}  # fmt: skip
"""Values that their fields do not offer, or that have more digits than their steps, and what the fields say."""
CHOICES = {"device": ["auto", "cpu"], "encoder_rate": [("whole network", 1.0), ("encoder frozen", 0.0)]}


@pytest.mark.parametrize("made_first", [True, False])
def test_unusual_values_stand_in_a_form_as_they_are(form_of, qtbot, made_first):
    form, told = form_of(TrainOptions, tuple(UNUSUAL), CHOICES), {name: value for name, (value, _) in UNUSUAL.items()}
    if made_first:
        form.make()
    with qtbot.assertNotEmitted(form.changed):
        form.show_values(told)
        form.make()
    assert make_options(TrainOptions, form.values()) == make_options(TrainOptions, told)
    texts = {field.name: field.native.currentText() if field.name in CHOICES else field.native.text() for field in form}
    assert texts == {name: text for name, (_, text) in UNUSUAL.items()}
    for field in form:  # Enter says a number anew
        qtbot.keyClick(field.native, Qt.Key.Key_Return)
    assert form.values() == told
    with qtbot.waitSignal(form.changed):
        form["num_workers"].value = 5
    assert form.values() == told | {"num_workers": 5}
    usual = make_options(TrainOptions, {}).model_dump(include=set(UNUSUAL))
    form.show_values(usual)
    assert form.values() == usual
    assert form["learning_rate"].native.text() == "0.0020"


def test_the_default_is_said_when_the_user_chooses_it_again(form_of, qtbot):
    form = form_of(EvaluateOptions, ("split",))
    form["split"].value = "test"
    with qtbot.waitSignal(form.changed):
        form["split"].value = None
    assert form.values() == {"split": None}


def test_a_part_that_cannot_be_made_is_not_taken_for_made(qtbot):
    class Broken(LatePart):
        def _make(self):
            raise ValueError("no")

    part = Broken()
    qtbot.addWidget(part)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            part.make()
    assert not part.is_made


@pytest.mark.parametrize("made_first", [True, False])
def test_a_channel_that_is_not_offered_any_more_gives_way_to_the_first(form_of, made_first):
    form = form_of(ForegroundOptions, ("channel",))
    form.offer("channel", [("default", None), ("GFP", "GFP"), ("RFP", "RFP")])
    if made_first:
        form.make()
    form.show_values({"channel": "RFP"})
    form.offer("channel", [("default", None), ("RFP", "RFP")])
    assert form.values() == {"channel": "RFP"}
    form.offer("channel", [("default", None), ("DAPI", "DAPI")])
    assert form.values() == {"channel": None}
    assert form["channel"].choices == (None, "DAPI")


def test_unfolding_a_section_makes_its_form_and_not_those_of_sections_within(qtbot):
    """The Tab key then goes from the title through the fields to what follows."""
    inner, outer = OptionsForm(ComputeOptions, ("device",)), OptionsForm(ComputeOptions, ("tile", "batch_size"))
    page, whole, after = QWidget(), QWidget(), QPushButton()
    qtbot.addWidget(whole)
    layout = vertical_layout(page)
    layout.addWidget(outer)
    section_within = Section("within", inner, is_open=False)
    layout.addWidget(section_within)
    section = Section("around", page, is_open=False)
    layout = vertical_layout(whole)
    layout.addWidget(section)
    layout.addWidget(after)
    assert (outer.is_made, inner.is_made) == (False, False)
    section.fold(is_open=True)
    assert (outer.is_made, inner.is_made) == (True, False)
    walk = [section.button]
    while walk[-1] is not after:
        walk.append(next_by_tab(walk[-1]))
    assert walk[1:] == [outer["tile"].native, outer["batch_size"].native, section_within.button, after]
    section_within.fold(is_open=True)
    assert next_by_tab(section_within.button) is inner["device"].native
    assert next_by_tab(inner["device"].native) is after
