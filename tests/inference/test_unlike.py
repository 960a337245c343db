"""How far planes are from training images, in what, and whether they show anything: fields drawn by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import ledoit_wolf

from napari_milcnn.errors import ImageError, ModelError
from napari_milcnn.images.open import open_image
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.inference.model_input import model_input
from napari_milcnn.inference.pipeline import ImageRequest, analyse
from napari_milcnn.inference.predict import Classifier, classify
from napari_milcnn.inference.unlike import (
    NO_STRUCTURE,
    STATISTICS,
    pixels_unlike,
    plane_look,
    plane_object_size,
    relative_size,
    training_look,
    unlike,
)
from napari_milcnn.model.card import Cloud, ModelCard
from napari_milcnn.model.package_read import load_model
from napari_milcnn.options import MaskOptions
from napari_milcnn.schema import NO_CLASS
from tests.conftest import blob, lively_model

EXACT = {"device": "cpu", "precision": "float32"}
SIDE = 160


def field(seed, *, size=4.0):
    """Draw discs of light on a dark field with a camera's noise, uint16 (channels, Y, X)."""
    rng = np.random.default_rng(seed)
    light = np.zeros((2, SIDE, SIDE))
    for _ in range(int(20 * (4 / size) ** 2)):
        light += 400 * rng.uniform(0.8, 1.2) * blob((SIDE, SIDE), tuple(rng.uniform(0, SIDE, 2)), size)
    return np.clip(100 + light + rng.normal(0, 8, light.shape), 0, 4095)


def as_camera(image):
    """Open what a camera of 12 bit makes of light (channels, Y, X)."""
    return open_image(np.clip(np.rint(image), 0, 4095).astype(np.uint16), axes="CYX")


@pytest.fixture(scope="module")
def knowing():
    """Return a model that knows twenty such fields, with limits from ten others."""
    return known_by(lively_model().with_card(mean=(150.0, 150.0), std=(100.0, 100.0)), range(20), range(100, 110))


def known_by(model, known, held):
    classifier = Classifier(model, **EXACT)
    parts = []
    for seeds in (known, held):
        found = [classifier.vectors(as_camera(field(seed)), [0]) for seed in seeds]
        parts += [
            np.concatenate([one for one, _ in found]) if found else np.zeros((0, 0)),
            [x for _, y in found for x in y],
        ]
    return model.with_card(training=model.card.training.model_copy(update={"look": training_look(*parts)}))


def test_fields_like_those_of_training_are_not_unlike(knowing):
    found = [classify(knowing, as_camera(field(seed)), **EXACT) for seed in range(200, 206)]
    assert all(one.unlike[0] <= 1 and one.unlike_reasons == ("",) and one.top[0] for one in found)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda image: image * 0.3, "too dark"),
        (lambda image: image + 150, "background is too bright"),
        (lambda image: image * 16, "saturated"),
        (lambda image: ndimage.gaussian_filter(image, (0, 1.5, 1.5)), "blurred"),
        (lambda image: image + np.random.default_rng(1).normal(0, 40, image.shape), "noisier"),
    ],
)
def test_the_reason_names_what_was_changed(knowing, change, word):
    found = classify(knowing, as_camera(change(field(300))), **EXACT)
    assert found.unlike[0] > 1
    assert word in found.unlike_reasons[0]


def test_another_size_and_another_bit_depth_are_named(knowing):
    larger = classify(knowing, as_camera(field(300, size=16.0)), **EXACT)
    assert "larger objects" in larger.unlike_reasons[0]
    deeper = classify(knowing, open_image(field(300).astype(np.float32) / 4095, axes="CYX"), **EXACT)
    assert "GFP: another bit depth: its range of intensities is 0.0002" in deeper.unlike_reasons[0]


