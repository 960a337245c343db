"""The user's own segmentation as the cells of object evidence in the Classify dock."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import tifffile
from skimage.measure import label as components

import napari_milcnn as mil
from conftest import PATIENCE
from napari_milcnn.plugin.classify.own_cells import OwnCells
from napari_milcnn.plugin.current_model import current
from napari_milcnn.results.folder import classify_files
from napari_milcnn.results.replay import replay
from qt_actions import open_dock

pytest.importorskip("napari")
SAMPLES = mil.sample_folder() / "training"
FIELD, TRUTH = SAMPLES / "images" / "nucleus-01_1.ome.tif", SAMPLES / "truth" / "nucleus-01_1.tif"
TABLE = ["label", "class", "shown", "area_px"]


def cells_of_field() -> np.ndarray:
    """Return the true cells of the field as separate objects, with gaps in their numbers as after work by hand."""
    truth = tifffile.imread(TRUTH)
    return components((truth if truth.ndim == 2 else truth[0]) > 0) * 3


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


@pytest.fixture
def dock(viewer, qtbot):
    """Return the dock with the shipped yeast model and a field."""
    current.set(mil.load_model("yeast-sim"))
    _, dock = open_dock(viewer, "Classify")
    viewer.open(FIELD)
    yield dock
    dock.cancel()
    qtbot.waitUntil(lambda: not dock.busy and not dock.session.preview.busy, timeout=PATIENCE)
    current.clear()


def run(dock, qtbot) -> None:
    dock.run_button.click()
    qtbot.waitUntil(lambda: not dock.busy and not dock.session.preview.busy, timeout=PATIENCE)


def pick(dock, text: str) -> None:
    """Pick an entry as a user does."""
    combo = dock.adds_box.cells
    combo.setCurrentIndex(combo.findText(text))
    combo.activated.emit(combo.currentIndex())


@pytest.mark.slow
def test_a_layer_of_cells_gives_the_objects_of_the_command_line(dock, viewer, qtbot, tmp_path):
    cells = cells_of_field()
    viewer.add_labels(cells, name="mine")
    pick(dock, "mine")
    run(dock, qtbot)
    tifffile.imwrite(tmp_path / "cells.tif", cells.astype(np.uint16))
    list(classify_files(current.model, [FIELD], tmp_path / "screen", objects=tmp_path / "cells.tif"))
    theirs = pd.read_csv(tmp_path / "screen" / "objects.csv").fillna({"class": ""})
    mine = dock.results_box.objects.frame
    pd.testing.assert_frame_equal(mine[TABLE], theirs[TABLE], check_dtype=False)
    assert set(np.unique(cells)) - {0} == set(mine["label"])
    planes = pd.read_csv(tmp_path / "screen" / "predictions.csv").iloc[0]
    total, name = int(planes["cells"]), planes["top"]
    said = f"{int(planes[f'cells {name}'])} {name} ({planes[f'share {name}']:.0%})"
    assert dock.results_box.counts.text().startswith(f"{total} cells, ")
    assert said in dock.results_box.counts.text()
    pick(dock, "found by the program")
    qtbot.waitUntil(lambda: set(dock.session.in_view.masks[0].objects["label"]) != set(mine["label"]), timeout=PATIENCE)


@pytest.mark.slow
def test_an_export_with_own_cells_runs_again_and_refuses_cells_that_changed(dock, viewer, qtbot, tmp_path):
    layer = viewer.add_labels(cells_of_field(), name="mine")
    pick(dock, "mine")
    run(dock, qtbot)
    shown = set(dock.session.in_view.masks[0].shown["label"])
    dock.export_box.folder.setText(str(tmp_path))
    dock.export_box.button.click()
    qtbot.waitUntil(lambda: not dock.busy and (tmp_path / "run.json").exists(), timeout=PATIENCE)
    list(replay(tmp_path / "run.json", tmp_path / "again"))
    again = pd.read_csv(tmp_path / "again" / "objects.csv")
    assert set(again.loc[again["shown"], "label"]) == shown
    written = (tmp_path / "run.json").read_bytes()
    layer.data[:40] = 0
    dock.export_box.button.click()
    qtbot.waitUntil(lambda: not dock.busy, timeout=PATIENCE)
    assert "changed after the masks were made" in dock.notices.text()
    assert json.loads(written) == json.loads((tmp_path / "run.json").read_bytes())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda cells: (cells[:100], {}), "mine cannot be the cells of nucleus-01_1: the labels are 100 x"),
        (
            lambda cells: (cells, {"scale": (0.16, 0.16), "translate": (5, 0)}),
            "(scale 0.16, 0.16; translate 5, 0) lies elsewhere",
        ),
    ],
)
def test_cells_that_do_not_fit_are_refused_in_words_and_scores_are_kept(dock, viewer, qtbot, make, said):
    data, facts = make(cells_of_field())
    viewer.add_labels(data, name="mine", **facts)
    pick(dock, "mine")
    run(dock, qtbot)
    assert said in dock.notices.text()
    assert dock.session.in_view.planes
    assert not dock.session.in_view.masks


def test_the_choice_belongs_to_one_image_and_ends_with_its_layer(dock, viewer, tmp_path):
    combo = dock.adds_box.cells
    mine = viewer.add_labels(cells_of_field(), name="mine", scale=(0.16, 0.16))
    tifffile.imwrite(tmp_path / "cells.tif", cells_of_field().astype(np.uint16))
    pick(dock, "mine")
    viewer.open(SAMPLES / "images" / "nucleus-02_1.ome.tif")
    assert combo.currentText() == "found by the program"
    combo.choose(OwnCells(file=tmp_path / "cells.tif"))
    assert combo.currentText() == "cells.tif"
    dock.image_box.layers.setCurrentIndex(0)
    assert combo.currentText() == "mine"
    dock.adds_box.choose("class_map")
    assert not combo.isEnabled()
    assert dock.adds_box.own_cells(dock.image_box.chosen()) is None
    viewer.layers.remove(mine)
    dock.image_box.layers.setCurrentIndex(0)  # the viewer selected another image
    assert combo.currentText() == "found by the program"
