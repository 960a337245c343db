"""From evidence to masks: thresholds, the strongest class, clean-up, and a table that a person can work out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from skimage.filters import threshold_otsu

from conftest import lively_model, no_bags, noise
from napari_milcnn.errors import OptionsError
from napari_milcnn.images.open import open_image
from napari_milcnn.images.stack import PlaneIndex
from napari_milcnn.inference.class_maps import MapPlacement
from napari_milcnn.inference.evidence import Evidence, evidence
from napari_milcnn.inference.masks import class_image, otsu_of_logarithm, segment
from napari_milcnn.inference.predict import Prediction, classify

COLUMNS = ["plane", "label", "class", "shown", "area_px", "area_um2", "y", "x", "mean_evidence", "score"]


def evidence_of(
    *planes: Any,
    scores: Any = (0.9, 0.9),
    objects: Any = None,
    pixel_size: float | None = None,
    thresholds: dict[str, float] | None = None,
    requested: tuple[str, ...] = ("a", "b"),
) -> Evidence:
    """Make evidence of the classes a and b by hand; each plane is (classes, Y, X), `scores` one row for all or each."""
    maps = np.stack(planes).astype(np.float32)
    values = np.broadcast_to(np.array(scores, np.float32), (len(maps), 2)).copy()
    indices = tuple(PlaneIndex(0, t, 0) for t in range(len(maps)))
    prediction = Prediction(
        ("a", "b"), values, values, maps[:, :, :1, :1], indices, MapPlacement(1, 0, 0), "image", (), "cpu", 0.0,
        np.zeros(len(maps), np.float32), ("",) * len(maps), np.ones(len(maps), bool), no_bags(len(maps), 2),
    )  # fmt: skip
    kind = "class_map" if objects is None else "object"
    held = None if objects is None else np.asarray(objects, np.int32)
    return Evidence(requested, kind, maps, held, prediction, pixel_size, thresholds or {})


def two_squares(a: float = 0.8, b: float = 0.6) -> np.ndarray:
    """Class a at rows 10 to 19, columns 20 to 29; class b at rows 30 to 39, columns 5 to 24: (2, 50, 60)."""
    maps = np.zeros((2, 50, 60))
    maps[0, 10:20, 20:30] = a
    maps[1, 30:40, 5:25] = b
    return maps


# Thresholds


def two_populations() -> tuple[np.ndarray, np.ndarray]:
    """Draw log-normal evidence: 9,000 px around 1, and 1,000 px around e^4, of which the best have hundreds."""
    rng = np.random.default_rng(0)
    return np.exp(rng.normal(0, 0.4, 9000)), np.exp(rng.normal(4, 0.6, 1000))


def test_otsu_of_the_logarithm_tells_two_log_normal_populations_apart() -> None:
    """It cuts between them, where Otsu on the values themselves cuts through the upper one."""
    low, high = two_populations()
    both = np.concatenate([low, high]).reshape(100, 100).astype(np.float32)
    threshold = otsu_of_logarithm(both)
    assert np.exp(1) < threshold < np.exp(3)
    assert (low > threshold).mean() < 0.01
    assert (high < threshold).mean() < 0.01
    assert (high < threshold_otsu(both)).mean() > 0.2


def test_otsu_of_the_logarithm_does_not_look_at_nothing() -> None:
    """Zeros and evidence below a thousandth of the strongest change nothing."""
    low, high = two_populations()
    some = np.concatenate([low, high])
    more = np.concatenate([some, np.zeros(50_000), np.full(5000, 1e-4), [-3.0]])
    assert otsu_of_logarithm(more[None]) == otsu_of_logarithm(some[None])


@pytest.mark.parametrize("value", [0.1, 1.0, 37.5])
def test_the_threshold_of_a_constant_map_is_half_of_it(value: float) -> None:
    """A map of one value, or of one value and zeros, has no two populations."""
    assert otsu_of_logarithm(np.full((9, 9), value, np.float32)) == pytest.approx(value / 2)
    half = np.zeros((9, 9), np.float32)
    half[3:5] = value
    assert otsu_of_logarithm(half) == pytest.approx(value / 2)


@pytest.mark.parametrize("spread", [1e-3, 1e-5, 1e-6, 1e-7])
def test_the_threshold_of_a_nearly_constant_map(spread: float) -> None:
    """A map that hardly varies, as of a saturated network, has a threshold all the same."""
    one = (0.1 * (1 + spread * np.random.default_rng(0).random((50, 50)))).astype(np.float32)
    assert 0.04 < otsu_of_logarithm(one) <= one.max()


def test_the_threshold_of_nothing_lets_nothing_through() -> None:
    """Maps of zeros and of negative values have no pixels above their threshold."""
    for value in (0.0, -2.0):
        one = np.full((5, 5), value, np.float32)
        assert not (one > max(otsu_of_logarithm(one), 0)).any()


def ramp() -> np.ndarray:
    """Evidence 0.00, 0.01, ..., 0.99 for class a, row by row: (2, 10, 10)."""
    return np.stack([np.arange(100).reshape(10, 10) / 100, np.zeros((10, 10))])


@pytest.mark.parametrize(
    ("threshold", "own", "pixels"),
    [
        (0.695, {}, 30),
        ("0.695", {}, 30),
        ("q0.9", {}, 10),
        ("q0", {}, 99),
        ("q1", {}, 0),
        ("auto", {"a": 0.895}, 10),
        ("otsu", {"a": 0.895}, None),
        ("auto", {"b": 0.895}, None),
        ("auto", {}, None),
    ],
)
def test_threshold_rules(threshold: Any, own: dict[str, float], pixels: int | None) -> None:
    """The threshold is a number, a quantile, the one on the model's card, or Otsu on the logarithm."""
    masks = segment(evidence_of(ramp(), thresholds=own), threshold=threshold, min_size=0)
    expected = (ramp()[0] > otsu_of_logarithm(ramp()[0].astype(np.float32))).sum()
    assert (masks.labels > 0).sum() == (expected if pixels is None else pixels)
    assert set(masks.thresholds[0]) == {"a", "b"}


