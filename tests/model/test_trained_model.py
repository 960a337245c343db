"""A trained model: what goes into its file comes out, and bioimageio.spec agrees."""

from __future__ import annotations

import io
import json
import math
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bioimageio.spec import load_model_description
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from model_files import CARD, THIN, Files, lively, read

from napari_milcnn.errors import ModelError, OptionsError, OutputError
from napari_milcnn.model import trained_model as model_file
from napari_milcnn.model.package_read import load_model
from napari_milcnn.model.trained_model import TrainedModel, card_json, card_text, new_model

# bioimageio.spec leaves the closing of the files that it hashes to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

NAMES = st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"]), max_size=12)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainedModel, Path]:
    """Return a model with a full card, and the zip it was saved as."""
    model = lively().with_card(**CARD)
    return model, model.save(tmp_path_factory.mktemp("models") / "shapes.zip")


@pytest.fixture
def files(saved: tuple[TrainedModel, Path]) -> Files:
    """Return what is in the zip, to be spoiled."""
    return read(saved[1])


# --- round trip ---------------------------------------------------------------------------------------------------


def test_a_loaded_model_is_the_saved_one(saved: tuple[TrainedModel, Path]) -> None:
    """Same card, same digest, the very same numbers, in eval mode."""
    model, path = saved
    loaded = load_model(path)
    assert loaded.card == model.card
    assert loaded.digest == model.digest
    assert loaded.path == path
    assert not loaded.network.training
    image = torch.rand(1, 2, 100, 100, generator=torch.Generator().manual_seed(0))
    for found, wanted in zip(loaded.network(image), model.network(image), strict=True):
        assert torch.equal(found, wanted)
    assert (loaded.classes, loaded.channels, loaded.pixel_size) == (("round", "long"), ("GFP", "RFP"), 0.65)


@pytest.mark.parametrize(
    ("preset", "options"),
    [("paper", {}), ("compact", {"pooling": "generalised_mean", "r": 5.0}), ("compact", {"pooling": "max"})],
)
def test_every_kind_of_network_makes_the_round_trip(tmp_path: Path, preset: str, options: dict[str, Any]) -> None:
    """With and without batch norm, thresholds and the first pool; a digest over weights and card says so."""
    model = lively(preset=preset, **options)
    loaded = load_model(model.save(tmp_path / "m.zip"))
    assert loaded.card.network == model.card.network
    assert loaded.digest == model.digest


def test_the_digest_names_the_model_and_not_the_file(saved: tuple[TrainedModel, Path], tmp_path: Path) -> None:
    """Saved again elsewhere it stays; another card or one other weight changes it."""
    model, path = saved
    again = load_model(load_model(path).save(tmp_path / "new folder" / "Ünder.v2.zip"))
    assert again.digest == model.digest
    assert again.with_card(credit="Somebody").digest != model.digest
    with torch.no_grad():
        again.network.head.bias[0] += 1e-3
    assert again.digest != model.digest


@pytest.mark.parametrize(
    "classes",
    [
        ("yes", "no"),
        ("on", "Off", "y", "N", "true", "False", "null", "~"),
        ("12:30", "1e5", "1E-5", "2020-01-01", "0o17", "017", "0x1f", "1_000", "1.0", ".5", "-3", ".inf", ".nan", "08"),
        ("=", "<<", "- a", "a: b", "#b", "&c", "*c", "!d", "%e", "@f", "`g", "{h", "[i", "'j", '"k', "|", ">", "?"),
        ("µm²", "核", "İ", "a/b\\c", " spaces ", "a\u200db", "é", "e\u0301", "ﬁ", "\u3000x", "😀"),
    ],
    ids=["yes-no", "words", "numbers", "signs", "letters"],
)
def test_class_names_come_back_as_typed(tmp_path: Path, classes: tuple[str, ...]) -> None:
    """Names that one YAML or another takes for truth, time, number or syntax."""
    loaded = load_model(lively(classes).save(tmp_path / "names.zip"))
    assert loaded.classes == classes


@settings(max_examples=15, deadline=None, derandomize=True, phases=[Phase.generate])
@given(classes=st.lists(NAMES.filter(str.strip), min_size=20, max_size=20, unique=True))
def test_any_class_name_comes_back_as_typed(tmp_path_factory: pytest.TempPathFactory, classes: list[str]) -> None:
    """Any line of text that can be shown."""
    loaded = load_model(lively(tuple(classes)).save(tmp_path_factory.getbasetemp() / "any names.zip"))
    assert loaded.classes == tuple(classes)


def test_a_figure_that_could_not_be_measured_does_not_lose_the_model(tmp_path: Path) -> None:
    """NaN is no JSON and no YAML number: it must come back, or a trained model cannot be loaded."""
    model = lively().with_card(metrics={"mean average precision": math.nan, "loss": math.inf})
    loaded = load_model(model.save(tmp_path / "nan.zip"))
    assert math.isnan(loaded.card.metrics["mean average precision"])
    assert loaded.card.metrics["loss"] == math.inf
    assert loaded.digest == model.digest


