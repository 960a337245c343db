"""A plane that is cut in strips gives the files that it gives in one piece."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile

import napari_milcnn as mil
from conftest import lively_model, noise
from napari_milcnn.inference.strips import rows as in_strips
from napari_milcnn.options import ForegroundOptions
from napari_milcnn.results.folder import classify_files

EXACT = {"device": "cpu", "precision": "float32"}


def large(monkeypatch: Any) -> None:
    """Treat every plane as one that is larger than memory."""
    monkeypatch.setattr("napari_milcnn.inference.evidence.LARGEST_AT_ONCE", 0)
    monkeypatch.setattr("napari_milcnn.images.write._LARGEST_PAGE", 0)
    monkeypatch.setattr("napari_milcnn.images.write._TILE", 64)
    monkeypatch.setattr("napari_milcnn.images.write._CHUNK", 48)
    monkeypatch.setattr("napari_milcnn.images.write._SMALLEST_LEVEL", 60)
    monkeypatch.setattr(in_strips, "STRIP_PIXELS", 7000)
    monkeypatch.setattr(in_strips, "IN_MEMORY", 0)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "masks_as"), [("object", "tiff"), ("object", "zarr"), ("jacobian", "zarr")])
def test_files_of_a_plane_in_strips_are_those_of_one_piece(
    kind: str, masks_as: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """Label image, evidence, class maps, picture and both tables, of an image of which one plane is empty."""
    field = tifffile.imread(mil.sample_folder() / "yeast-two-labels.ome.tif")[:, :230, :300]
    model = mil.load_model("yeast-sim")
    images = np.stack([field, np.full_like(field, 100)])
    facts = {
        "axes": "TCYX",
        "PhysicalSizeX": model.pixel_size,
        "PhysicalSizeXUnit": "µm",
        "Channel": {"Name": model.channels},
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", images, photometric="minisblack", metadata=facts)
    options = {"kind": kind, "masks_as": masks_as, "save_evidence": True, "mask_options": {"present": 0}, **EXACT}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for out in (whole, cut):
        (result,) = [
            step.result for step in classify_files(model, [tmp_path / "a.ome.tif"], out, **options) if step.result
        ]
        assert not result.error
        large(monkeypatch)
    names = sorted(path.name for path in whole.iterdir())
    assert sorted(path.name for path in cut.iterdir()) == names
    for name in names:
        if name.endswith((".tif", ".zarr")):
            with mil.open_image(whole / name) as one, mil.open_image(cut / name) as other:
                np.testing.assert_allclose(np.asarray(other.data), np.asarray(one.data), rtol=1e-5)
        if name.endswith(".csv"):
            pd.testing.assert_frame_equal(pd.read_csv(cut / name), pd.read_csv(whole / name), rtol=1e-5)
    assert (cut / "a_overview.png").read_bytes() == (whole / "a_overview.png").read_bytes()
    assert len(pd.read_csv(cut / "objects.csv")) > 3


def test_a_label_image_that_is_streamed_has_the_pyramid_of_one_at_once(tmp_path: Path, monkeypatch: Any) -> None:
    """Each level has every second pixel of the one before, wherever the rows are cut."""
    import zarr

    from napari_milcnn.images.write import LabelsAxis, LabelsImage, write_labels_ome_zarr

    large(monkeypatch)
    labels = np.random.default_rng(0).integers(0, 9, (2, 250, 131)).astype(np.uint16)
    axes = {"T": LabelsAxis(2), "Y": LabelsAxis(250), "X": LabelsAxis(131)}
    write_labels_ome_zarr(tmp_path / "m.ome.zarr", LabelsImage("m", labels, axes))
    group = zarr.open_group(tmp_path / "m.ome.zarr")
    for level, factor in enumerate((1, 2, 4, 8)):
        np.testing.assert_array_equal(group[str(level)][:], labels[:, ::factor, ::factor])


@pytest.mark.parametrize("cut", [True, False])
def test_masks_without_room_on_disk_cost_the_masks_of_that_image_alone(
    cut: bool, tmp_path: Path, monkeypatch: Any
) -> None:
    """Scores are kept, the reason is a row of the table, and the next image follows."""
    model = lively_model(reference="a").with_card(foreground=ForegroundOptions(method="otsu", size=14))
    facts = {"axes": "CYX", "Channel": {"Name": list(model.channels)}}
    for name in "ab":
        tifffile.imwrite(tmp_path / f"{name}.tif", noise(2, 90, 100), ome=True, metadata=facts)
    if cut:
        monkeypatch.setattr("napari_milcnn.inference.evidence.LARGEST_AT_ONCE", 0)
        monkeypatch.setattr(in_strips.Scratch, "free", 0)
    else:
        monkeypatch.setattr("napari_milcnn.results.findings._IN_MEMORY", 0)
        monkeypatch.setattr("os.posix_fallocate", no_space, raising=False)
    options = {"kind": "object", "save_evidence": True, "mask_options": {"present": 0}, **EXACT}
    files = [tmp_path / "a.tif", tmp_path / "b.tif"]
    steps = classify_files(model, files, tmp_path / "out", **options)
    results = [step.result for step in steps if step.result]
    assert [result.name for result in results] == ["a", "b"]
    for result in results:
        assert result.prediction is not None
        assert result.error.startswith("masks are missing: ")
        assert "temporary file" in result.error


def no_space(*_arguments: Any) -> None:
    """Have no room on the disk."""
    raise OSError(28, "No space left on device")