def test_a_class_may_have_a_threshold_of_its_own() -> None:
    """Class b at 0.7 loses its square of 0.6; class a stays as it was, whatever rule it goes by."""
    for threshold, own in ((0.5, {}), ("otsu", {}), ("auto", {"a": 0.4, "b": 0.4}), ("q0.9", {})):
        shown = evidence_of(two_squares(), thresholds=own)
        before, after = (
            segment(shown, threshold=threshold),
            segment(shown, threshold=threshold, class_thresholds={"b": 0.7}),
        )
        assert before.objects["class"].tolist() == ["a", "b"]
        pd.testing.assert_frame_equal(after.objects, before.objects.iloc[:1])
        assert after.thresholds[0] == {"a": before.thresholds[0]["a"], "b": 0.7}


def test_a_threshold_for_an_unknown_class_is_refused() -> None:
    """The message has all classes of the model, also one that was not requested."""
    assert segment(evidence_of(two_squares()[:1], requested=("a",)), class_thresholds={"b": 0.7}).thresholds[
        0
    ].keys() == {"a"}
    with pytest.raises(
        OptionsError, match="a threshold is given for 'c', which the model does not know; its classes: a, b"
    ):
        segment(evidence_of(two_squares()), class_thresholds={"a": 0.1, "c": 0.7})
    with pytest.raises(OptionsError, match=r"option 'class_thresholds.a' is 'high': Input should be a valid number"):
        segment(evidence_of(two_squares()), class_thresholds={"a": "high"})
    with pytest.raises(OptionsError, match=r"option 'class_thresholds.a' is inf: Input should be a finite number"):
        segment(evidence_of(two_squares()), class_thresholds={"a": float("inf")})


@pytest.mark.parametrize("threshold", ["best", "q1.5", "q", "qx", "-q0.5"])
def test_unknown_thresholds_are_refused(threshold: str) -> None:
    """The message says what is expected."""
    with pytest.raises(OptionsError, match=r"option 'threshold' is .*(a quantile such as q0\.95|between q0 and q1)"):
        segment(evidence_of(ramp()), threshold=threshold)


