"""What fails in one image of two gives the same rows and words from Python, the command line and the dock."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tifffile
from typer.testing import CliRunner

from conftest import PATIENCE, lively_model, noise
from napari_milcnn.cli.app import app
from napari_milcnn.errors import OutputError
from napari_milcnn.inference import pipeline
from napari_milcnn.inference.tiling import TiledInference
from napari_milcnn.plugin.current_model import current
from napari_milcnn.results.folder import classify_files
from qt_actions import drop, open_dock

pytest.importorskip("napari")
SIDES = {"a": 96, "b": 104}


@pytest.fixture
def images(tmp_path):
    """Write two images; the first, a.tif, is smaller."""
    facts = {"axes": "CYX", "Channel": {"Name": ["GFP", "RFP"]}}
    for name, side in SIDES.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", noise(2, side, side), ome=True, metadata=facts)
    return [tmp_path / f"{name}.tif" for name in SIDES]


@pytest.fixture
def model(tmp_path):
    """Return the model that all doors use, and its file."""
    return lively_model().save(tmp_path / "model.zip")


def network_without_memory(monkeypatch, _images):
    """Let no batch of the first image fit."""
    real = TiledInference.maps_and_moments

    def maps_and_moments(self, pixels, **kept):
        if pixels.shape[-1] < SIDES["a"]:  # what the network sees of the second image is 99 px wide
            raise MemoryError
        return real(self, pixels, **kept)

    monkeypatch.setattr(TiledInference, "maps_and_moments", maps_and_moments)


def masks_without_memory(monkeypatch, _images):
    """Let the masks of the first image not fit."""
    real = pipeline.segment_plane

    def segment_plane(evidence, *rest):
        if evidence.maps.shape[-1] == SIDES["a"]:
            raise MemoryError
        return real(evidence, *rest)

    monkeypatch.setattr(pipeline, "segment_plane", segment_plane)


def unreadable(_monkeypatch, images):
    """Cut the first image short."""
    images[0].write_bytes(images[0].read_bytes()[:300])


FAULTS = pytest.mark.parametrize(
    ("fault", "reason", "classified"),
    [
        (network_without_memory, "a single receptive field does not fit into memory", False),
        (masks_without_memory, "does not fit into memory; crop it or close programs", True),
        (unreadable, "a.tif", False),
    ],
)


def rows_of(folder):
    """Return name, top class and error of every row, as text."""
    table = pd.read_csv(folder / "predictions.csv", dtype=str, keep_default_na=False)
    return table[["name", "top", "error"]].to_numpy().tolist()


@FAULTS
def test_python_and_the_command_line_write_the_same_rows(
    images, model, tmp_path, monkeypatch, fault, reason, classified
):
    from napari_milcnn import load_model

    fault(monkeypatch, images)
    results = [step.result for step in classify_files(load_model(model), images, tmp_path / "python") if step.result]
    arguments = ["classify", *map(str, images), "--model", str(model), "--out", str(tmp_path / "cli")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert rows_of(tmp_path / "python") == rows_of(tmp_path / "cli")
    *first, second = rows_of(tmp_path / "python")
    assert [row[2] for row in first] == ([""] if classified else []) + [results[0].error]
    assert reason in results[0].error
    assert f"failed: {results[0].error}" in done.output.replace("\n", "")
    assert second[0] == "b"
    assert second[2] == ""
    assert (tmp_path / "cli" / "a_maps.ome.tif").exists() is classified
    assert (tmp_path / "cli" / "b_labels.ome.tif").exists()
    assert not (tmp_path / "cli" / "a_labels.ome.tif").exists()


@FAULTS
def test_the_dock_says_the_same(
    images, model, tmp_path, make_napari_viewer, qtbot, monkeypatch, fault, reason, classified
):
    from napari_milcnn import load_model

    loaded = load_model(model)
    fault(monkeypatch, images)
    results = [step.result for step in classify_files(loaded, images, tmp_path / "python") if step.result]
    current.set(loaded)
    viewer = make_napari_viewer()
    _, dock = open_dock(viewer, "Classify")
    drop(dock, *images)
    images = dock.session.images.records
    try:
        qtbot.waitUntil(
            lambda: not dock.busy and not dock.session.preview.busy and len(images) == 2
            and all(entry.state.value in ("done", "failed") for entry in images.values()), timeout=PATIENCE,
        )  # fmt: skip
        first, second = images.values()
        assert (first.state.value, second.state.value) == ("done" if classified else "failed", "done")
        assert bool(first.planes) is classified
        assert second.prediction.top == results[1].prediction.top
        if classified:  # its masks are made for its layers, and the reason is shown
            assert dock.notices.text().splitlines()[0] == results[0].error
            np.testing.assert_allclose(first.prediction.scores, results[0].prediction.scores, atol=1e-6)
        else:
            assert first.error == results[0].error
    finally:
        current.clear()


def test_a_full_disk_is_said_alike(images, model, tmp_path, make_napari_viewer, qtbot, monkeypatch):
    """Python raises, the command line ends with 2, the dock shows the sentence; what was finished before is there."""
    from napari_milcnn import load_model

    real = tifffile.TiffWriter.write

    def full(self, *arguments, **options):
        if "b_labels" in str(self.filehandle.path):
            raise OSError(28, "No space left on device")
        return real(self, *arguments, **options)

    monkeypatch.setattr(tifffile.TiffWriter, "write", full)
    loaded = load_model(model)
    with pytest.raises(OutputError) as raised:
        list(classify_files(loaded, images, tmp_path / "python"))
    sentence = str(raised.value).partition("b_labels.ome.tif ")[2]
    assert sentence == "cannot be written: No space left on device; free some space or choose another folder"
    arguments = ["classify", *map(str, images), "--model", str(model), "--out", str(tmp_path / "cli")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert sentence in done.output.replace("\n", "")
    for where in ("python", "cli"):
        assert [row[0] for row in rows_of(tmp_path / where)] == ["a"]
        assert (tmp_path / where / "a_labels.ome.tif").exists()
    current.set(loaded)
    viewer = make_napari_viewer()
    _, dock = open_dock(viewer, "Classify")
    viewer.open(images[1])
    try:
        dock.run_button.click()
        qtbot.waitUntil(lambda: not dock.busy and len(dock.session.images.records) == 1, timeout=PATIENCE)
        dock.export_box.folder.setText(str(tmp_path / "dock"))
        dock.export_box.button.click()
        qtbot.waitUntil(lambda: sentence in dock.notices.text(), timeout=PATIENCE)
        qtbot.waitUntil(lambda: not dock.busy and not dock.session.preview.busy, timeout=PATIENCE)
    finally:
        current.clear()
