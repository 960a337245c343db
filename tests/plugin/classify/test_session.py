"""What the Classify dock knows, without a window: jobs are started by hand, and run as late as a test wants."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tifffile

from conftest import lively_model, noise
from napari_milcnn.images.open import open_image
from napari_milcnn.plugin.classify.jobs import ImageToShow
from napari_milcnn.plugin.classify.records import Cause, ImageState, PackedLabels
from napari_milcnn.plugin.classify.session import Classify, ClassifySession
from napari_milcnn.plugin.qt.notices import Level

pytest.importorskip("psygnal")
OPTIONS = {"kind": "object", "device": "cpu", "foreground": {"size": 12.0}}


class LateJob:
    """A job whose steps are made when the test says so; what it found reaches the window later still."""

    def __init__(self, steps, on_step, on_end) -> None:
        self._steps, self._on_step, self._on_end = steps, on_step, on_end
        self.found, self.stopped, self.error = [], False, ""

    def stop(self) -> None:
        """Note that the user stopped it."""
        self.stopped = True

    def compute(self) -> None:
        """Let the worker do all of its work; the window has not heard of it."""
        self.found = list(self._steps())

    def reach_window(self, steps: int | None = None) -> None:
        """Let what was found reach the window: all of it and the end, or some steps."""
        for step in self.found[:steps]:
            self._on_step(step)
        self.found = self.found[steps:] if steps is not None else []
        if steps is None:
            self._on_end(SimpleNamespace(error=self.error, stopped=self.stopped))


class Window:
    """A session, its jobs, and layers that are whatever stands for them."""

    def __init__(self, model=None) -> None:
        self.session, self.jobs, self.opened = ClassifySession(), [], []
        self.session.job.starter = self.start
        self.session.image_opened.connect(self.show)
        self.session.set_options(OPTIONS, {})
        self.session.use_model(model)

    def start(self, steps, on_step, on_end) -> LateJob:
        """Start a job, which does nothing yet."""
        self.jobs.append(LateJob(steps, on_step, on_end))
        return self.jobs[-1]

    def show(self, opened: tuple[int, ImageToShow]) -> None:
        """Show a file, as the dock does."""
        key, to_show = opened
        self.opened.append(key)
        layer = object()
        self.session.shown(key, (layer,), source_of(to_show.image))

    def finish(self) -> None:
        """Let every job come to its end."""
        while self.session.busy or self.session.preview.busy:
            self.jobs[-1].compute()
            self.jobs[-1].reach_window()

    def classify(self, layer, image=None, **facts) -> None:
        """Choose a layer and click Classify."""
        image = open_image(noise(2, 96, 96), axes="CYX", channels=("GFP", "RFP")) if image is None else image
        self.session.choose((layer,))
        self.session.look_at(0)
        self.session.classify([Classify((layer,), source_of(image), **facts)])


def source_of(image):
    """Stand in for the layers of an image."""
    return SimpleNamespace(image=image, axes=image.axes, layer=SimpleNamespace(rgb=False))


@pytest.fixture(scope="module")
def model():
    return lively_model()


@pytest.fixture(scope="module")
def other():
    return lively_model(classes=("x", "y"))


@pytest.fixture
def files(tmp_path):
    """Write a broken image and two that can be read."""
    (tmp_path / "a.tif").write_bytes(b"II*\0 and nothing else")
    for name, side in (("b", 96), ("c", 104)):
        facts = {"axes": "CYX", "Channel": {"Name": ["GFP", "RFP"]}}
        tifffile.imwrite(tmp_path / f"{name}.tif", noise(2, side, side), ome=True, metadata=facts)
    return tmp_path


def test_the_session_knows_neither_qt_nor_a_viewer():
    code = ("import sys, napari_milcnn.plugin.classify.session; "
            "sys.exit(bool({'qtpy', 'napari', 'torch', 'superqt'} & set(sys.modules)))")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_files_that_are_opened_while_cells_are_classified_are_classified_next(model, files):
    window = Window(model)
    window.session.classify_cells(list, lambda _found: None)
    window.session.open_files([files])
    assert len(window.jobs) == 1
    window.jobs[0].reach_window()
    assert len(window.jobs) == 2
    window.finish()
    assert [record.state for record in window.session.images.records.values()][1:] == [ImageState.DONE] * 2


def test_masks_do_not_depend_on_how_fast_the_window_is(model, files):
    """The worker is through before the window shows the first file that could be opened: its masks are there."""
    window = Window(model)
    window.session.open_files([files])
    (job,) = window.jobs
    job.compute()
    assert not window.opened
    job.reach_window()
    broken, first, second = window.session.images.records.values()
    assert (broken.state, first.state, second.state) == (ImageState.FAILED, ImageState.DONE, ImageState.DONE)
    assert window.opened == [first.key]
    assert first.masks.keys() == {0}
    assert not second.masks
    assert not window.session.busy  # nothing is left to be made


def test_results_stay_when_the_model_changes_or_is_unloaded(model, other):
    window, layer = Window(model), object()
    window.classify(layer)
    window.finish()
    before = window.session.in_view
    for current in (None, other):
        window.session.use_model(current)
        assert window.session.in_view is before
        assert not window.session.is_current(before)
        assert before.model.digest == model.digest
        assert before.model.classes == ("a", "b", "c")
    window.classify(layer)
    window.finish()
    assert [one.model.digest for one in window.session.images.records.values()] == [model.digest, other.digest]
    assert window.session.in_view.model.digest == other.digest
    window.session.choose((layer,), key=before.key)
    assert window.session.in_view is before
    window.session.choose((layer,))
    window.session.use_model(model)
    assert window.session.in_view is before


def test_no_network_is_kept_for_results_of_a_model_that_was_unloaded(model):
    import gc
    import weakref

    own = lively_model()
    window = Window(own)
    window.classify(object())
    window.finish()
    window.jobs.clear()
    watched = weakref.ref(own.network)
    window.session.use_model(None)
    del own
    gc.collect()
    assert window.session.images.records
    assert watched() is None


def test_what_is_said_belongs_to_the_image_that_was_classified(model):
    """The count is that of the run, not of the images before it, and the image in view says the same."""
    window = Window(model)
    for number, layer in enumerate((object(), object())):
        window.classify(layer, open_image(noise(1 + number, 2, 96, 96), axes="TCYX", channels=("GFP", "RFP")))
        window.finish()
        first = window.session.notices.of(Cause.RUN)[0]
        planes = ("1 plane", "2 planes")[number]
        assert first.startswith(f"{planes} of {window.session.in_view.name} classified")
        assert window.session.in_view.planes.keys() == set(range(number + 1))


def test_layers_are_told_by_identity_in_any_order(model):
    window, red, green = Window(model), object(), object()
    image = open_image(noise(2, 96, 96), axes="CYX", channels=("GFP", "RFP"))
    window.session.choose((red, green))
    window.session.classify([Classify((red, green), source_of(image))])
    window.finish()
    window.session.choose((green, red))
    assert window.session.in_view.planes
    window.session.choose((green,))
    assert window.session.in_view is None


def test_notices_of_a_run_outlive_later_masks_and_go_with_the_next_run(model):
    """What was done to the image is still said after the masks were made again, and no longer after another run."""
    window, layer = Window(model.with_card(pixel_size=0.2)), object()
    image = open_image(noise(2, 96, 96), axes="CYX", channels=("GFP", "RFP"), pixel_size=0.4)
    window.classify(layer, image)
    window.finish()
    run = window.session.notices.of(Cause.RUN)
    assert "resampled" in " ".join(run)
    window.session.make_all_masks()
    window.finish()
    assert window.session.notices.of(Cause.RUN) == run
    assert window.session.notices.of(Cause.MASKS) == ["The masks of all planes were updated."]
    window.classify(object())
    window.finish()
    assert "resampled" not in " ".join(window.session.notices.of(Cause.RUN))
    assert window.session.notices.of(Cause.MASKS) == []


def test_a_notice_about_an_image_goes_with_it(model, files):
    window = Window(model)
    window.session.open_files([files / "a.tif", files / "b.tif"])
    window.finish()
    broken = next(iter(window.session.images.records.values()))
    assert any(one.about == broken.key for one in window.session.notices.all)
    window.session.remove([broken.key])
    assert not any(one.about == broken.key for one in window.session.notices.all)


def test_dropped_files_of_one_field_are_one_image(model, tmp_path):
    """Where the files name their channels it is classified; where they only number them, they are asked for."""
    for i, name in enumerate(("GFP", "RFP")):
        tifffile.imwrite(tmp_path / f"x_w{i + 1}{name}_s1_t1.tif", noise(96, 96, seed=i))
        tifffile.imwrite(tmp_path / f"p_B03_s1_w{i + 1}.tif", noise(96, 96, seed=i))
    window = Window(model)
    window.session.open_files([tmp_path])
    assert "one file per channel" in window.session.notices.of(Cause.IMAGE)[0]
    window.finish()
    numbered, named = window.session.images.records.values()
    assert (named.name, named.state) == ("x_s1_t1", ImageState.DONE)
    assert (numbered.name, numbered.state) == ("p_B03_s1", ImageState.FAILED)
    assert "which of them is GFP or RFP is not known" in numbered.error


def test_a_cancelled_run_says_what_it_kept(model):
    window, layer = Window(model), object()
    window.classify(layer, open_image(noise(3, 2, 96, 96), axes="TCYX", channels=("GFP", "RFP")))
    (job,) = window.jobs
    job.compute()
    steps = next(i for i, step in enumerate(job.found) if type(step.result).__name__ == "PlaneResult") + 1
    job.reach_window(steps)
    window.session.cancel()
    job.found = []
    job.reach_window()
    assert window.session.in_view.state is ImageState.STOPPED
    name = window.session.in_view.name
    assert window.session.notices.of(Cause.RUN) == [f"Stopped. 1 plane of {name} classified; finished planes are kept."]


def test_removed_results_masks_and_runs_can_be_put_back(model):
    window, layer = Window(model), object()
    session = window.session
    window.classify(layer)
    window.finish()
    key, masks = session.in_view.key, session.in_view.masks[0]
    session.set_options(OPTIONS, {"class_thresholds": dict.fromkeys("abc", 0.99)})
    session.make_all_masks()
    window.finish()
    changed = session.in_view.masks[0]
    assert changed.thresholds != masks.thresholds
    session.remove([key])
    assert session.in_view is None
    assert session.images.last_action.startswith("the removal of")
    session.undo()
    assert session.in_view.masks[0] is changed
    session.undo()
    assert session.in_view.masks[0] is masks
    assert session.settings.masks == {}  # the next change starts from what is seen
    session.undo(again=True)
    assert session.in_view.masks[0] is changed
    assert set(session.settings.masks["class_thresholds"].values()) == {0.99}
    session.undo(again=True)
    assert session.in_view is None
    session.undo()
    session.undo()
    session.set_options({**OPTIONS, "kind": "class_map"}, {})
    window.classify(layer)
    window.finish()
    assert session.in_view.masks[0] is not masks
    assert session.images.undone_action == ""  # something else was done meanwhile
    session.undo()
    assert session.in_view.masks[0] is masks
    assert session.settings.evidence["kind"] == OPTIONS["kind"]
    assert session.images.last_action == ""
    session.show_unlike()
    session.undo()
    assert not session.in_view.shows_unlike


def test_layers_that_are_read_in_another_way_replace_results_that_can_be_put_back(model):
    window, layer = Window(model), object()
    pixels = noise(2, 96, 96)
    window.classify(layer, open_image(pixels, axes="CYX", channels=("GFP", "RFP")))
    window.finish()
    before = window.session.in_view
    window.classify(layer, open_image(pixels, axes="CYX", channels=("RFP", "GFP")))
    window.finish()
    assert len(window.session.images.records) == 1
    assert window.session.in_view.planes[0].channels != before.planes[0].channels
    window.session.undo()
    assert window.session.in_view.planes is before.planes


def test_undo_leaves_an_image_the_file_that_it_has_by_now(model, files):
    """A layer that was saved meanwhile, and deleted, is opened from its file after an undo."""
    window = Window(model)
    window.classify(object())
    window.finish()
    session, key = window.session, window.session.in_view.key
    session.images.remember("a change", {key: session.images.records[key]})
    session.images.change(key, path=files / "b.tif", layers=(), source=None)
    session.images.undo()
    assert session.images.records[key].path == files / "b.tif"
    assert session.images.records[key].can_open


def test_what_was_found_stays_when_the_layers_are_removed(model, files):
    window, layer = Window(model), object()
    window.classify(layer)
    window.finish()
    window.session.open_files([files / "b.tif"])
    window.finish()
    window.session.layers_removed([])
    mine, dropped = window.session.images.records.values()
    assert mine.planes
    assert not mine.layers
    assert not mine.can_open
    assert dropped.masks
    assert dropped.can_open
    with pytest.raises(Exception, match="not those that were classified"):
        window.session.shown(dropped.key, (object(),), source_of(open_image(noise(2, 50, 50), axes="CYX")))
    window.session.shown(dropped.key, (object(),), source_of(dropped.open()))
    assert window.session.in_view.key == dropped.key
    assert window.session.in_view.masks


def test_a_dock_that_was_closed_leaves_its_results_to_the_next(model):
    window, layer = Window(model), object()
    window.classify(layer)
    window.finish()
    found = window.session.in_view
    window.classify(object())
    window.session.release(window.session.job.starter)
    assert not window.session.busy
    assert {one.state for one in window.session.images.records.values()} == {ImageState.DONE, ImageState.STOPPED}
    window.session.choose((layer,))
    assert window.session.in_view is found


def test_images_wait_for_a_model_and_say_so(model, files):
    window = Window()
    window.session.open_files([files / "b.tif"])
    assert window.session.notices.of(Cause.IMAGE) == ["Choose a model first, or train one; the images wait."]
    assert not window.session.busy
    window.session.use_model(model)
    window.finish()
    assert window.session.notices.of(Cause.IMAGE) == []
    assert next(iter(window.session.images.records.values())).state is ImageState.DONE


def test_the_masks_of_the_plane_in_view_follow_the_settings(model):
    window, layer = Window(model), object()
    session = window.session
    window.classify(layer)
    window.finish()
    shown = session.in_view.masks[0].shown
    session.preview.prepare()
    window.finish()
    assert session.preview.held is not None
    assert session.in_view.masks[0].shown is not None
    session.set_options(OPTIONS, {"class_thresholds": dict.fromkeys("abc", 1.0)})
    session.preview.apply()
    window.finish()
    assert len(session.in_view.masks[0].shown) < len(shown)
    session.use_model(None)
    assert session.preview.held is None
    session.preview.apply()  # without the model nothing is made
    assert session.in_view.masks


def test_impossible_options_are_said_and_change_nothing(model):
    session = Window(model).session
    before = session.settings
    assert not session.set_options(OPTIONS, {"threshold": "q7"})
    assert "quantile between q0 and q1" in session.notices.of(Cause.MASKS)[0]
    assert session.settings is before
    assert session.set_options(OPTIONS, {"threshold": "q0.9"})
    assert session.notices.of(Cause.MASKS) == []


@pytest.mark.slow
def test_an_export_needs_the_model_that_made_the_results(tmp_path, other):
    own = lively_model().save(tmp_path / "own.zip")
    from napari_milcnn import load_model

    window = Window(load_model(own))
    window.classify(object())
    window.finish()
    window.session.use_model(other)
    window.session.export(tmp_path / "out", ("tables",))
    window.finish()
    assert "files in" in window.session.notices.of(Cause.EXPORT)[0]
    assert len(pd.read_csv(tmp_path / "out" / "predictions.csv")) == 1
    other.save(own)
    window.session.export(tmp_path / "out", ("tables",))
    with pytest.raises(Exception, match="no longer the model own"):
        window.jobs[-1].compute()
    window.jobs[-1].error = "no longer the model own"
    window.jobs[-1].reach_window()
    assert window.session.notices.of(Cause.EXPORT) == ["no longer the model own"]
    assert np.isfinite(window.session.in_view.prediction.scores).all()


def test_a_slider_that_is_moved_before_its_evidence_is_there_is_followed(model):
    """The evidence is asked for twice, by the slider and because the plane came into view: the slider counts."""
    window = Window(model)
    window.classify(object())
    window.finish()
    shown = window.session.in_view.masks[0].shown
    window.session.set_options(OPTIONS, {"class_thresholds": dict.fromkeys("abc", 1.0)})
    window.session.preview.apply()
    window.session.preview.prepare()
    window.finish()
    assert len(window.session.in_view.masks[0].shown) < len(shown)


def thresholds_of(session) -> set[float]:
    """Return the thresholds of the masks in view."""
    return set(session.in_view.masks[0].thresholds.values())


def slide(window, value: float) -> None:
    """Move the slider of every class, as the dock tells it."""
    window.session.set_options(OPTIONS, {"class_thresholds": dict.fromkeys("abc", value)})
    window.session.preview.apply()


def with_evidence(model) -> Window:
    """Return a window with a classified image, whose evidence is held."""
    window = Window(model)
    window.classify(object())
    window.finish()
    window.session.preview.prepare()
    window.finish()
    return window


def test_masks_are_cut_beside_the_window_and_of_many_settings_the_last_counts(model):
    """What is under way is shown; what was wanted meanwhile is not cut, but for the last."""
    window, ready = with_evidence(model), []
    session = window.session
    session.preview.ready.connect(lambda: ready.append(thresholds_of(session)))
    before, count = session.in_view, len(window.jobs)
    slide(window, 0.1)
    assert session.in_view is before  # nothing is cut in the window's thread
    for value in (0.2, 0.3, 0.4):
        slide(window, value)
    assert len(window.jobs) == count + 1
    window.jobs[-1].compute()
    window.jobs[-1].reach_window()
    assert thresholds_of(session) == {0.1}
    assert ready == []  # the slider is elsewhere by now
    assert len(window.jobs) == count + 2
    window.finish()
    assert thresholds_of(session) == {0.4}
    assert ready == [{0.4}]
    assert session.in_view.planes[0].made_with.settings is session.settings
    session.undo()  # of all that the slider did
    assert session.in_view.masks == before.masks
    assert session.settings.masks == {}


def test_masks_of_the_preview_are_those_of_a_run(model):
    from napari_milcnn import evidence, segment
    from napari_milcnn.options import ForegroundOptions

    window = with_evidence(model)
    slide(window, 0.4)
    window.finish()
    shown, record = window.session.in_view.masks[0], window.session.in_view
    image = record.source.image
    found = evidence(model, image, kind="object", device="cpu", foreground=ForegroundOptions(size=12.0))
    own = segment(found, class_thresholds=dict.fromkeys("abc", 0.4))
    np.testing.assert_array_equal(np.asarray(shown.labels), own.labels[0])
    pd.testing.assert_frame_equal(shown.objects, own.objects)


@pytest.mark.parametrize("meanwhile", ["removed", "layers", "model", "undo", "run", "closed"])
def test_masks_that_come_too_late_are_not_taken(model, other, meanwhile):
    """The worker is through; before the window hears of it, what the masks belong to has gone or changed."""
    window = with_evidence(model)
    session, layers = window.session, window.session.layers
    slide(window, 0.05)
    window.finish()
    slide(window, 0.9)
    job, key = window.jobs[-1], session.in_view.key
    job.compute()
    if meanwhile == "removed":
        session.remove([key])
    elif meanwhile == "layers":
        session.layers_removed([])
    elif meanwhile == "model":
        session.use_model(other)
    elif meanwhile == "undo":
        session.undo()
    elif meanwhile == "run":
        window.classify(layers[0])
    else:
        session.release(session.job.starter)
    before = dict(session.images.records)
    job.reach_window()
    assert session.images.records == before
    assert not any(0.9 in one.masks[0].thresholds.values() for one in session.images.records.values() if one.masks)
    assert not session.preview.busy
    assert not any(one.level is Level.ERROR for one in session.notices.all)


def test_masks_that_cannot_be_cut_are_said_and_the_slider_goes_on(model):
    window = with_evidence(model)
    before = window.session.images.last_action
    slide(window, 0.3)
    slide(window, 0.4)
    window.jobs[-1].error = "memory ran out"
    window.jobs[-1].reach_window()
    assert window.session.images.last_action == before  # there is nothing to undo
    assert window.session.notices.of(Cause.MASKS) == ["memory ran out"]
    assert window.session.preview.busy
    window.finish()
    assert thresholds_of(window.session) == {0.4}
    assert window.session.images.last_action.startswith("the masks of")


def test_what_can_be_undone_takes_little_memory(model):
    """Twenty states of a plane: packed labels, smaller than an image even where all is full of small objects."""
    window = Window(model)
    session = window.session
    window.classify(object(), open_image(noise(2, 400, 400), axes="CYX", channels=("GFP", "RFP")))
    window.finish()
    states = [session.in_view.masks[0]]
    for number in range(20):
        session.set_options(OPTIONS, {"class_thresholds": dict.fromkeys("abc", 0.3 + number / 100)})
        session.make_all_masks()
        window.finish()
        states.append(session.in_view.masks[0])
    assert len({id(one.labels) for one in states}) == 21
    shares = [one.labels.nbytes / (4 * 400 * 400) for one in states]
    assert max(shares) < 0.5, shares
    assert all(len(one.shown) for one in states)
    for _ in range(20):
        session.undo()
    assert session.in_view.masks[0] is states[0]


def test_packed_labels_are_the_labels():
    labels = np.repeat(np.random.default_rng(0).integers(0, 5, (7, 30), np.int32), 3, axis=1)
    one = PackedLabels.of(labels)
    np.testing.assert_array_equal(np.asarray(one), labels)
    assert (one.shape, one.dtype, one.ndim, one.largest) == (labels.shape, np.int32, 2, 4)
    np.testing.assert_array_equal(np.asarray(one.mapped(np.array([0, 7, 7, 1, 9]))), np.array([0, 7, 7, 1, 9])[labels])
    nothing = PackedLabels.of(np.broadcast_to(np.int32(0), (50, 60)))
    assert (nothing.largest, nothing.nbytes, np.asarray(nothing).shape) == (0, 8, (50, 60))
    vast = PackedLabels.of(np.broadcast_to(np.int32(0), (50_000, 50_000)))
    assert (vast.largest, vast.nbytes) == (0, 12)
