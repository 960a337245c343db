"""The session of the Results dock, without a window: what is open, what is looked at, and what is said of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from conftest import lively_model, noise
from napari_milcnn.errors import OutputError
from napari_milcnn.images.open import open_image
from napari_milcnn.model.package_read import load_model
from napari_milcnn.plugin.qt.notices import Level
from napari_milcnn.plugin.results.gallery import GallerySession
from napari_milcnn.plugin.results.reading import ReadRequest, ResumeRequest
from napari_milcnn.plugin.results.session import Chosen, ResultsSession, ResultsState
from napari_milcnn.results.folder import classify_files
from qt_actions import SessionWorker

components = pytest.importorskip("napari.components")


@pytest.fixture
def run(tmp_path):
    """Write the results of two images, one of three time points, with one object in each plane."""
    return write_run(tmp_path / "run", tmp_path / "images")


def write_run(folder: Path, images: Path, top: str = "a") -> Path:
    """Write results in which every object is of the class `top`; the images are written once."""
    folder.mkdir()
    images.mkdir(exist_ok=True)
    rows, objects = [], []
    for name, times in (("B03", 1), ("C05", 3)):
        shape, axes = ((times, 40, 50), "TYX") if times > 1 else ((40, 50), "YX")
        image = images / f"{name}.ome.tif"
        if not image.exists():
            tifffile.imwrite(image, noise(*shape), metadata={"axes": axes})
        labels = np.zeros(shape, np.uint16)
        labels[..., 5:15, 5:15] = 1
        tifffile.imwrite(folder / f"{name}_labels.ome.tif", labels, metadata={"axes": axes})
        for t in range(times):
            place = {"file": str(image), "position": 0, "t": t, "z": 0}
            scores = {"score a": 0.8, "score b": 0.2} if top == "a" else {"score a": 0.2, "score b": 0.8}
            rows.append({**place, "name": name, "top": top, "margin": 0.6, **scores, "error": ""})
            objects.append({**place, "label": 1, "class": top, "area_px": 100, "shown": True})
    pd.DataFrame(rows).to_csv(folder / "predictions.csv", index=False)
    pd.DataFrame(objects).to_csv(folder / "objects.csv", index=False)
    (folder / "run.json").write_text("{}")
    return folder


@pytest.fixture
def viewer():
    """Return a viewer without a window."""
    return components.ViewerModel()


@pytest.fixture
def session(viewer):
    """Return a session in which nothing is open."""
    return ResultsSession(viewer)


@pytest.fixture
def worker(session):
    """Return who works for the session."""
    return SessionWorker(session)


def names(viewer) -> list[str]:
    """Name the layers of a viewer."""
    return [layer.name for layer in viewer.layers]


def test_the_state_and_what_is_said_of_it(session, worker, run, tmp_path):
    assert session.state is ResultsState.EMPTY
    session.open(run)
    assert session.state is ResultsState.READING
    assert session.message.text == "Reading run…"
    worker.work()
    assert session.state is ResultsState.OPEN
    assert session.message.text == ""
    (tmp_path / "empty").mkdir()
    session.open(tmp_path / "empty")
    worker.work()
    assert session.state is ResultsState.OPEN  # what was open stays
    assert session.found.path.parent == run
    assert session.message.level is Level.ERROR


def test_a_slow_reading_does_not_replace_what_was_opened_after_it(session, worker, run, tmp_path):
    other = write_run(tmp_path / "other", tmp_path / "images")
    session.open(other)
    (slow,) = worker.waiting
    session.open(run)
    worker.work()
    worker.finish(slow)
    assert session.found.path.parent == run
    assert session.state is ResultsState.OPEN


@pytest.mark.parametrize("act", ["open_image", "choose", "copy", "save"])
def test_a_message_goes_when_the_user_does_the_next_thing(session, worker, run, tmp_path, act):
    session.open(run)
    worker.work()
    session.open(tmp_path / "nowhere")
    worker.work()
    assert "nowhere does not exist" in session.message.text
    arguments = {"open_image": (0,), "choose": (Chosen(("x",), "x"),), "copy": (session.opened.frame,),
                 "save": (lambda _path: None, tmp_path / "x.csv")}  # fmt: skip
    getattr(session, act)(*arguments[act])
    worker.work()
    assert "nowhere" not in session.message.text


def test_what_is_true_of_the_results_is_said_as_long_as_they_are_open(session, worker, run, tmp_path):
    (run / "run.json").unlink()
    session.open(run)
    worker.work()
    session.open(tmp_path / "nowhere")
    worker.work()
    session.open_image(0)
    worker.work()
    assert any("run.json is missing" in text for text in session.opened.warnings)
    (run / "run.json").write_text("{}")
    session.open(run)
    worker.work()
    assert session.opened.warnings == ()


def test_layers_are_found_again_by_what_they_are_and_not_by_their_name(session, worker, viewer, run):
    own = viewer.add_labels(np.zeros((40, 50), int), name="C05 masks", metadata={"napari_milcnn": {}})
    session.open(run)
    worker.work()
    session.open_image(1)
    worker.work()
    assert names(viewer) == ["C05 masks", "C05", "C05 masks [1]"]
    viewer.layers["C05"].name, viewer.layers["C05 masks [1]"].name = "my cells", "red"
    viewer.dims.set_point(0, 2)
    session.move_sliders()
    assert session.row == 3
    session.open_image(2)  # another plane of the same image: nothing is added
    assert not worker.waiting
    assert viewer.dims.current_step[0] == 1
    session.open_image(0)
    worker.work()
    assert names(viewer) == ["C05 masks", "B03", "B03 masks"]
    assert viewer.layers[0] is own or viewer.layers[0].__wrapped__ is own


def test_the_same_image_of_another_run_gets_the_masks_of_that_run(session, worker, viewer, run, tmp_path):
    other = write_run(tmp_path / "other", tmp_path / "images", top="b")
    for folder, name in ((run, "a"), (other, "b"), (other, "b")):
        session.open(folder)
        worker.work()
        session.open_image(0)
        worker.work()
        assert names(viewer) == ["B03", "B03 masks"]
        assert list(viewer.layers["B03 masks"].features["class"]) == [name]


def test_sliders_of_another_run_select_no_row(session, worker, viewer, run, tmp_path):
    session.open(run)
    worker.work()
    session.open_image(1)
    worker.work()
    session.open(write_run(tmp_path / "other", tmp_path / "images"))
    worker.work()
    viewer.dims.set_point(0, 2)
    session.move_sliders()
    assert session.row is None


def test_an_image_that_cannot_be_opened_does_not_change_which_rows_the_sliders_mean(session, worker, viewer, run):
    session.open(run)
    worker.work()
    session.open_image(1)
    worker.work()
    (run.parent / "images" / "B03.ome.tif").write_bytes(b"broken")
    session.open_image(0)
    worker.work()
    assert session.message.level is Level.ERROR
    assert session.row == 0
    viewer.dims.set_point(0, 2)
    session.move_sliders()
    assert session.row == 3


def test_an_image_that_is_still_being_opened_is_dropped_with_its_results(session, worker, viewer, run, tmp_path):
    session.open(run)
    worker.work()
    session.open_image(0)
    (opening,) = worker.waiting
    session.show_results(session.opened)
    assert worker.waiting == []
    worker.finish(opening)
    assert names(viewer) == []
    assert session.row is None


def test_masks_that_the_user_edited_stay(session, worker, viewer, run):
    session.open(run)
    worker.work()
    session.open_image(0)
    worker.work()
    viewer.layers["B03 masks"].paint((30, 30), 7)
    session.open_image(1)
    worker.work()
    assert names(viewer) == ["B03", "B03 masks", "C05", "C05 masks"]
    assert session.message.text.startswith("You edited the layer B03 masks")
    session.open_image(0)
    worker.work()
    assert names(viewer) == ["B03", "B03 masks", "B03 [1]", "B03 [1] masks"]


def test_masks_that_were_removed_come_back_with_the_next_click(session, worker, viewer, run):
    session.open(run)
    worker.work()
    session.open_image(1)
    worker.work()
    viewer.layers.remove("C05 masks")
    session.open_image(2)
    worker.work()
    assert names(viewer) == ["C05", "C05 masks"]


def test_a_layout_leaves_the_opened_image_as_it_is(session, worker, viewer, run, tmp_path):
    session.open(run)
    worker.work()
    session.open_image(1)
    worker.work()
    (tmp_path / "layout.csv").write_text("file,dose\nB03.ome.tif,1\nC05.ome.tif,2\n")
    session.open(tmp_path / "layout.csv")
    worker.work()
    assert session.found.added == ("dose",)
    session.open_image(3)
    assert not worker.waiting
    assert viewer.dims.current_step[0] == 2


def test_a_message_about_an_image_goes_with_its_layers(session, worker, viewer, run):
    tifffile.imwrite(run / "B03_labels.ome.tif", np.zeros((7, 7), np.uint16), metadata={"axes": "YX"})
    viewer.layers.events.removed.connect(lambda _event: session.remove_layers())
    session.open(run)
    worker.work()
    session.open_image(0)
    worker.work()
    assert "7 × 7 px" in session.message.text
    viewer.add_image(np.zeros((5, 5)), name="other")
    viewer.layers.remove("other")
    assert "7 × 7 px" in session.message.text
    viewer.layers.remove("B03")
    assert session.message.text == ""


def test_other_results_list_all_their_rows(session, worker, run, tmp_path):
    session.open(run)
    worker.work()
    session.choose(Chosen(("x",), "1 image: label a, predicted b"))
    session.open(write_run(tmp_path / "other", tmp_path / "images"))
    worker.work()
    assert session.chosen is None


def test_a_table_that_cannot_be_saved_says_why(session, tmp_path):
    def fail(_path: Path) -> None:
        raise OutputError("no space left")

    session.save(fail, tmp_path / "x.csv")
    assert (session.message.text, session.message.level) == ("no space left", Level.ERROR)
    session.save(lambda _path: None, tmp_path / "x.csv")
    assert session.message.text == f"Saved {tmp_path / 'x.csv'}"


def test_rows_are_copied_beside_the_window(session, worker, run):
    copied = []
    session.copied.connect(copied.append)
    session.open(run)
    worker.work()
    session.copy(session.opened.frame.iloc[:1])
    assert copied == []
    worker.work()
    assert [line.split("\t")[0] for line in copied[0].splitlines()] == ["image", "B03"]
    assert session.message.text == "Copied 1 row"


def test_the_gallery_keeps_the_order_that_the_user_chose(session, worker, run, tmp_path):
    gallery = GallerySession()
    thumbs = SessionWorker(gallery)
    session.open(run)
    worker.work()
    gallery.show(session.opened)
    assert gallery.class_name == "a"  # the most frequent class
    gallery.rank_by("b")
    (stale,) = thumbs.waiting
    gallery.rank_by(None)
    thumbs.finish(stale)
    assert gallery.pictures == {}
    thumbs.work()
    assert set(gallery.pictures) == {0, 1, 2, 3}
    assert not gallery.is_busy
    session.open(write_run(tmp_path / "other", tmp_path / "images", top="b"))
    worker.work()
    gallery.show(session.opened)
    assert gallery.class_name is None


def test_a_thumbnail_that_cannot_be_made_has_its_reason_and_the_others_are_made(session, worker, run):
    (run.parent / "images" / "B03.ome.tif").write_bytes(b"broken")
    gallery = GallerySession()
    thumbs = SessionWorker(gallery)
    session.open(run)
    worker.work()
    gallery.show(session.opened)
    thumbs.work()
    assert set(gallery.errors) == {0}
    assert set(gallery.pictures) == {1, 2, 3}
    shutil.rmtree(run.parent / "images")
    session.open(run)
    worker.work()
    gallery.show(session.opened)
    assert gallery.note.startswith("The images were not found")
    assert not thumbs.waiting


def test_a_run_that_was_stopped_goes_on_and_can_be_stopped_again(session, worker, tmp_path):
    """Stopped once more, the results so far are read; gone on with to its end, all of them."""
    model = load_model(lively_model(channels=("DNA",)).save(tmp_path / "m.zip"))
    (tmp_path / "images").mkdir()
    for number in range(3):
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", noise(90, 100, seed=number))
    steps = classify_files(model, [tmp_path / "images"], tmp_path / "out", masks=False, device="cpu")
    next(step for step in steps if step.result is not None)
    steps.close()
    session.open(tmp_path / "out")
    worker.work()
    assert session.found.unfinished == 2
    stopped = []
    session.stop_requested.connect(stopped.append)
    session.resume()
    assert session.is_resuming
    request = worker.waiting.pop(0)
    work = request.steps()
    session.take(request, next(step for step in work if step.result is not None))
    assert session.message.text == "Classifying the rest of out… Image 1 of 2."
    session.resume()
    assert stopped == [request]
    work.close()
    session.end(request, stopped=True)
    worker.work()
    assert session.found.unfinished == 1
    session.resume()
    worker.work()
    assert session.found.unfinished == 0
    assert len(session.found.table) == 3
    assert session.message.text == ""


@pytest.mark.parametrize("act", ["open", "find_images", "show_results"])
def test_a_run_that_goes_on_is_not_stopped_without_a_word(session, worker, run, tmp_path, act):
    """What the user opens meanwhile stops it, and this is said; so is why it failed, beside what it finished."""
    session.open(run)
    worker.work()
    opened = session.opened
    request = ResumeRequest(run)
    session._read(request)
    arguments = {"open": (run,), "find_images": (tmp_path,), "show_results": (opened,)}
    getattr(session, act)(*arguments[act])
    assert request not in worker.waiting
    worker.work()
    assert "was stopped; what it finished is kept" in session.message.text
    session._read(request)
    worker.waiting.remove(request)
    session.end(request, "the disk is full")
    assert [type(one) for one in worker.waiting] == [ReadRequest]
    worker.work()
    assert session.message.text == "the disk is full"


@pytest.fixture
def large_planes(monkeypatch):
    """Treat every plane as one that is shown in several sizes."""
    monkeypatch.setattr("napari_milcnn.inference.strips.levels.LARGEST_AT_ONCE", 0)
    monkeypatch.setattr("napari_milcnn.inference.strips.rows._SCREEN", 4)
    monkeypatch.setattr("napari_milcnn.images.write._CHUNK", 16)
    monkeypatch.setattr("napari_milcnn.images.write._SMALLEST_LEVEL", 4)


@pytest.mark.parametrize("masks_as", ["tiff", "zarr"])
def test_large_planes_are_opened_in_several_sizes(session, worker, viewer, large_planes, masks_as, tmp_path):
    """Image and masks are layers of several sizes, with the same pixels as those of one; nothing can be painted."""
    pixels = noise(2, 2, 60, 50).astype(np.uint16)
    pixels[:, :, 10:30, 10:30] += 4000
    facts = {"axes": "TCYX", "Channel": {"Name": ["GFP", "RFP"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, photometric="minisblack", metadata=facts)
    model = lively_model(reference=None)
    options = {"kind": "object", "masks_as": masks_as, "mask_options": {"present": 0}, "device": "cpu"}
    for step in classify_files(model, [tmp_path / "a.ome.tif"], tmp_path / "out", **options):
        assert step.result is None or not step.result.error
    session.open(tmp_path / "out")
    worker.work()
    session.open_image(1)
    worker.work()
    *images, masks = viewer.layers
    assert [layer.multiscale for layer in viewer.layers] == [True] * 3
    for channel, layer in enumerate(images):
        for step, level in zip((1, 2, 4), layer.data, strict=False):
            np.testing.assert_array_equal(level, pixels[:, channel, ::step, ::step])
    with open_image(next((tmp_path / "out").glob("*_labels*"))) as stored:
        labels = np.stack([stored.plane(plane, (0,))[0] for plane in range(2)])
    for plane in range(2):
        own = masks.features[masks.features["plane"] == plane]
        numbers = np.zeros(int(labels.max()) + 1, int)
        numbers[own["label"].astype(int)] = own["index"].astype(int)
        assert (numbers > 0).any()
        for level in masks.data[:2]:
            step = round(60 / level.shape[-2])
            np.testing.assert_array_equal(level[plane], numbers[labels[plane]][::step, ::step])
    assert not masks.editable


def test_a_damaged_mask_file_of_large_planes_is_said(session, worker, viewer, large_planes, run, tmp_path):
    """The sentence names the file; the image stays."""
    stored = run / "B03_labels.ome.tif"
    labels = tifffile.imread(stored)
    tifffile.imwrite(stored, labels, metadata={"axes": "YX"}, compression="zlib")
    with tifffile.TiffFile(stored) as file:
        place, length = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    content = bytearray(stored.read_bytes())
    content[place : place + length] = b"\xff" * length
    stored.write_bytes(content)
    session.open(run)
    worker.work()
    session.open_image(0)
    worker.work()
    assert "B03_labels.ome.tif: the masks cannot be read" in session.message.text
    assert len(viewer.layers) == 1
