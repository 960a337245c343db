"""The room for temporary files is estimated near what a plane in strips takes at its peak, and never below it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import napari_milcnn as mil
from napari_milcnn.errors import ComputeError
from napari_milcnn.images.open import open_image
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.inference.masks import segment_plane
from napari_milcnn.inference.strips import rows as in_strips
from napari_milcnn.inference.strips.room import bytes_a_pixel, sample_windows
from napari_milcnn.options import MaskOptions

TWO = ("cytoplasm", "nucleus")


@pytest.mark.slow
@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize(
    ("kind", "smooth"), [("object", 0), ("class_map", 2), ("class_map_image", 0), ("jacobian", 0), ("jacobian", 2)]
)
def test_the_estimate_is_near_what_a_plane_in_strips_takes(
    kind: str, smooth: float, noisy: bool, tmp_path: Path, monkeypatch: Any
) -> None:
    """The peak is measured after every write."""
    monkeypatch.setattr("napari_milcnn.inference.evidence.LARGEST_AT_ONCE", 0)
    monkeypatch.setattr(in_strips, "IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = mil.load_model("yeast-sim")
    field = np.tile(tifffile.imread(mil.sample_folder() / "yeast-two-labels.ome.tif"), (1, 2, 2))[:, :450, :600]
    if noisy:
        field = np.random.default_rng(0).poisson(field + 200)
    image = open_image(field.astype(np.uint16), axes="CYX", channels=model.channels, pixel_size=model.pixel_size)
    maker = EvidenceMaker(model, kind=kind, device="cpu", precision="float32")
    prediction = maker.classifier.classify(image)
    classes = model.classes if kind == "object" else TWO
    chosen = [model.classes.index(name) for name in classes]
    estimate = maker.room(maker.classifier.model_input(image), prediction, 0, chosen, smooth)
    peaks, write = [0], in_strips.ScratchPlane.write

    def written(plane: in_strips.ScratchPlane, top: int, rows: np.ndarray) -> None:
        write(plane, top, rows)
        peaks.append(sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()))

    monkeypatch.setattr(in_strips.ScratchPlane, "write", written)
    monkeypatch.setattr(maker, "room", lambda *_: 0.0)  # its windows are as large as this plane
    (plane,) = maker.planes(image, prediction, classes, smooth=smooth)
    masks = segment_plane(plane, prediction, classes, MaskOptions(smooth=smooth, split=10, present=0))
    assert masks.objects["shown"].any()
    assert max(peaks) <= estimate <= 1.5 * max(peaks)


def test_a_plane_without_room_is_refused_before_its_evidence_is_made(monkeypatch: Any) -> None:
    """The message says how much is needed and how much is free."""
    monkeypatch.setattr("napari_milcnn.inference.evidence.LARGEST_AT_ONCE", 0)
    monkeypatch.setattr(in_strips.Scratch, "free", 1000)
    model = mil.load_model("yeast-sim")
    maker = EvidenceMaker(model, kind="object", device="cpu", precision="float32")
    image = mil.sample_folder() / "yeast-two-labels.ome.tif"
    with open_image(image) as opened:
        prediction = maker.classifier.classify(opened)
        monkeypatch.setattr(maker, "_objects", None)
        with pytest.raises(ComputeError, match=r"GB for temporary files, and 0\.0 GB are free"):
            next(maker.planes(opened, prediction))


def test_noise_takes_more_room_than_what_repeats() -> None:
    noise = np.random.default_rng(0).normal(size=(100, 100)).astype(np.float32)
    assert bytes_a_pixel([]) == bytes_a_pixel([[], []]) == 0
    assert bytes_a_pixel([[np.zeros((100, 100), np.float32)]]) < 0.2
    assert 3 < bytes_a_pixel([[noise]]) < 5
    assert bytes_a_pixel([[noise, noise]] * 2) == pytest.approx(2 * bytes_a_pixel([[noise]]), rel=0.1)


def test_windows_are_spread_over_a_plane() -> None:
    found = sample_windows((100, 3000))
    assert len(found) == 9
    assert {(one.y0, one.y1) for one in found} == {(0, 100)}
    assert [one.x0 for one in found[:3]] == [457, 1372, 2286]
    assert all(one.x1 - one.x0 == 256 for one in found)