def test_unknown_options_are_refused() -> None:
    """The message for a misspelt option lists the options."""
    with pytest.raises(
        OptionsError, match="no option 'minsize'; expected one of threshold, class_thresholds, present, smooth"
    ):
        segment(evidence_of(ramp()), minsize=3)


# The table


@pytest.mark.parametrize("pixel_size", [0.5, None])
def test_the_table_in_numbers(pixel_size: float | None) -> None:
    """Squares of 100 and 200 px, 25 and 50 µm² at 0.5 µm; centroids at their middles; the means that were put in."""
    masks = segment(evidence_of(two_squares(), scores=(0.9, 0.7), pixel_size=pixel_size), threshold=0.5)
    table = masks.objects
    assert list(table) == COLUMNS
    assert table["plane"].tolist() == [0, 0]
    assert table["label"].tolist() == [1, 2]
    assert table["class"].tolist() == ["a", "b"]
    assert table["area_px"].tolist() == [100, 200]
    assert table[["y", "x"]].to_numpy().tolist() == [[14.5, 24.5], [34.5, 14.5]]
    np.testing.assert_allclose(table["mean_evidence"], [0.8, 0.6], atol=1e-6)
    np.testing.assert_allclose(table["score"], [0.9, 0.7], atol=1e-6)
    if pixel_size is None:
        assert table["area_um2"].isna().all()
    else:
        assert table["area_um2"].tolist() == [25, 50]
    assert masks.labels.dtype == np.int32
    assert masks.labels.shape == (1, 50, 60)
    assert (masks.labels[0, 10:20, 20:30] == 1).all()
    assert (masks.labels[0, 30:40, 5:25] == 2).all()
    assert (masks.labels > 0).sum() == 300
    assert masks.classes == ("a", "b")
    assert masks.thresholds == ({"a": 0.5, "b": 0.5},)


def test_the_mean_is_of_the_objects_own_class() -> None:
    """Where both classes have evidence, the table has the mean evidence of the class that gets the object."""
    maps = two_squares(a=0.8)
    maps[1, 10:20, 20:30] = 0.3
    maps[0, 10:15, 20:30] = 0.9
    table = segment(evidence_of(maps), threshold=0.2).objects
    np.testing.assert_allclose(table["mean_evidence"], [0.85, 0.6], atol=1e-6)


def test_class_image() -> None:
    """1 for the first class, 2 for the second, 0 for none; by the order of `classes`, not of the table."""
    masks = segment(evidence_of(two_squares()), threshold=0.5)
    picture = masks.class_image
    assert picture.dtype == np.uint16
    assert (picture[0, 10:20, 20:30] == 1).all()
    assert (picture[0, 30:40, 5:25] == 2).all()
    assert (picture > 0).sum() == 300
    turned = class_image(masks.labels[0], masks.objects.iloc[::-1], ("b", "a"))
    assert (turned[10:20, 20:30] == 2).all()
    assert class_image(np.zeros((3, 4), np.int32), masks.objects.iloc[:0], ("a", "b")).tolist() == [[0] * 4] * 3


def assert_types(table: pd.DataFrame) -> None:
    """Check columns and their types, the same whether or not there are rows."""
    assert list(table)[: len(COLUMNS)] == COLUMNS
    assert all(name.startswith("evidence ") for name in list(table)[len(COLUMNS) :])
    for name in ("plane", "label"):
        assert pd.api.types.is_integer_dtype(table[name]), name
    for name in ("area_px", "area_um2", "y", "x", "mean_evidence", "score"):
        assert pd.api.types.is_float_dtype(table[name]), name
    assert pd.api.types.is_string_dtype(table["class"])


@pytest.mark.parametrize("threshold", ["auto", "otsu", 0.0, "q0.5"])
def test_no_evidence_gives_no_objects(threshold: Any) -> None:
    """A map of zeros: no objects; the table is empty, with its columns and their types, as one with rows has."""
    masks = segment(evidence_of(np.zeros((2, 30, 40))), threshold=threshold, min_size=0)
    assert masks.labels.shape == (1, 30, 40)
    assert masks.labels.max() == 0
    assert masks.class_image.max() == 0
    assert len(masks.objects) == 0
    assert_types(masks.objects)
    assert_types(segment(evidence_of(two_squares()), threshold=0.5).objects)