@pytest.fixture(scope="module")
def sized(knowing):
    """Return the same model, which also knows how large the objects of its training images are."""
    images = [as_camera(field(seed)) for seed in range(20)]
    sizes = [plane_object_size(model_input(knowing, image), 0) for image in images]
    known = (min(sizes), float(np.median(sizes)), max(sizes))
    look = knowing.card.training.look.model_copy(update={"object_sizes": known})
    return knowing.with_card(training=knowing.card.training.model_copy(update={"look": look}))


def test_the_relative_size_is_measured_over_images(sized, knowing):
    """Fields of objects of twice the size, and one that is empty."""
    images = [as_camera(ndimage.zoom(field(seed), (1, 2, 2), order=1)) for seed in range(500, 505)]
    images += [as_camera(np.full((2, SIDE, SIDE), 100.0))]
    assert relative_size(sized, images) == pytest.approx(2, rel=0.15)
    assert relative_size(sized, [as_camera(field(seed)) for seed in range(500, 505)]) == pytest.approx(1, rel=0.1)
    with pytest.raises(ImageError, match="no image shows anything above its noise"):
        relative_size(sized, images[-1:])
    with pytest.raises(ModelError, match="give relative_size as a number, or train the model anew"):
        relative_size(knowing, images)


def test_objects_beyond_what_phenotypes_explain_are_unlike(sized):
    """Although the statistics are those of the training images; both limits are told from sizes within them."""
    look, training = plane_look(model_input(sized, as_camera(field(300))), 0), sized.card.training.look
    smallest, typical, largest = training.object_sizes
    sizes = (None, 0.6 * smallest, smallest, typical, largest, 1.5 * largest)
    looks = [replace(look, object_size=size) for size in sizes]
    features = np.repeat(training.features.middle[None], len(looks), 0)
    values, reasons = unlike(sized, features, looks)
    assert list(values > 1) == [False, True, False, False, False, True]
    assert ["" if not why else why.split("; ")[0].partition(": ")[2] or why for why in reasons] == [
        "", "smaller objects", "", "", "", "larger objects",
    ]  # fmt: skip


def notes_on_size(model, image, **options):
    """Return the notes of a classification that name the option."""
    return [note for note in classify(model, image, **options, **EXACT).notes if "relative_size" in note]


def test_another_magnification_is_proposed(sized, knowing):
    """With the number that mends it; not once it is given, nor of a model that does not know."""
    image = as_camera(ndimage.zoom(field(300), (1, 3, 3), order=1))
    (note,) = notes_on_size(sized, image)
    assert note.startswith("its objects are about ")
    proposed = float(note.rpartition(" ")[2])
    assert proposed == pytest.approx(3, rel=0.2)
    (said,) = notes_on_size(sized, image, relative_size=proposed)
    assert said.startswith("the image was resampled by 0.3")
    assert notes_on_size(knowing, image) == notes_on_size(sized, as_camera(field(300))) == []
    reason, before = pixels_unlike(model_input(sized, image), 0)  # as a screen asks, without the network
    assert "larger objects" in reason
    assert before == note


def test_pixel_sizes_that_are_known_leave_nothing_to_propose(sized):
    """A model with a pixel size names that of the image; where both are known it is not a matter of size."""
    model = sized.with_card(pixel_size=0.6)
    pixels = np.clip(np.rint(ndimage.zoom(field(300), (1, 3, 3), order=1)), 0, 4095).astype(np.uint16)
    (told,) = notes_on_size(model, open_image(pixels, axes="CYX"))
    assert "give the pixel size of the image, about 0.2 µm, or relative_size " in told
    assert notes_on_size(model, open_image(pixels, axes="CYX", pixel_size=0.6)) == []


