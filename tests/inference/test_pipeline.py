"""The loop over images: parts, chosen planes, what is kept after a stop or a failure, and how it runs ahead."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import zarr

import napari_milcnn as mil
from conftest import noise
from napari_milcnn.errors import ComputeError, ImageError, OptionsError
from napari_milcnn.inference import tiling
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.inference.masks import PlaneMasks
from napari_milcnn.inference.pipeline import ImageEnd, ImageOpened, ImageRequest, PlaneResult, analyse
from napari_milcnn.inference.predict import Classifier, joined
from napari_milcnn.network.way_back import trace
from napari_milcnn.options import MaskOptions
from napari_milcnn.progress import run_ahead

ALL = MaskOptions(present=0)


@pytest.fixture
def stack():
    """Five time points of noise, T C Y X."""
    return mil.open_image(noise(5, 2, 96, 120), axes="TCYX", channels=["GFP", "RFP"], pixel_size=0.5)


def test_each_plane_comes_once_and_the_parts_are_the_whole(compact, stack):
    steps = list(Classifier(compact, batch_size=2).steps(stack))
    parts = [step.result for step in steps if step.result is not None]
    assert [len(part.planes) for part in parts] == [2, 2, 1]
    whole = mil.classify(compact, stack)
    assert whole.planes == stack.planes
    np.testing.assert_allclose(np.concatenate([part.scores for part in parts]), whole.scores, atol=1e-6)
    np.testing.assert_array_equal(joined(parts[::-1]).class_maps, joined(parts).class_maps)


def test_chosen_planes_are_those_of_the_whole_run(compact, stack):
    whole, some = mil.classify(compact, stack), mil.classify(compact, stack, planes=[3, 1])
    assert some.planes == (stack.planes[1], stack.planes[3])
    np.testing.assert_allclose(some.scores, whole.scores[[1, 3]], atol=1e-6)
    evidence = mil.evidence(compact, stack, prediction=some)
    np.testing.assert_allclose(evidence.maps, mil.evidence(compact, stack).maps[[1, 3]], atol=1e-6)


@pytest.mark.parametrize("planes", [[], [5], [-1]])
def test_planes_that_are_not_there_are_refused(compact, stack, planes):
    with pytest.raises(ImageError, match="image has 5 planes; expected one or more numbers from 0 to 4"):
        mil.classify(compact, stack, planes=planes)


def request_of(image, **fields):
    """Make a request for an image that is already open and stays open."""
    return ImageRequest(image.name, lambda: image, keep_open=True, **fields)


def planes_of(steps):
    """Return (index of the request, index of the plane) -> result."""
    return {(step.number, step.result.plane): step.result for step in steps if isinstance(step.result, PlaneResult)}


def ends_of(steps):
    """Return why each image failed; empty if it did not."""
    return [step.result.failure for step in steps if isinstance(step.result, ImageEnd)]


def test_a_stopped_analysis_keeps_what_it_found(compact, stack):
    steps = []
    for step in analyse(EvidenceMaker(compact, batch_size=1), [request_of(stack, masks=ALL)]):
        steps.append(step)
        if step.fraction >= 0.4:
            break
    found = planes_of(steps)
    assert sorted(found) == [(0, 0), (0, 1)]
    whole = mil.segment(mil.evidence(compact, stack), present=0)
    for (_, plane), result in found.items():
        np.testing.assert_array_equal(result.masks.labels, whole.labels[plane])


def test_each_image_is_opened_and_ended_once(compact, stack):
    """The fraction rises from 0 to 1; results lie between the two."""
    steps = list(analyse(EvidenceMaker(compact, batch_size=1), [request_of(stack), request_of(stack, planes=[2])]))
    kinds = [type(step.result) for step in steps if step.result is not None]
    assert kinds == [ImageOpened, *[PlaneResult] * 5, ImageEnd, ImageOpened, PlaneResult, ImageEnd]
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0, 1)
    assert ends_of(steps) == ["", ""]


def test_an_image_is_closed_unless_it_stays_open(compact, stack, tmp_path):
    """An image is also closed if the loop is left early."""
    path = tmp_path / "a.zarr"
    zarr.save_array(str(path), np.asarray(stack.data))
    opened = []

    def opener():
        opened.append(mil.open_image(path, axes="TCYX", channels=["GFP", "RFP"]))
        return opened[-1]

    closed = []
    mil.ImageStack.close, real = lambda image: closed.append(image), mil.ImageStack.close
    try:
        list(analyse(EvidenceMaker(compact), [ImageRequest("a", opener), ImageRequest("a", opener, keep_open=True)]))
        steps = analyse(EvidenceMaker(compact), [ImageRequest("a", opener)])
        next(step for step in steps if isinstance(step.result, ImageOpened))
        steps.close()
    finally:
        mil.ImageStack.close = real
    assert closed == [opened[0], opened[2]]


def test_the_next_image_is_classified_while_the_results_of_one_are_used(compact, stack):
    """Whoever takes the first result finds that the next image is classified meanwhile; both are closed at the end."""
    second = threading.Event()

    def opener():
        second.set()
        return stack

    steps = analyse(EvidenceMaker(compact), [request_of(stack, planes=[0]), ImageRequest("second", opener)])
    next(step for step in steps if isinstance(step.result, PlaneResult))
    assert second.wait(60)
    assert sorted(planes_of(steps)) == [(1, plane) for plane in range(5)]


def test_evidence_from_the_network_waits_for_it(compact, stack):
    def opener():
        pytest.fail("opened before the first image was finished")

    steps = analyse(
        EvidenceMaker(compact, kind="jacobian"), [request_of(stack, planes=[0], masks=ALL), ImageRequest("b", opener)]
    )
    assert isinstance(next(step.result for step in steps if isinstance(step.result, PlaneResult)).masks, PlaneMasks)
    steps.close()


def test_jacobian_masks_go_on_from_the_run_of_the_classification(compact, stack, monkeypatch):
    runs = []
    monkeypatch.setattr(tiling, "trace", lambda network, images: (runs.append(1), trace(network, images))[1])
    found = planes_of(analyse(EvidenceMaker(compact, kind="jacobian"), [request_of(stack, masks=ALL)]))
    assert [result.problem for result in found.values()] == [""] * 5
    assert len(runs) == 5
    planes_of(analyse(EvidenceMaker(compact, kind="jacobian"), [request_of(stack)]))
    assert len(runs) == 5  # without masks no run is kept


def test_only_classes_that_are_shown_are_masked(compact, stack, monkeypatch):
    """Evidence is made, and memory counted, for the classes of a plane that give masks, not for all of the model."""
    maker, counted = EvidenceMaker(compact), []
    monkeypatch.setattr(maker, "check_memory", lambda _image, classes, _planes: counted.append(classes))
    shown = planes_of(analyse(maker, [request_of(stack, masks=MaskOptions(present=1))]))
    assert counted == [1] * 5
    counted.clear()
    everything = planes_of(analyse(maker, [request_of(stack, masks=ALL)]))
    assert counted == [3] * 5
    for key, result in shown.items():
        top = result.prediction.top[0]
        assert set(result.masks.thresholds) == {top}
        assert result.masks.thresholds[top] == everything[key].masks.thresholds[top]


def test_planes_found_before_are_masked_and_not_classified(compact, stack, monkeypatch):
    whole = mil.classify(compact, stack)
    maker = EvidenceMaker(compact)
    monkeypatch.setattr(maker.classifier, "steps", lambda *_: pytest.fail("it was classified again"))
    found = planes_of(analyse(maker, [request_of(stack, masks=ALL, prediction=whole.only(3))]))
    (result,) = found.values()
    expected = mil.segment(mil.evidence(compact, stack), present=0)
    assert result.plane == 3
    np.testing.assert_array_equal(result.masks.labels, expected.labels[3])


def test_a_class_that_is_not_the_models_ends_the_run(compact, stack):
    with pytest.raises(OptionsError, match="the model does not know the class d"):
        list(analyse(EvidenceMaker(compact), [request_of(stack, classes=["d"])]))


def fails(error):
    """Return a function that raises an error."""

    def function(*_arguments, **_options):
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "broken does not fit into memory; crop it or close programs"),
        (ImageError("broken is damaged"), "broken is damaged"),
        (ComputeError("the device failed"), "the device failed"),
        (ZeroDivisionError("by chance"), "broken failed: ZeroDivisionError: by chance"),
        (OSError(5, "Input/output error"), "broken failed: OSError: [Errno 5] Input/output error"),
    ],
)
def test_an_image_that_fails_says_why_and_the_next_is_processed(compact, stack, error, reason):
    requests = [ImageRequest("broken", fails(error)), request_of(stack)]
    steps = list(analyse(EvidenceMaker(compact), requests))
    assert ends_of(steps) == [reason, ""]
    assert sorted(planes_of(steps)) == [(1, plane) for plane in range(5)]


def test_planes_that_were_finished_before_a_failure_are_kept(compact, stack, monkeypatch):
    """The third of five planes cannot be read: two planes are there, and the reason."""
    maker = EvidenceMaker(compact, batch_size=1)
    real = maker.classifier.inference.encode

    def run(model_input, tiles):
        if tiles[0].plane == 2:
            raise ImageError("plane 2 cannot be read")
        return real(model_input, tiles)

    monkeypatch.setattr(maker.classifier.inference, "encode", run)
    steps = list(analyse(maker, [request_of(stack, masks=ALL), request_of(stack, planes=[4])]))
    assert ends_of(steps) == ["plane 2 cannot be read", ""]
    assert sorted(planes_of(steps)) == [(0, 0), (0, 1), (1, 4)]


def test_masks_that_cannot_be_made_leave_the_classification(compact, stack, monkeypatch):
    """Every plane has its scores, no masks, and the reason; the image is not a failed one."""
    monkeypatch.setattr("napari_milcnn.inference.pipeline.segment_plane", fails(MemoryError()))
    steps = list(analyse(EvidenceMaker(compact), [request_of(stack, masks=ALL)]))
    assert ends_of(steps) == [""]
    found = planes_of(steps)
    assert [result.masks for result in found.values()] == [None] * 5
    assert {result.problem for result in found.values()} == {
        "masks are missing: image does not fit into memory; crop it or close programs"
    }
    whole = joined([result.prediction for result in found.values()])
    np.testing.assert_array_equal(whole.scores, mil.classify(compact, stack).scores)


# A generator that runs ahead of whoever takes its items


def test_items_keep_their_order_and_are_made_in_one_other_thread():
    def items():
        for i in range(20):
            yield i, threading.get_ident()

    made = list(run_ahead(items(), 3))
    assert [i for i, _ in made] == list(range(20))
    (thread,) = {thread for _, thread in made}
    assert thread != threading.get_ident()


def test_no_more_items_are_made_than_asked_for():
    made, fourth = [], threading.Event()

    def items():
        for i in range(20):
            made.append(i)
            if i == 3:
                fourth.set()
            yield i

    steps = run_ahead(items(), 3)
    assert next(steps) == 0
    assert fourth.wait(30)  # one was taken, three wait
    assert next(steps) == 1
    steps.close()
    assert len(made) <= 5


def test_an_error_comes_where_its_item_would():
    def items():
        yield 1
        raise ValueError("two")

    steps = run_ahead(items(), 3)
    assert next(steps) == 1
    with pytest.raises(ValueError, match="two"):
        next(steps)


def test_closing_closes_the_generator_before_it_returns():
    closed = []

    def items():
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.get_ident())

    steps = run_ahead(items(), 2)
    assert next(steps) == 1
    steps.close()
    assert len(closed) == 1