def test_negative_evidence_gives_no_objects() -> None:
    """The plain gradient may lie below zero everywhere."""
    for threshold in ("otsu", -5.0, "q0.5"):
        assert segment(evidence_of(-1 - two_squares()), threshold=threshold, min_size=0).labels.max() == 0


def test_several_planes() -> None:
    """Numbers begin anew in each plane; the table says which; an empty plane between changes no type."""
    masks = segment(
        evidence_of(
            two_squares(), np.zeros((2, 50, 60)), two_squares(b=0), scores=[(0.9, 0.7), (0.5, 0.6), (0.8, 0.1)]
        ),
        threshold=0.5,
    )
    assert masks.labels.shape == (3, 50, 60)
    assert masks.objects["plane"].tolist() == [0, 0, 2]
    assert masks.objects["label"].tolist() == [1, 2, 1]
    assert masks.objects["class"].tolist() == ["a", "b", "a"]
    np.testing.assert_allclose(masks.objects["score"], [0.9, 0.7, 0.8], atol=1e-6)
    assert masks.objects.index.tolist() == [0, 1, 2]
    assert_types(masks.objects)
    assert [plane.max() for plane in masks.class_image] == [2, 0, 1]
    assert [set(used) for used in masks.thresholds] == [{"a", "b"}, {"a", "b"}, {"a"}]


# The strongest class, and classes that are present


def test_the_strongest_wins() -> None:
    """Where two squares overlap, the stronger class gets the pixels, and the other class gets the rest."""
    maps = np.zeros((2, 40, 60))
    maps[0, 10:30, 10:30] = 0.6
    maps[1, 10:30, 20:40] = 0.7
    masks = segment(evidence_of(maps), threshold=0.5)
    assert masks.objects["area_px"].tolist() == [200, 400]
    assert (masks.class_image[0, 10:30, 20:40] == 2).all()
    assert (masks.class_image[0, 10:30, 10:20] == 1).all()


def test_only_evidence_above_the_own_threshold_claims() -> None:
    """Class a is stronger everywhere but below its own threshold; class b has the square."""
    maps = np.full((2, 30, 30), 0.0)
    maps[:, 5:15, 5:15] = [[[0.8]], [[0.3]]]
    masks = segment(evidence_of(maps, thresholds={"a": 0.9, "b": 0.2}))
    assert masks.objects["class"].tolist() == ["b"]


@pytest.mark.parametrize(
    ("scores", "present", "classes"),
    [
        ((0.9, 0.7), 0.5, ["a", "b"]),
        ((0.9, 0.1), 0.5, ["a"]),
        ((0.2, 0.3), 0.5, ["b"]),  # the top class, though it does not reach .5
        ((0.2, 0.3), 0.0, ["a", "b"]),
        ((0.9, 0.95), 1.0, ["b"]),
        ((0.5, 0.9), 0.5, ["a", "b"]),
    ],
)
def test_only_present_classes_give_masks(scores: Any, present: float, classes: list[str]) -> None:
    """These are the classes whose score reaches `present`, and the top class; with 0 all classes get masks."""
    masks = segment(evidence_of(two_squares(), scores=scores), threshold=0.5, present=present)
    assert masks.objects["class"].tolist() == classes
    assert list(masks.thresholds[0]) == classes


def test_classes_asked_for_in_another_order() -> None:
    """Scores and names follow the evidence's classes, not the model's."""
    maps = two_squares()[::-1]
    table = segment(evidence_of(maps, scores=(0.9, 0.7), requested=("b", "a")), threshold=0.5).objects
    assert table["class"].tolist() == ["b", "a"]
    assert table["area_px"].tolist() == [200, 100]
    np.testing.assert_allclose(table["score"], [0.7, 0.9], atol=1e-6)


# Clean-up