@pytest.mark.parametrize("level", [0, 100, 65535])
@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_a_plane_without_structure_has_no_class_and_no_masks(level, noise):
    """Also of a model that does not know its training images."""
    drawn = np.random.default_rng(0).normal(level, noise, (2, SIDE, SIDE))
    image = open_image(np.clip(drawn, 0, 65535).astype(np.uint16), axes="CYX")
    maker = EvidenceMaker(lively_model(), **EXACT)
    (result,) = [
        step.result
        for step in analyse(maker, [ImageRequest("x", lambda: image, masks=MaskOptions())])
        if hasattr(step.result, "prediction")
    ]
    assert result.prediction.top == (NO_CLASS,)
    assert result.prediction.unlike_reasons == (NO_STRUCTURE,)
    assert math.isnan(result.prediction.unlike[0])
    assert result.masks.labels.max() == 0


def test_where_training_images_are_empty_too_an_empty_plane_has_a_class(knowing):
    model = knowing.with_card(training=knowing.card.training.model_copy(update={"structureless": 3}))
    assert classify(model, as_camera(np.zeros((2, SIDE, SIDE))), **EXACT).top[0] in model.classes


def test_tiles_and_planes_do_not_change_the_answer(knowing):
    images = np.stack([field(seed) for seed in (400, 401)]).astype(np.uint16)  # (T, C, Y, X)
    whole, tiles = (classify(knowing, open_image(images, axes="TCYX"), **EXACT, **more) for more in ({}, {"tile": 99}))
    np.testing.assert_allclose(tiles.unlike, whole.unlike, rtol=1e-3)
    assert whole.only(1).unlike[0] == whole.unlike[1]
    alone = classify(knowing, as_camera(images[1]), **EXACT)
    np.testing.assert_allclose(alone.unlike[0], whole.unlike[1], rtol=1e-3)


def test_without_held_images_limits_come_from_halves():
    model = known_by(lively_model(), range(8), [])
    look = model.card.training.look
    assert (look.images, look.held) == (8, 0)
    assert classify(model, as_camera(field(200)), **EXACT).unlike[0] <= 1
    with pytest.raises(ModelError, match=r"3 training images are too few .* give at least 4"):
        known_by(lively_model(), range(3), [])


def test_the_distance_is_that_of_the_shrunk_covariance():
    """With every direction kept, a cloud has the Mahalanobis distance that scikit-learn's covariance gives."""
    from napari_milcnn.inference.unlike import _fitted

    vectors = np.random.default_rng(0).normal(size=(40, 6)) @ np.diag([1, 2, 3, 1, 1, 2])
    cloud = _fitted(vectors, np.zeros(1), 0.0)
    x = (vectors - vectors.mean(0)) / vectors.std(0)
    covariance, _ = ledoit_wolf(x, assume_centered=True)
    expected = [mahalanobis(one, np.zeros(6), np.linalg.inv(covariance)) for one in x]
    np.testing.assert_allclose(cloud.distances(vectors), expected, rtol=2e-3)  # axes are kept in half precision


def test_what_a_model_knows_is_saved_and_counts_in_its_digest(knowing, tmp_path):
    loaded = load_model(knowing.save(tmp_path / "model.zip"))
    assert loaded.digest == knowing.digest != lively_model().digest
    image = as_camera(field(300) * 0.3)
    assert classify(loaded, image, **EXACT).unlike == classify(knowing, image, **EXACT).unlike
    assert len(STATISTICS) * 2 == len(loaded.card.training.look.statistics.middle)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"centre": "no base64!"}, "base64|Non-base64|Incorrect padding|Only base64"),
        ({"variances": (1.0,)}, "sizes that agree"),
        ({"limit": -1.0}, "greater than 0"),
    ],
)
def test_a_damaged_look_is_refused(knowing, change, reason):
    facts = knowing.card.training.look.features.model_dump() | change
    with pytest.raises(ValueError, match=reason):
        Cloud.model_validate(facts)


def test_a_look_of_another_network_is_refused(knowing):
    facts = lively_model(widths=(6, 8, 8, 12, 12, 20)).card.model_dump() | {"training": knowing.card.training}
    with pytest.raises(ValueError, match="network with other features"):
        ModelCard.model_validate(facts)
