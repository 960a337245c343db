"""A stranger's first ten minutes, by clicks and keys alone; the benchmark does it with the shipped images."""

import shutil

import numpy as np
import pytest
import tifffile

import napari_milcnn as mil
from napari_milcnn.plugin.current_model import current

pytest.importorskip("napari")
from qtpy.QtCore import QSettings

from benchmarks.stranger import Stranger, own_image

CLASSES = ("none", "spots")


def field(number: int) -> np.ndarray:
    """Draw a field of 96 px, uint16 (Y, X): noise, in every other one with bright discs."""
    random = np.random.default_rng(number)
    image = random.normal(100, 5, (96, 96))
    if number % 2:
        for y, x in random.integers(15, 81, (8, 2)):
            image[y - 5 : y + 6, x - 5 : x + 6] += 100
    return image.astype(np.uint16)


@pytest.fixture
def samples(tmp_path, monkeypatch):
    """Let the practice images be twelve small ones that are learned in seconds."""
    folder = tmp_path / "samples"
    (folder / "training" / "images").mkdir(parents=True)
    shutil.copytree(mil.sample_folder() / "models", folder / "models")
    for number in range(12):
        tifffile.imwrite(folder / "training" / "images" / f"{CLASSES[number % 2]}-{number:02}.tif", field(number))
    monkeypatch.setattr("napari_milcnn.model.shipped.sample_folder", lambda: folder)
    return folder


@pytest.mark.slow
def test_from_an_image_without_a_model_to_masks_with_a_warning(make_napari_viewer, qtbot, samples, tmp_path):
    QSettings.setPath(QSettings.Format.NativeFormat, QSettings.Scope.UserScope, str(tmp_path / "settings"))
    current.clear()
    viewer = make_napari_viewer(show=True)
    stranger = Stranger(viewer, tmp_path)
    stranger.ask_about(own_image(tmp_path, channels=1))
    classify = stranger.classify
    assert classify.notices.text() == "Choose a model first, or train one; the images wait."
    assert "train a model on a few dozen labelled images" in classify.model_box.card.text()

    stranger.practise()
    train = stranger.train
    assert "named after what it shows" in train.label_box.message.text()
    assert "Add a class" in train.label_box.hint.text()
    stranger.label(CLASSES)
    assert (tmp_path / "practice" / "labels.csv").read_text().count(",spots") == 6

    stranger.learn(epochs="4", patch="0", validation="0.2", epoch_steps="12", learning_rate="0.005")
    assert train.message.text() == "Done."
    assert "held out for validation" in train.outcome_box.notes.text()

    stranger.use()
    assert stranger.classify is classify  # no second dock beside the one that the menu opened
    assert classify.isVisible()
    mine = classify.session.in_view
    assert mine.name == "my image"
    assert mine.prediction.is_unlike[0]
    assert mine.hides_masks(0)

    tifffile.imwrite(tmp_path / "new.tif", field(101))
    stranger.classify_another(tmp_path / "new.tif")
    shown = classify.session.in_view
    assert (shown.name, shown.prediction.top) == ("new", ("spots",))
    assert viewer.layers["new masks"].data.any()
    assert {layer.name for layer in viewer.layers if layer.visible} == {"new", "new masks"}
    current.clear()