@pytest.mark.parametrize(("size", "areas"), [(0, [9, 100]), (9, [9, 100]), (10, [100]), (101, [])])
def test_small_objects_are_dropped(size: int, areas: list[int]) -> None:
    """Squares of 3 and 10 px a side, by the smallest area kept; numbers stay without gaps."""
    maps = np.zeros((2, 40, 40))
    maps[0, 2:5, 2:5] = maps[0, 20:30, 20:30] = 0.8
    masks = segment(evidence_of(maps), threshold=0.5, min_size=size)
    assert masks.objects["area_px"].tolist() == areas
    assert masks.objects["label"].tolist() == [*range(1, len(areas) + 1)]


@pytest.mark.parametrize(("fill", "area"), [(True, 400), (False, 364)])
def test_holes_are_filled(fill: bool, area: int) -> None:
    """A square of 20 px with a hole of 6 px a side."""
    maps = np.zeros((2, 40, 40))
    maps[0, 10:30, 10:30] = 0.8
    maps[0, 15:21, 15:21] = 0
    assert segment(evidence_of(maps), threshold=0.5, fill_holes=fill).objects["area_px"].tolist() == [area]


@pytest.mark.parametrize("outer", [0, 1])
def test_a_hole_that_another_class_fills_stays_its(outer: int) -> None:
    """The class inside the other's ring keeps its pixels; the gap between them goes to the ring."""
    maps = np.zeros((2, 40, 40))
    maps[outer, 10:30, 10:30] = 0.8
    maps[outer, 13:27, 13:27] = 0
    maps[1 - outer, 16:24, 16:24] = 0.7
    masks = segment(evidence_of(maps), threshold=0.5)
    assert masks.objects["class"].tolist() == ["a", "b"]
    assert masks.objects["area_px"].tolist() == ([400 - 64, 64] if outer == 0 else [64, 400 - 64])


def test_smoothing_closes_gaps_and_removes_specks() -> None:
    """A gap of one pixel between two halves goes, and a speck of one pixel; the area stays about the same."""
    maps = np.zeros((2, 50, 60))
    maps[0, 10:30, 10:30] = 0.8
    maps[0, 10:30, 20] = 0
    maps[0, 45, 50] = 0.8
    rough = segment(evidence_of(maps), threshold=0.4, min_size=0)
    smooth = segment(evidence_of(maps), threshold=0.4, min_size=0, smooth=2)
    assert len(rough.objects) == 3
    assert smooth.objects["area_px"].tolist() == pytest.approx([380], rel=0.1)


def touching_discs() -> np.ndarray:
    """Two discs of class a, radius 10, 18 px apart: (2, 60, 80)."""
    y, x = np.indices((60, 80))
    maps = np.zeros((2, 60, 80))
    maps[0][((y - 30) ** 2 + (x - 30) ** 2 <= 100) | ((y - 30) ** 2 + (x - 48) ** 2 <= 100)] = 0.8
    return maps


@pytest.mark.parametrize(("split", "count"), [(0, 1), (10, 2)])
def test_touching_objects_are_split(split: float, count: int) -> None:
    """Two discs whose centres lie 18 px apart."""
    masks = segment(evidence_of(touching_discs()), threshold=0.5, split=split)
    assert len(masks.objects) == count
    assert (masks.labels[0] > 0).sum() == (touching_discs()[0] > 0).sum()


# Object evidence


def test_objects_keep_their_outlines() -> None:
    """Whatever the smoothing, filling and splitting: each object is kept whole, with its number, or dropped whole."""
    y, x = np.indices((60, 80))
    objects = np.zeros((1, 60, 80), np.int32)
    ring = abs(np.hypot(y - 20, x - 20) - 10) < 3
    objects[0][ring], objects[0, 40:42, 5:75], objects[0, 50:55, 10:20] = 7, 3, 12
    maps = np.zeros((2, 60, 80))
    maps[0][objects[0] == 7], maps[1][objects[0] == 3], maps[0][objects[0] == 12] = 0.9, 0.7, 0.2
    masks = segment(evidence_of(maps, objects=objects), threshold=0.5, smooth=3, split=4, min_size=10)
    assert masks.objects["class"].tolist() == ["b", "a", ""]
    assert masks.objects["shown"].tolist() == [True, True, False]
    assert (masks.labels[0] == 3).sum() == 140
    assert ((masks.labels[0] == 3) == (objects[0] == 3)).all()
    assert ((masks.labels[0] == 7) == ring).all()
    np.testing.assert_allclose(masks.objects["mean_evidence"], [0.7, 0.9, np.nan], atol=1e-6)