def test_loading_leaves_the_random_state(saved: tuple[TrainedModel, Path]) -> None:
    """A script that loads a model draws the numbers it drew before."""
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    load_model(saved[1])
    new_model(["a"], ["x"], **THIN)
    assert torch.equal(torch.rand(3), expected)


def test_normalisation_is_the_cards() -> None:
    """(raw - mean) / std per channel, float32, from whole numbers without overflow."""
    model = lively().with_card(mean=(100.0, 10.0), std=(50.0, 2.0))
    raw = np.array([[[0, 200]], [[10, 14]]], np.uint16)
    found = model.fixed_intensity.apply(raw)
    assert found.dtype == np.float32
    assert found.tolist() == [[[-2, 2]], [[0, 2]]]


# --- bioimage.io --------------------------------------------------------------------------------------------------


def test_bioimageio_agrees(saved: tuple[TrainedModel, Path]) -> None:
    """The library of the format finds nothing wrong, and reads our names and sizes."""
    model, path = saved
    description = load_model_description(path, perform_io_checks=True)
    assert description.validation_summary.status in {"passed", "valid-format"}
    assert description.format_version.startswith("0.5.")
    assert description.name == model.card.name
    assert [author.name for author in description.authors] == list(model.card.authors)
    assert description.config.model_dump()["milcnn"]["classes"] == list(model.classes)
    weights = description.weights.pytorch_state_dict
    assert (weights.architecture.import_from, weights.architecture.callable) == (
        "napari_milcnn.network.mil_network", "build_network",
    )  # fmt: skip


@pytest.mark.parametrize("single_label", [True, False])
def test_the_test_tensors_are_what_the_network_says(tmp_path: Path, single_label: bool) -> None:
    """The image in the zip, normalised by the card and run, gives the maps and probabilities in the zip."""
    model = lively().with_card(mean=(100.0, 20.0), std=(10.0, 5.0), single_label=single_label)
    model.network.train()
    files = read(model.save(tmp_path / "m.zip"))
    assert model.network.training
    arrays = {name.removesuffix(".npy"): np.load(io.BytesIO(data)) for name, data in files.items() if ".npy" in name}
    model.network.eval()
    output = model.network(torch.from_numpy(model.fixed_intensity.apply(arrays["image"][0])[None]))
    scores = output.scores.softmax(1) if single_label else output.scores.sigmoid()
    wanted = {"class_maps": output.class_maps.sigmoid(), "probabilities": output.probabilities, "scores": scores}
    assert arrays["class_maps"].std() > 0.1
    for name, tensor in wanted.items():
        np.testing.assert_allclose(arrays[name], tensor.detach().numpy(), atol=1e-4)


def test_a_model_that_scales_each_image_says_so_to_other_programs(tmp_path: Path) -> None:
    """The format knows no such step: none is written, the test image is scaled already, and the README says how."""
    model = lively(normalise="image", scale=0.5)
    path = model.save(tmp_path / "m.zip")
    files = read(path)
    description = load_model_description(path, perform_io_checks=True)
    (found,) = description.inputs
    assert [step.id for step in found.preprocessing] == ["ensure_dtype"]  # which the library adds itself
    assert found.description == (
        "Intensities less background, over spread, as README.md says, at 0.5 of the size of the training images."
    )
    assert found.axes[2].scale == pytest.approx(2 * 0.65)
    assert "napari_milcnn.images.intensity" in files["README.md"].decode()
    image, maps = (torch.from_numpy(np.load(io.BytesIO(files[name]))) for name in ("image.npy", "class_maps.npy"))
    torch.testing.assert_close(model.network(image).class_maps.sigmoid(), maps, atol=1e-4, rtol=0)
    loaded = load_model(path)
    assert (loaded.card.normalise, loaded.card.scale, loaded.digest) == ("image", 0.5, model.digest)
    assert "each plane is scaled by its own background and spread; the network sees images at 0.5" in card_text(loaded)


def test_a_card_that_uses_nothing_new_is_written_as_before() -> None:
    """The digest covers the written card, so what version 0.1.0 did not know is written only where it is used."""
    card = lively().card
    assert not {"normalise", "scale"} & set(json.loads(card.model_dump_json()))
    assert (card.normalise, card.scale) == ("training", 1.0)
    assert lively().with_card(normalise="image").digest != lively().digest


@pytest.mark.parametrize(
    ("preset", "options", "found"),
    [("compact", {}, ("image", 1.0)), ("paper", {}, ("training", 1.0)),
     ("paper", {"normalise": "image", "scale": 0.4}, ("image", 0.4))],
)  # fmt: skip
def test_the_preset_says_how_an_image_is_read(preset: str, options: dict[str, Any], found: tuple[str, float]) -> None:
    """The paper's network has the paper's normalisation; what is given goes first."""
    card = new_model(["a"], ["x"], preset, **options, **THIN).card
    assert (card.normalise, card.scale) == found


