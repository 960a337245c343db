"""Evidence: class maps, objects, references; memory; a plane at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from conftest import blob, centroid, delta_model, lively_model, noise
from napari_milcnn.errors import ComputeError, ImageError, LabelsError, OptionsError
from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.class_maps import lay_over, relative_to_reference
from napari_milcnn.inference.evidence import _WORK_MEMORY, EvidenceMaker, evidence, suited_evidence
from napari_milcnn.inference.predict import Classifier, classify
from napari_milcnn.inference.tiling import TiledInference
from napari_milcnn.model.card import OwnEvidence
from napari_milcnn.model.trained_model import TrainedModel, card_text
from napari_milcnn.options import ForegroundOptions

EXACT: dict[str, Any] = {"device": "cpu", "precision": "float32"}
CHANNELS = ["GFP", "RFP"]


def stack(*shape: int, axes: str = "CYX", **more: Any) -> ImageStack:
    """Open noise of the channels GFP and RFP."""
    return open_image(noise(*shape), axes=axes, channels=CHANNELS, **more)


@pytest.mark.parametrize("kind", ["object", "class_map", "class_map_image", "jacobian"])
def test_classes_are_chosen_by_name(compact: TrainedModel, kind: Any) -> None:
    """Evidence for c and a has these classes in this order."""
    image = stack(2, 100, 120)
    every = evidence(compact, image, kind=kind, **EXACT)
    some = evidence(compact, image, ["c", "a"], kind=kind, **EXACT)
    assert some.classes == ("c", "a")
    np.testing.assert_array_equal(some.maps, every.maps[:, [2, 0]])


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        (["a", "d"], "the model does not know the class d; its classes: a, b, c"),
        ("a", r"classes is 'a'; expected a list of names, such as \['a'\]"),
        ([], r"classes is \[\]; expected one or more different names out of: a, b, c"),
        (["a", "b", "a"], r"classes is \['a', 'b', 'a'\]; expected one or more different names"),
    ],
)
def test_wrong_classes_are_refused(compact: TrainedModel, classes: Any, sentence: str) -> None:
    """Unknown names, a bare string, no names and repeated names are refused, each with its message."""
    with pytest.raises(OptionsError, match=sentence):
        evidence(compact, stack(2, 100, 120), classes, **EXACT)


def test_class_map_evidence_is_the_map_laid_over(compact: TrainedModel) -> None:
    """Each class's p, laid over the image where the prediction places it."""
    model = lively_model(pixel_size=1.0)
    image = stack(2, 2, 203, 261, axes="ZCYX", pixel_size=0.6)
    found = evidence(model, image, kind="class_map", **EXACT)
    prediction = classify(model, image, **EXACT)
    assert found.pixel_size == 0.6
    assert found.maps.shape == (2, 3, 203, 261)
    np.testing.assert_allclose(found.maps, lay_over(prediction.class_maps, prediction.placement, (203, 261)), atol=1e-6)


def test_a_prediction_is_not_made_twice(compact: TrainedModel, monkeypatch: Any) -> None:
    """With prediction= the network is not run forward again, and the evidence carries that prediction."""
    image = stack(2, 100, 120)
    prediction = classify(compact, image, **EXACT)
    expected = evidence(compact, image, kind="class_map", **EXACT).maps

    def never(*_: Any) -> None:
        raise AssertionError("run again")

    monkeypatch.setattr(TiledInference, "encode", never)
    found = evidence(compact, image, kind="class_map", prediction=prediction, **EXACT)
    assert found.prediction is prediction
    assert (found.maps == expected).all()
    with pytest.raises(AssertionError, match="run again"):
        evidence(compact, image, kind="class_map", **EXACT)


def test_thresholds_come_from_the_card(compact: TrainedModel) -> None:
    """The thresholds are those of the kind of evidence, if the card has any."""
    model = compact.with_card(thresholds={"object": {"a": 0.3}, "jacobian": {"b": 7.0}})
    for kind, expected in (("object", {"a": 0.3}), ("jacobian", {"b": 7.0}), ("class_map", {})):
        assert evidence(model, stack(2, 80, 80), kind=kind, **EXACT).thresholds == expected


def test_unknown_options_are_refused(compact: TrainedModel) -> None:
    """A misspelt option and an unknown kind are refused."""
    with pytest.raises(OptionsError, match="no option 'thresh'"):
        evidence(compact, stack(2, 80, 80), thresh=1)
    with pytest.raises(OptionsError, match="option 'kind' is 'gradcam'"):
        evidence(compact, stack(2, 80, 80), kind="gradcam")


# Class maps at a finer step, and times the image