def test_objects_that_touch_stay_apart() -> None:
    """Two objects of one class, side by side and with the same evidence, stay two."""
    objects = np.zeros((1, 30, 40), np.int32)
    objects[0, 5:15, 5:15], objects[0, 5:15, 15:25] = 1, 2
    maps = np.zeros((2, 30, 40))
    maps[0][objects[0] > 0] = 0.8
    masks = segment(evidence_of(maps, objects=objects), threshold=0.5)
    assert (masks.labels == objects).all()


def test_objects_without_background() -> None:
    """Two objects that fill the plane, one of each class."""
    objects = np.ones((1, 20, 40), np.int32)
    objects[0, :, 25:] = 2
    maps = np.zeros((2, 20, 40))
    maps[0, :, :25], maps[1, :, 25:] = 0.8, 0.6
    masks = segment(evidence_of(maps, objects=objects), threshold=0.5)
    assert masks.objects["class"].tolist() == ["a", "b"]
    assert masks.objects["area_px"].tolist() == [500, 300]


def test_no_object_reaches_the_threshold() -> None:
    """If no object is above the threshold, none is shown."""
    objects = np.zeros((1, 30, 40), np.int32)
    objects[0, 5:15, 5:15] = 4
    maps = np.where(objects > 0, 0.1, 0.0).repeat(2, 0)
    masks = segment(evidence_of(maps, objects=objects), threshold=0.5)
    assert masks.labels.max() == 0
    assert masks.objects["shown"].tolist() == [False]
    assert_types(masks.objects)


# From an image to its masks


@pytest.mark.parametrize("kind", ["object", "class_map", "jacobian"])
def test_from_image_to_masks(kind: Any) -> None:
    """A stack of noise through every kind of evidence: labels, table and class image agree with each other."""
    model = lively_model().with_card(single_label=False)
    image = open_image(noise(2, 2, 120, 140), axes="ZCYX", channels=["GFP", "RFP"], pixel_size=0.5)
    prediction = classify(model, image, device="cpu", precision="float32")
    found = evidence(model, image, kind=kind, prediction=prediction, device="cpu", precision="float32")
    masks = segment(found, present=0, min_size=5)
    shown = masks.objects[masks.objects["shown"]]
    assert len(shown) > 2
    assert_types(masks.objects)
    for i, plane in enumerate(masks.labels):
        rows = shown[shown["plane"] == i]
        assert rows["label"].tolist() == np.unique(plane[plane > 0]).tolist()
        assert rows["area_px"].tolist() == np.bincount(plane.ravel())[rows["label"]].tolist()
        assert rows["area_um2"].tolist() == (0.25 * rows["area_px"]).tolist()
        assert rows["area_px"].min() >= 5
        for row in rows.itertuples():
            index = found.classes.index(row[3])
            inside = plane == row.label
            assert set(masks.class_image[i][inside]) == {index + 1}
            assert row.mean_evidence == pytest.approx(found.maps[i, index][inside].mean(), rel=1e-4)
            assert row.score == pytest.approx(float(prediction.scores[i, index]))


def test_a_one_class_model_gives_masks() -> None:
    """One class from image to table."""
    model = lively_model(classes=("only",))
    image = open_image(noise(2, 120, 140), axes="CYX", channels=["GFP", "RFP"])
    masks = segment(evidence(model, image, kind="class_map", device="cpu", precision="float32"))
    assert set(masks.objects["class"]) == {"only"}
    assert set(np.unique(masks.class_image)) == {0, 1}


