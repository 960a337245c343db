"""The room for temporary files is estimated near what a plane in strips takes at its peak, and never below it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
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
from napari_milcnn.inference.strips.room import COARSE_BYTES, bytes_a_pixel, sample_windows
from napari_milcnn.options import ForegroundOptions, MaskOptions

TWO = ("cytoplasm", "nucleus")


@pytest.mark.slow
@pytest.mark.parametrize("texture", ["clean", "noisy", "specks"])
@pytest.mark.parametrize(
    ("kind", "smooth", "method"),
    [
        ("object", 0, "otsu"), ("object", 0, "local"), ("object", 0, "half_maximum"), ("class_map", 2, None),
        ("class_map_image", 0, None), ("jacobian", 0, None), ("jacobian", 2, None),
    ],
)  # fmt: skip
def test_the_estimate_is_near_what_a_plane_in_strips_takes(
    kind: str, smooth: float, method: Any, texture: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """The peak is measured after every write; a window may make coarse levels then."""
    monkeypatch.setattr("napari_milcnn.inference.evidence.LARGEST_AT_ONCE", 0)
    monkeypatch.setattr(in_strips, "IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = mil.load_model("yeast-sim")
    field = np.tile(tifffile.imread(mil.sample_folder() / "yeast-two-labels.ome.tif"), (1, 2, 2))[:, :450, :600]
    random = np.random.default_rng(0)
    if texture == "noisy":
        field = random.poisson(field + 200)
    elif texture == "specks":
        field = random.poisson(20, field.shape) + 2000 * (random.random(field.shape) < 0.02)
    image = open_image(field.astype(np.uint16), axes="CYX", channels=model.channels, pixel_size=model.pixel_size)
    foreground = ForegroundOptions(method=method, size=6) if method and method != "otsu" else None
    maker = EvidenceMaker(model, kind=kind, foreground=foreground, device="cpu", precision="float32")
    prediction = replace(maker.classifier.classify(image), has_structure=np.ones(1, bool))
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
    assert masks.objects["shown"].any() or texture == "specks"
    made = peaks[-1] + COARSE_BYTES * field[0].size * (1 if kind == "object" else 1 + len(classes))
    assert max(*peaks, made) <= estimate <= 1.6 * max(*peaks, made)


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


def test_a_plane_that_shows_nothing_needs_no_room(monkeypatch: Any) -> None:
    monkeypatch.setattr("napari_milcnn.inference.evidence.LARGEST_AT_ONCE", 0)
    monkeypatch.setattr(in_strips.Scratch, "free", 0)
    maker = EvidenceMaker(mil.load_model("yeast-sim"), kind="object", device="cpu", precision="float32")
    with open_image(mil.sample_folder() / "yeast-two-labels.ome.tif") as opened:
        prediction = replace(maker.classifier.classify(opened), has_structure=np.zeros(1, bool))
        assert not np.any(next(maker.planes(opened, prediction)).objects)


def test_the_estimate_for_jacobian_maps_goes_on_in_smaller_parts_when_memory_runs_out(monkeypatch: Any) -> None:
    monkeypatch.setattr("napari_milcnn.inference.evidence.LARGEST_AT_ONCE", 0)
    maker = EvidenceMaker(mil.load_model("yeast-sim"), kind="jacobian", device="cpu", precision="float32")
    part, sizes = maker._jacobian_part, []

    def too_large(*arguments: Any) -> np.ndarray:
        window = arguments[-1]
        sizes.append(window.y1 - window.y0)
        if sizes[-1] > 128:
            raise RuntimeError("out of memory")
        return part(*arguments)

    with open_image(mil.sample_folder() / "yeast-two-labels.ome.tif") as opened:
        prediction = maker.classifier.classify(opened)
        model_input = maker.classifier.model_input(opened)
        expected = maker.room(model_input, prediction, 0, [0], 0)
        monkeypatch.setattr(maker, "_jacobian_part", too_large)
        assert maker.room(model_input, prediction, 0, [0], 0) == pytest.approx(expected, rel=0.02)
    assert max(sizes) > 128 >= min(sizes)


def test_noise_takes_more_room_than_what_repeats() -> None:
    noise = np.random.default_rng(0).normal(size=(100, 100)).astype(np.float32)
    assert bytes_a_pixel([]) == bytes_a_pixel([[], []]) == 0
    assert bytes_a_pixel([[np.zeros((100, 100), np.float32)]]) < 0.2
    assert 3 < bytes_a_pixel([[noise]]) < 5
    assert bytes_a_pixel([[noise, noise]] * 2) == pytest.approx(2 * bytes_a_pixel([[noise]]), rel=0.1)


def test_windows_are_spread_over_a_plane() -> None:
    found = sample_windows((100, 3000))
    assert len(sample_windows((3000, 3000))) == 9
    assert {(one.y0, one.y1) for one in found} == {(0, 100)}
    assert [one.x0 for one in found] == [457, 1372, 2286]
    assert all(one.x1 - one.x0 == 256 for one in found)
