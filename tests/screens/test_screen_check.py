"""A mistake that all images of a screen share is said once, before the folder of results is taken."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
import tifffile
from screen_plates import CHANNELS, WELLS, plate_pixels, write_named, write_zarr_plate
from typer.testing import CliRunner

from conftest import lively_model, noise
from napari_milcnn.cli.app import app
from napari_milcnn.errors import ImageError
from napari_milcnn.images.open import ImageReading, open_image
from napari_milcnn.inference.predict import Classifier
from napari_milcnn.inference.unlike import training_look
from napari_milcnn.model.package_read import load_model
from napari_milcnn.screens.parts import wells_of_steps
from napari_milcnn.screens.run import screen

NAMES = "plate_{well}_s{site}_w{channel}.tif"
PIXELS = plate_pixels(72)
READING = ImageReading(channels=CHANNELS)
CPU = {"device": "cpu", "precision": "float32"}


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.zip"
    lively_model().with_card(pixel_size=0.5).save(path)
    return path


@pytest.fixture
def source(tmp_path):
    return write_named(tmp_path / "plate", PIXELS, NAMES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "the channels have no names; which of them is GFP or RFP is not known"),
        (("--channels", "GFP,DAPI"), "which of them is RFP is not known"),
        (("--channels", "GFP,RFP,DAPI"), "has 2 channels, but --channels names 3"),
        (("--channels", "GFP,RFP", "--pixel-size", "50"), "give the true pixel size of the image"),
        (("--channels", "GFP,RFP", "--foreground-channel", "DAPI"), "the foreground channel 'DAPI' is neither in"),
        (("--channels", "GFP,RFP", "--axes", "TCYX"), "names 4 axes, but there are"),
    ],
)
def test_a_mistake_of_all_images_is_said_once_and_takes_no_folder(tmp_path, model_file, source, words, said):
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["screen", str(source), "-m", str(model_file), "-o", str(out), "--kind", "object",
                                    "--device", "cpu", *words])  # fmt: skip
    assert done.exit_code == 2
    assert done.stderr.count("no field of the screen can be classified (all were tried)") == 1
    assert said in done.stderr
    assert not out.exists()


def test_one_field_that_fits_is_enough(tmp_path, model_file, source):
    """The others cost a row each, whichever the random order of the fields begins with."""
    for (well, site), field in PIXELS.items():
        if (well, site) != ("B01", 2):
            for channel in (1, 2):
                tifffile.imwrite(source / NAMES.format(well=well, site=site, channel=channel), field.astype(complex))
    wells = wells_of_steps(screen(load_model(model_file), source, tmp_path / "out", reading=READING, **CPU))
    assert sum(len(one.failures) for one in wells) == len(PIXELS) - 1
    table = pd.read_csv(tmp_path / "out" / "predictions.csv", keep_default_na=False)
    assert len(table) == len(PIXELS)
    assert (table["error"] == "").sum() == 1


def test_the_reason_is_that_of_a_field_that_can_be_read(tmp_path, model_file, source):
    """Damaged files among those that do not fit do not hide why these do not."""
    for path in sorted(source.iterdir())[: 4 * len(WELLS) - 2]:
        path.write_bytes(b"no image")
    with pytest.raises(ImageError, match="which of them is GFP or RFP is not known"):
        wells_of_steps(screen(load_model(model_file), source, tmp_path / "out", **CPU))


def test_what_fields_have_in_common_is_said_before_they_are_classified(tmp_path, model_file, source):
    said: list[str] = []
    wells_of_steps(screen(load_model(model_file), source, tmp_path / "out", reading=READING, on_warning=said.append,
                          **CPU))  # fmt: skip
    assert any(text.startswith("3 fields were looked at first: the image does not say its pixel size") for text in said)


def test_another_bit_depth_is_said_before_the_first_field_is_classified(tmp_path):
    """8 bit images for a model that was trained on 16 bit ones: a screen of them takes hours, and means nothing."""
    pixels = {place: (field // 40).astype("uint8") for place, field in PIXELS.items()}
    source = write_zarr_plate(tmp_path / "plate.ome.zarr", pixels, "0.5")
    model = lively_model()
    classifier = Classifier(model, **CPU)
    known = [classifier.vectors(open_image(noise(2, 72, 72, seed=seed), axes="CYX"), [0]) for seed in range(6)]
    features, looks = np.concatenate([one for one, _ in known]), [look[0] for _, look in known]
    training = model.card.training.model_copy(update={"look": training_look(features, looks, features[:0], [])})
    said: list[str] = []
    steps = screen(model.with_card(training=training), source, tmp_path / "out", on_warning=said.append, **CPU)
    next(steps)
    steps.close()
    assert any("unlike the training images" in text and "another bit depth" in text for text in said)


def test_progress_never_goes_back(tmp_path, model_file, source):
    """Neither where a well begins, nor where another run has done a well meanwhile."""
    model, out = load_model(model_file), tmp_path / "out"
    wells_of_steps(screen(model, source, tmp_path / "whole", reading=READING, **CPU))
    fractions = []
    for step in screen(model, source, out, reading=READING, **CPU):
        if not fractions:
            shutil.copytree(tmp_path / "whole" / "parts" / "plate" / WELLS[2], out / "parts" / "plate" / WELLS[2])
        fractions.append(step.fraction)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