def test_an_image_that_shows_none_of_the_classes_asked_for_has_no_masks(compact):
    """The only requested class is neither the top class nor present, with and without smoothing."""
    image = open_image(noise(2, 96, 96), axes="CYX", channels=["GFP", "RFP"])
    prediction = classify(compact, image)
    lowest = prediction.classes[int(prediction.scores[0].argmin())]
    for kind in ("object", "class_map"):
        masks = segment(evidence(compact, image, [lowest], kind=kind), present=1.0, smooth=1.0)
        assert not masks.labels.any()
        assert not masks.objects["shown"].any()


# Every object has a row


def five_cells(values: list[list[float]], scores: list[float], *, reference: str | None = "control", **options: Any):
    """Masks of cells of 10 x 10 px in a row, five at most; `values` has a row for each of control, a and b."""
    objects = np.zeros((10, 60), np.int32)
    for number in range(1, len(values[0]) + 1):
        objects[:, 12 * (number - 1) : 12 * (number - 1) + 10] = number
    each = np.c_[np.zeros(3), np.array(values)].astype(np.float32)
    found = np.array([scores], np.float32)
    names = ("control", "a", "b")
    prediction = Prediction(
        names, found, found, np.zeros((1, 3, 1, 1), np.float32), (PlaneIndex(0, 0, 0),), MapPlacement(1, 0, 0),
        "image", (), "cpu", 0.0, np.zeros(1, np.float32), ("",), np.ones(1, bool), no_bags(1, 3),
    )  # fmt: skip
    halves = {} if reference is None else {"a": 0.5, "b": 0.5}
    return segment(
        Evidence(names, "object", each[:, objects][None], objects[None], prediction, None, halves, (each,), reference),
        **options,
    )


VALUES = [[0.1, 0.2, 0.3, 0.4, 0.0], [0.9, 0.6, 0.2, 0.1, 0.4], [0.2, 0.7, 0.8, 0.1, 0.1]]


def test_every_object_has_a_class_and_the_shown_ones_are_marked() -> None:
    """Class a is shown and claims cells 1 and 2; b, which is not, gets cell 3; control gets 4; 5 has no evidence."""
    masks = five_cells(VALUES, [0.1, 0.8, 0.1])
    assert masks.objects["class"].tolist() == ["a", "a", "b", "control", ""]
    assert masks.objects["shown"].tolist() == [True, True, False, False, False]
    assert np.unique(masks.labels).tolist() == [0, 1, 2]
    np.testing.assert_allclose(masks.objects["evidence b"], VALUES[2], rtol=1e-6)
    np.testing.assert_allclose(masks.objects["mean_evidence"], [0.9, 0.6, 0.8, 0.4, np.nan], rtol=1e-6)
    assert (masks.class_image > 0).sum() == 200


def test_an_object_that_no_class_claims_belongs_to_the_reference() -> None:
    """Where control is shown its mask has all cells that neither a nor b claims; a threshold of its own limits it."""
    masks = five_cells(VALUES, [0.9, 0.05, 0.05])
    assert masks.objects["class"].tolist() == ["a", "b", "b", "control", ""]
    assert masks.objects["shown"].tolist() == [False, False, False, True, False]
    limited = five_cells(VALUES, [0.9, 0.05, 0.05], class_thresholds={"control": 0.5})
    assert limited.objects["class"].tolist() == ["a", "b", "b", "", ""]


def test_cells_and_shares_are_counted() -> None:
    """Five cells, two of class a; without a reference a class that is not shown has no threshold and no count."""
    objects = five_cells(VALUES, [0.1, 0.8, 0.1])
    assert objects.counts[0]["cells"] == 5
    assert (objects.counts[0]["cells a"], objects.counts[0]["share a"]) == (2, 0.4)
    assert (objects.counts[0]["cells b"], objects.counts[0]["share control"]) == (1, 0.2)
    alone = five_cells(VALUES, [0.1, 0.8, 0.1], reference=None).counts[0]
    assert alone["cells"] == 5
    assert np.isnan(alone["share b"])
    none = five_cells([[], [], []], [0.1, 0.8, 0.1], reference=None).counts[0]
    assert [none[f"cells {name}"] for name in ("control", "a", "b")] == [0, 0, 0]
