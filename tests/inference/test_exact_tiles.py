"""The answer for an image does not depend on how it was cut up: random networks, sizes and tiles against one piece."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import lively_model, noise
from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.inference.predict import Classifier, classify
from napari_milcnn.model.trained_model import TrainedModel

EXACT = {"device": "cpu", "precision": "float32"}
KINDS: tuple[dict[str, object], ...] = (
    {"preset": "compact", "pooling": "noisy_and"},
    {"preset": "compact", "pooling": "isr", "classes": ("a",), "channels": ("c",)},
    {"preset": "compact", "pooling": "lse", "widths": (3, 4, 5, 6, 7, 8), "normalise": "image"},
    {"preset": "compact", "pooling": "max", "channels": ("c", "d", "e"), "scale": 0.5},
    {"preset": "compact", "pooling": "noisy_or", "batch_norm": False, "widths": (4, 4, 4, 4, 4, 4)},
    {"preset": "paper", "pooling": "average", "widths": (4, 4, 6, 6, 8, 8)},
)


@lru_cache
def network(kind: int) -> TrainedModel:
    """Return one of a few networks with random weights."""
    return lively_model(**{"classes": ("a", "b"), **KINDS[kind]})


@st.composite
def cut_images(draw: st.DrawFn, most: int = 210) -> tuple[TrainedModel, ImageStack, int]:
    """Draw a network, an image, and the side of the tiles."""
    model = network(draw(st.integers(0, len(KINDS) - 1)))
    shape = draw(st.tuples(st.integers(40, most), st.integers(40, most)))
    pixels = noise(len(model.channels), *shape, seed=draw(st.integers(0, 2**16)))
    field = model.network.placement.receptive_field
    size = draw(st.sampled_from([None, 0.8, 1.4])) if model.card.network_scale == 1 else None
    image = open_image(pixels, axes="CYX", channels=model.channels, pixel_size=size)
    return model.with_card(pixel_size=1.0 if size else None), image, field + draw(st.integers(0, 130))


def assert_close(found: np.ndarray, wanted: np.ndarray) -> None:
    """Check that two arrays agree to a hundred thousandth of the largest value."""
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * max(float(np.abs(wanted).max()), 1e-6))


@pytest.mark.slow
@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(cut_images())
def test_scores_and_class_maps_of_tiles_are_those_of_one_piece(cut: tuple[TrainedModel, ImageStack, int]) -> None:
    """P, y and p do not depend on the tiles."""
    model, image, tile = cut
    whole, tiled = classify(model, image, **EXACT), classify(model, image, tile=tile, **EXACT)
    for name in ("probabilities", "scores", "class_maps", "unlike"):
        if not np.isnan(getattr(whole, name)).any():
            assert_close(getattr(tiled, name), getattr(whole, name))


@pytest.mark.slow
@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(cut_images(150), st.sampled_from([2, 4]), st.sampled_from(["class_map", "class_map_image"]))
def test_finer_class_maps_of_tiles_are_those_of_one_piece(
    cut: tuple[TrainedModel, ImageStack, int], detail: int, kind: str
) -> None:
    """A class map at a finer step does not depend on the tiles."""
    model, image, tile = cut
    maps = [_evidence(model, image, kind=kind, detail=detail, tile=side) for side in (None, tile)]
    assert_close(maps[1], maps[0])


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(cut_images(180), st.sampled_from(["guided", "plain"]))
def test_jacobian_maps_of_tiles_are_those_of_one_piece(cut: tuple[TrainedModel, ImageStack, int], rule: str) -> None:
    """Evidence at the pixels does not depend on the tiles: P is that of the whole image."""
    model, image, tile = cut
    maps = [_evidence(model, image, kind="jacobian", rule=rule, tile=side) for side in (None, tile)]
    assert_close(maps[1], maps[0])


def test_jacobian_maps_are_made_in_tiles_that_were_asked_for() -> None:
    """With a tile of 250 px the parts are smaller than the plane; their runs see no more than 250 px."""
    model, seen = network(0), []
    image = open_image(noise(2, 300, 420), axes="CYX", channels=model.channels)
    maker = EvidenceMaker(model, kind="jacobian", tile=250, **EXACT)
    model_input = maker.classifier.model_input(image)
    prediction = maker.classifier.classify(model_input)
    read = type(model_input).read
    try:
        type(model_input).read = lambda self, plane, window=None: (seen.append(window), read(self, plane, window))[1]
        next(maker.planes(model_input, prediction))
    finally:
        type(model_input).read = read
    assert len(seen) > 1
    assert max(max(window.y1 - window.y0, window.x1 - window.x0) for window in seen) <= 250


def _evidence(model: TrainedModel, image: ImageStack, **options: object) -> np.ndarray:
    maker = EvidenceMaker(model, **options, **EXACT)
    prediction = Classifier(model, **EXACT).classify(image)
    return next(maker.planes(image, prediction)).maps