@pytest.mark.parametrize("name", ["ab", "Kéfir/β: 2", "x" * 100])
def test_short_and_foreign_names_are_made_to_fit(tmp_path: Path, name: str) -> None:
    """The format wants five plain letters; our own card keeps the name as typed."""
    path = lively().with_card(name=name).save(tmp_path / "m.zip")
    assert load_model(path).card.name == name
    assert load_model_description(path).name.isascii()


def test_a_licence_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    """And no half model stays behind."""
    with pytest.raises(ModelError, match="license"):
        lively().with_card(license="do what you like").save(tmp_path / "m.zip")
    assert list(tmp_path.iterdir()) == []


# --- saving -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model", "model.pt", "model.zip.bak"])
def test_a_model_is_saved_as_zip_only(tmp_path: Path, name: str) -> None:
    """The message says what to call it."""
    with pytest.raises(ModelError, match=rf"'{re.escape(name)}'; name it .*\.zip"):
        lively().save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("failure", "translated"), [(OSError(28, "No space left on device"), OutputError), (ModelError("no"), ModelError)]
)
def test_a_failing_save_leaves_the_old_model(
    saved: tuple[TrainedModel, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    failure: Exception, translated: type[Exception],
) -> None:  # fmt: skip
    """Half of the new file is written when the disk is full: the old one is still whole, and alone."""
    model, _ = saved
    path = model.save(tmp_path / "m.zip")
    before = path.read_bytes()

    def half(network: Any, card: Any, folder: Path, out: Path) -> None:
        out.write_bytes(before[: len(before) // 2])
        raise failure

    monkeypatch.setattr(model_file, "write_package", half)
    with pytest.raises(translated):
        model.with_card(name="Another name").save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="POSIX limits")
@pytest.mark.parametrize("most", [100, 5_000, 30_000])
def test_a_disk_that_fills_up_anywhere_is_said_in_words(tmp_path: Path, most: int) -> None:
    """While weights, test tensors or the zip are written: the system's reason, the advice, and nothing left behind."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        with pytest.raises(
            OutputError, match=r"m\.zip cannot be written: File too large; .*choose a folder on another"
        ):
            lively().save(tmp_path / "m.zip")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_saving_leaves_no_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And needs no room on the disk of temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    path = lively().save(tmp_path / "models" / "m.zip")
    assert list((tmp_path / "temporary").iterdir()) == []
    (tmp_path / "temporary").rmdir()
    assert load_model(lively().save(path)).digest == lively().digest
    assert list(path.parent.iterdir()) == [path]


def test_saving_over_a_model_replaces_it(tmp_path: Path) -> None:
    """The second save wins, and the folder holds one file."""
    path = tmp_path / "m.zip"
    lively().save(path)
    lively().with_card(name="The second").save(path)
    assert load_model(path).card.name == "The second"
    assert list(tmp_path.iterdir()) == [path]


# --- new models and cards -----------------------------------------------------------------------------------------


def test_a_new_model_is_the_same_for_the_same_seed() -> None:
    """And another for another seed."""
    first, second, other = (new_model(["a"], ["x"], seed=seed, **THIN) for seed in (1, 1, 2))
    assert first.digest == second.digest != other.digest


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"classes": ["a", "a"]}, "classes must be a list of different names, found"),
        ({"classes": []}, "classes must be"),
        ({"classes": "nucleus"}, "classes must be"),
        ({"channels": ["x", "x"]}, "channels must be"),
        ({"preset": "huge"}, "there is no preset 'huge'; expected one of paper, compact"),
        ({"pixel_size": -1.0}, "'pixel_size' is -1.0: Input should be greater than 0"),
        ({"pixel_size": math.inf}, "'pixel_size' is inf"),
        ({"b": 1.0}, "'b' is 1.0: Input should be less than 1"),
        ({"poling": "max"}, "there is no option 'poling'; expected one of .*pooling"),
    ],
)
def test_an_impossible_model_is_refused(change: dict[str, Any], match: str) -> None:
    """With the option, what it was and what it could be."""
    with pytest.raises(OptionsError, match=match):
        new_model(**{"classes": ["a"], "channels": ["x"], **change})


def test_the_card_in_words_and_as_data(saved: tuple[TrainedModel, Path]) -> None:
    """Classes, sizes, figures and the digest stand in both."""
    model, _ = saved
    text, data = card_text(model), card_json(model)
    for fact in ("Round or long", "round, long (one per image)", "0.65 µm", "receptive field 67 px", "0.750"):
        assert fact in text
    assert data["sha256"] == model.digest
    assert data["classes"] == ["round", "long"]
    assert model.digest in text


@pytest.mark.parametrize(
    ("count", "said"), [(None, ""), (0, ""), (1, "1 training image shows"), (2, "2 training images")]
)
def test_the_card_says_that_empty_images_get_a_class(compact, count, said):
    model = compact.with_card(training={"structureless": count})
    assert model.card.training.structureless_sentence.startswith(said)
    assert ("empty images" in card_text(model)) == bool(said)