@pytest.mark.parametrize(("detail", "tile"), [(2, None), (4, None), (4, 120)])
def test_detail_equals_the_network_run_at_every_step(compact: TrainedModel, detail: int, tile: int | None) -> None:
    """Each value of a map at stride / detail is what the network says about the 67 px there, tiled or not."""
    image = stack(2, 97, 131)
    classifier = Classifier(compact, tile=tile, **EXACT)
    chosen = classifier.model_input(image)
    coarse = classifier.classify(image).class_maps[0][[2, 0]]
    fine = np.concatenate([*classifier.inference.finer_maps(chosen, 0, coarse, [2, 0], detail)], 1)
    step, pixels = 16 // detail, chosen.read(0)
    assert fine.shape == (2, (97 - 67) // step + 1, (131 - 67) // step + 1)
    crops = np.lib.stride_tricks.sliding_window_view(pixels, (67, 67), (1, 2))[:, ::step, ::step]
    crops = crops.transpose(1, 2, 0, 3, 4).reshape(-1, 2, 67, 67)
    dense = torch.from_numpy(classifier.inference.instances(crops.copy())).sigmoid().numpy()
    np.testing.assert_allclose(fine, dense.T[[2, 0]].reshape(fine.shape), atol=1e-5)
    np.testing.assert_array_equal(fine[:, ::detail, ::detail], coarse)


def test_finer_class_maps_lie_at_their_pixels() -> None:
    """A spot in an image of half the pixel size: at a step of 4 px of the model the map is centred on it to 4 px."""
    image = open_image(2 * blob((400, 480), (200, 246), 12)[None], axes="CYX", channels=["c0"], pixel_size=0.5)
    maps = evidence(delta_model(pixel_size=1.0), image, kind="class_map", detail=4, **EXACT).maps[0, 0]
    y, x = centroid(maps > maps.max() / 2)
    assert (y, x) == (pytest.approx(200, abs=4), pytest.approx(246, abs=4))


def test_class_map_times_image_by_hand(compact: TrainedModel) -> None:
    """The class map times the mean brightness of the model's channels: 0 where both are dark, p where both shine."""
    pixels = np.full((3, 100, 110), 60, np.uint16)
    pixels[0, 10:60, 30:80], pixels[2, 40:90, 30:80] = 200, 900
    image = open_image(pixels, axes="CYX", channels=["RFP", "DAPI", "GFP"])
    plain = evidence(compact, image, kind="class_map", **EXACT).maps[0]
    found = evidence(compact, image, kind="class_map_image", **EXACT).maps[0]
    for row, share in ((5, 0), (20, 0.5), (50, 1), (80, 0.5)):
        np.testing.assert_allclose(found[:, row, 50], share * plain[:, row, 50], rtol=1e-5)
    flat = open_image(np.full((2, 100, 110), 60, np.uint16), axes="CYX", channels=CHANNELS)
    assert (evidence(compact, flat, kind="class_map_image", **EXACT).maps == 0).all()


def test_the_kind_is_the_models_own_where_none_is_asked_for(compact: TrainedModel) -> None:
    """Objects where the card says nothing; the card's detail goes with the card's kind only."""
    assert EvidenceMaker(compact).options.kind == "object"
    own = compact.with_card(evidence=OwnEvidence(kind="class_map_image", detail=4, reason="a lawn"))
    for given, expected in (
        ({}, ("class_map_image", 4)),
        ({"detail": 2}, ("class_map_image", 2)),
        ({"kind": "class_map"}, ("class_map", 1)),
    ):
        options = EvidenceMaker(own, **given).options
        assert (options.kind, options.detail) == expected
    assert "class_map_image: a lawn" in card_text(own)
    cells = np.ones((90, 100), int)
    assert evidence(own, stack(2, 90, 100), foreground=cells, **EXACT).kind == "object"
    assert compact.with_card(evidence=None).digest == compact.digest
    with pytest.raises(OptionsError, match="option 'detail' is 3: expected 1, 2 or 4"):
        EvidenceMaker(compact, detail=3)


def test_the_kind_that_suits_is_objects_where_these_are_alike(compact: TrainedModel) -> None:
    """Six discs of one size in most images: objects. Pieces of all sizes, or none: the class map at detail 4."""
    discs, rng = np.zeros((2, 160, 240), np.float32), np.random.default_rng(0)
    for number in range(6):
        discs += 100 * (blob((160, 240), (40 + 80 * (number // 3), 40 + 80 * (number % 3)), 6) > 0.3)
    texture = [100 * ndimage.gaussian_filter(rng.normal(0, 1, (160, 240)), 2) + 50 for _ in range(2)]

    def images(*pixels: Any) -> list[Any]:
        return [partial(open_image, np.asarray(one, np.float32), axes="CYX", channels=CHANNELS) for one in pixels]

    own = suited_evidence(compact, images(discs, discs, texture))
    assert (own.kind, own.reason) == ("object", "2 of 3 images have several objects of one size")
    own = suited_evidence(compact, images(discs, texture, np.zeros((2, 160, 240))))
    assert (own.kind, own.detail) == ("class_map_image", 4)
    assert own.reason == "only 1 of 3 images have several objects of one size"


# Objects


def test_objects_carry_the_mean_of_the_class_map(compact: TrainedModel) -> None:
    """Inside each object of one's own the mean of the class map, outside 0; numbers may have gaps, and be uint8."""
    image = stack(2, 150, 180)
    labels = np.zeros((150, 180), np.uint8)
    labels[10:30, 20:50], labels[100:140, 90:170] = 3, 255
    found = evidence(compact, image, kind="object", foreground=labels, **EXACT)
    laid = evidence(compact, image, kind="class_map", **EXACT).maps[0]
    for index in range(3):
        for number in (3, 255):
            inside = found.maps[0, index][labels == number]
            assert np.ptp(inside) == 0
            assert inside[0] == pytest.approx(laid[index][labels == number].mean(), abs=1e-5)
    assert (found.maps[0][:, labels == 0] == 0).all()
    assert found.objects is not None
    assert found.objects.dtype == np.int32
    assert (found.objects[0] == labels).all()


def test_objects_over_the_whole_plane_and_none_at_all(compact: TrainedModel) -> None:
    """One object everywhere carries the map's mean; a plane without objects carries 0."""
    image = stack(2, 2, 90, 100, axes="TCYX")
    labels = np.zeros((2, 90, 100), np.int64)
    labels[0] = 1
    found = evidence(compact, image, ["b"], foreground=labels, **EXACT)
    laid = evidence(compact, image, ["b"], kind="class_map", **EXACT).maps
    np.testing.assert_allclose(found.maps[0, 0], laid[0, 0].mean(), atol=1e-5)
    assert (found.maps[1] == 0).all()


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (
            np.ones((90, 101), int),
            "the labels are 90 x 101 px, but the image is 2 planes of 90 x 100 px; choose labels",
        ),
        (
            np.ones((90, 100), int),
            "the labels are 90 x 100 px, but the image is 2 planes of 90 x 100 px; choose labels",
        ),
        (np.full((2, 90, 100), 0.5), "18000 pixels with fractions, such as 0.5"),
    ],
)
def test_label_images_that_do_not_fit_are_refused(compact: TrainedModel, labels: np.ndarray, sentence: str) -> None:
    """Labels are checked before anything is computed."""
    with pytest.raises(LabelsError, match=sentence):
        evidence(compact, stack(2, 2, 90, 100, axes="TCYX"), foreground=labels, **EXACT)


def squares() -> ImageStack:
    """Draw one bright square per channel: RFP at rows 10 to 30, DAPI at 40 to 60, GFP at 70 to 90."""
    pixels = np.full((3, 100, 110), 60, np.uint16)
    for channel, row in enumerate((10, 40, 70)):
        pixels[channel, row : row + 20, 30:50] = 200
    return open_image(pixels, axes="CYX", channels=["RFP", "DAPI", "GFP"])


@pytest.mark.parametrize(("channel", "row"), [(None, 70), ("GFP", 70), ("RFP", 10), ("DAPI", 40)])
def test_the_foreground_is_found_in_the_channel_named(compact: TrainedModel, channel: str | None, row: int) -> None:
    """The channel has the model's name, else the image's; the default is the model's first channel."""
    options = ForegroundOptions(channel=channel, smooth=0)
    for found in (
        evidence(compact, squares(), foreground=options, **EXACT),
        evidence(compact.with_card(foreground=options), squares(), **EXACT),
    ):
        assert found.objects is not None
        expected = np.zeros((100, 110), int)
        expected[row : row + 20, 30:50] = 1
        assert (found.objects[0] == expected).all()
        assert (found.maps[0][:, expected == 1] > 0).all()
        assert (found.maps[0][:, expected == 0] == 0).all()


def test_the_models_name_of_a_channel_wins_where_channels_go_by_order(compact: TrainedModel) -> None:
    """Channels without names are taken by order and keep the model's: RFP is then the second channel of the array."""
    image = open_image(squares().data[:2], axes="CYX")
    for name in ("RFP", image.channels[1]):
        found = evidence(compact, image, foreground=ForegroundOptions(channel=name, smooth=0), **EXACT)
        assert found.objects is not None
        assert (np.flatnonzero(found.objects[0].any(1)) == range(40, 60)).all()


def test_an_unknown_foreground_channel_is_refused(compact: TrainedModel) -> None:
    """The message has the channels of the model and of the image."""
    sentence = r"'CFP' is neither in the model \(GFP, RFP\) nor in image \(RFP, DAPI, GFP\)"
    with pytest.raises(ImageError, match=sentence):
        evidence(compact, squares(), foreground=ForegroundOptions(channel="CFP"), **EXACT)


# Memory


def test_evidence_too_large_for_memory_is_refused(compact: TrainedModel, monkeypatch: Any) -> None:
    """Three classes of 100 x 100 px need 3 * 4 * 3 * 10,000 = 360,000 bytes and room to work in; one class a third."""
    room = 10_000 * _WORK_MEMORY
    monkeypatch.setattr("napari_milcnn.inference.evidence.free_memory", lambda _: 359_999 + room)
    with pytest.raises(
        ComputeError, match=r"evidence for 3 classes in 1 plane\(s\) of 100 x 100 px needs .* fewer classes"
    ):
        evidence(compact, stack(2, 100, 100), kind="class_map", **EXACT)
    assert evidence(compact, stack(2, 100, 100), ["a"], kind="class_map", **EXACT).maps.shape == (1, 1, 100, 100)


# A plane at a time


def test_planes_come_one_at_a_time(compact: TrainedModel, monkeypatch: Any) -> None:
    """The maker reads a plane only when its generator yields the plane's evidence."""
    image = stack(3, 2, 80, 90, axes="TCYX")
    maker = EvidenceMaker(compact, kind="jacobian", **EXACT)
    prediction = maker.classifier.classify(image)
    read: list[int] = []
    plane = ImageStack.plane
    monkeypatch.setattr(ImageStack, "plane", lambda self, i, *more: (read.append(i), plane(self, i, *more))[1])
    planes: Iterator[Any] = maker.planes(image, prediction, ["b"])
    assert read == []
    first = next(planes)
    assert (first.plane, first.maps.shape, first.objects) == (0, (1, 80, 90), None)
    assert set(read) == {0}
    assert [one.plane for one in planes] == [1, 2]


def test_against_a_reference_by_hand() -> None:
    """Class p = .3 (odds 3/7) against a reference of p = .03 (odds 3/97): 97 / 104; the reference keeps its p."""
    maps = np.array([0.3, 0.03], np.float32)[:, None, None]
    np.testing.assert_allclose(relative_to_reference(maps, 1).ravel(), [97 / 104, 0.03], rtol=1e-5)
    extremes = relative_to_reference(np.array([1.0, 0.0, 0.0], np.float32)[:, None, None], 2)
    np.testing.assert_allclose(extremes.ravel(), [1.0, 0.5, 0.0], atol=1e-6)


def test_object_evidence_is_read_against_the_reference(compact: TrainedModel) -> None:
    """Only object evidence changes, one half is its threshold, and a threshold on the card wins."""
    image, cells = stack(2, 150, 150), np.zeros((150, 150), int)
    cells[60:90, 60:90] = 1
    model = compact.with_card(reference="b", thresholds={"object": {"c": 0.2}})
    plain, found = (evidence(one, image, foreground=cells, **EXACT) for one in (compact, model))
    laid = lay_over(relative_to_reference(plain.prediction.class_maps[0], 1), plain.prediction.placement, (150, 150))
    for i in (0, 2):
        assert found.maps[0, i, 75, 75] == pytest.approx(laid[i, 60:90, 60:90].mean(), rel=1e-5)
    np.testing.assert_array_equal(found.maps[:, 1], plain.maps[:, 1])
    assert found.thresholds == {"a": 0.5, "c": 0.2}
    raw = [evidence(one, image, kind="class_map", **EXACT).maps for one in (compact, model)]
    np.testing.assert_array_equal(*raw)


def test_a_reference_is_one_of_the_classes(compact: TrainedModel) -> None:
    """The message lists the classes of the model."""
    with pytest.raises(OptionsError, match="reference class 'control' is not among the classes: a, b, c"):
        compact.with_card(reference="control")


def test_evidence_of_a_classification_at_another_size_is_refused():
    """Its class maps lie elsewhere; so a dock whose option was changed meanwhile asks for a new classification."""
    model = lively_model()
    image = open_image(np.random.default_rng(0).integers(0, 900, (2, 150, 160), np.uint16), axes="CYX")
    prediction = classify(model, image, device="cpu")
    with pytest.raises(OptionsError, match="classify this image again"):
        next(EvidenceMaker(model, device="cpu", relative_size=2.0).planes(image, prediction))
