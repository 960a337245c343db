"""Model files that are damaged, foreign or hostile: each is refused in one sentence, and nothing in it is ever run."""

from __future__ import annotations

import io
import math
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_files import CARD, Files, Payload, described, lively, read, refused, torch_bytes, with_weights, write

from napari_milcnn.atomic_write import sha256
from napari_milcnn.errors import ImageError, ModelError
from napari_milcnn.model import package_files, package_read
from napari_milcnn.model.package_read import load_model
from napari_milcnn.model.trained_model import TrainedModel

# bioimageio.spec leaves the closing of the files that it hashes to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainedModel, Path]:
    """Return a model with a full card, and the zip it was saved as."""
    model = lively().with_card(**CARD)
    return model, model.save(tmp_path_factory.mktemp("models") / "shapes.zip")


@pytest.fixture
def files(saved: tuple[TrainedModel, Path]) -> Files:
    """Return what is in the zip, to be spoiled."""
    return read(saved[1])


# --- cards that contradict themselves -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"classes": ["one"]}, "1 classes are named, the network has 2"),
        ({"classes": ["one", "one"]}, "the classes repeat a name"),
        ({"channels": ["a", "b", "c"]}, "3 channels are named, the network has 2"),
        ({"mean": [0.0]}, "one number for each of 2 channels"),
        ({"std": [1.0, 0.0]}, "std above zero"),
        ({"std": [1.0, "NaN"]}, "must be finite"),
        ({"mean": ["-Infinity", 1.0]}, "must be finite"),
        ({"pixel_size": 0}, r"config\.milcnn\.pixel_size is wrong: Input should be greater than 0"),
        ({"network": {"channels": 2, "classes": 2, "widths": [99999] * 6}}, "less than or equal to 2048"),
        ({"network": {"channels": 10**9, "classes": 2}}, "less than or equal to 256"),
        ({"network": {"channels": 2, "classes": 2, "a": "Infinity"}}, "finite"),
        ({"network": {"channels": 2, "classes": 2, "layers": ["os.system"]}}, "Extra inputs are not permitted"),
        ({"training": "all night"}, "valid dictionary or instance of TrainingRecord"),
        ({3: 4}, "keywords must be strings"),
        ({"classes": ["one", "two\x1b[2J"]}, r"cannot be a name: it holds the character \\x1b"),
        ({"classes": ["one", "two\nthree"]}, r"the character \\x0a"),
        ({"classes": ["one", "\u202eowt"]}, r"'\\u202eowt' cannot be a name: it holds the character \\u202e"),
        ({"classes": ["one", " "]}, "cannot be a name: it is empty"),
        ({"channels": ["a", "b" * 100_000]}, "has 100000 letters; expected at most 200"),
        ({"channels": ["a", "b\x85"]}, r"the character \\x85"),
        ({"description": "a\x1b]0;title\x07"}, r"holds the character \\x1b"),
        ({"credit": "x" * 100_000}, "a text of 100000 letters"),
        ({"thresholds": {"object": {"round": math.nan}}}, "the threshold of 'round' .object. is no finite number"),
        ({"thresholds": {"object": {"round": "Infinity"}}}, "is no finite number"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(
    files: Files, tmp_path: Path, change: dict[str, Any], match: str
) -> None:
    """Each fact is checked before a network is built."""
    spoiled = described(files, lambda d: d["config"]["milcnn"].update(change))
    refused(write(tmp_path / "m.zip", spoiled), match)


def test_a_fact_from_the_future_is_left_alone(files: Files, saved: tuple[TrainedModel, Path], tmp_path: Path) -> None:
    """A newer version may say more on the card; this one reads what it knows."""
    newer = described(files, lambda d: d["config"]["milcnn"].update(colour="red"))
    assert load_model(write(tmp_path / "m.zip", newer)).card.classes == saved[0].classes


@pytest.mark.parametrize("names", [("[/]", "[red]"), ("=cmd|' /C calc'!A0", "<b>bold</b>"), ("नि\u200dक", "<2 µm")])
def test_names_that_programs_could_misread_are_names(files: Files, tmp_path: Path, names: tuple[str, str]) -> None:
    """They are text, and what shows them escapes them."""
    spoiled = described(files, lambda d: d["config"]["milcnn"].update(classes=list(names), thresholds={}))
    assert load_model(write(tmp_path / "m.zip", spoiled)).classes == names


# --- files that are no model --------------------------------------------------------------------------------------


def test_a_missing_model_names_those_that_are_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A wrong name is most often a misspelt one."""
    monkeypatch.setattr(package_read, "shipped_models", lambda: {"nuclei": tmp_path, "yeast-sim": tmp_path})
    with pytest.raises(ModelError, match=r"yeast-sym does not exist; expected a model \.zip, or .*: nuclei, yeast-sim"):
        load_model("yeast-sym")
    with pytest.raises(ModelError, match="does not exist"):
        load_model(tmp_path / "yeast-sim.zip")
    refused(tmp_path, "holds no rdf.yaml")


def test_a_shipped_model_is_loaded_by_its_name(
    saved: tuple[TrainedModel, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With or without .zip; a file of that name in the folder goes first; without sample data the name is unknown."""
    model, path = saved
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(package_read, "shipped_models", lambda: {"shapes": path})
    assert load_model("shapes").path == load_model("shapes.zip").path == path
    model.with_card(name="Nearer").save("shapes.zip")
    assert load_model("shapes.zip").card.name == "Nearer"

    def no_samples() -> dict[str, Path]:
        raise ImageError("no sample data")

    monkeypatch.setattr(package_read, "shipped_models", no_samples)
    with pytest.raises(ModelError, match="none here"):
        load_model("shapes")


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip at all" * 10, pickle.dumps({"a": 1})])
def test_what_is_no_zip_is_refused(tmp_path: Path, data: bytes) -> None:
    """Empty, too short, text, a pickle."""
    path = tmp_path / "m.zip"
    path.write_bytes(data)
    refused(path, "is not a (whole )?zip file")


@pytest.mark.parametrize("kept", [0.001, 0.1, 0.5, 0.9, 0.99, 0.9999])
def test_a_cut_off_download_is_refused(saved: tuple[TrainedModel, Path], tmp_path: Path, kept: float) -> None:
    """Wherever the line broke."""
    data = saved[1].read_bytes()
    path = tmp_path / "m.zip"
    path.write_bytes(data[: int(kept * len(data))])
    refused(path, "is not a whole zip file .*; copy or download it again")


def test_an_encrypted_zip_is_refused(saved: tuple[TrainedModel, Path], tmp_path: Path) -> None:
    """The flag that asks for a password, set in the zip's directory."""
    data = bytearray(saved[1].read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path = tmp_path / "m.zip"
    path.write_bytes(data)
    refused(path, "encrypted")


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "..\\evil.txt", "C:evil.txt", "a/../../evil.txt"])
def test_a_name_that_leads_out_of_the_zip_is_refused(files: Files, tmp_path: Path, name: str) -> None:
    """Nothing is unpacked, and the name is said."""
    path = write(tmp_path / "in" / "m.zip", {**files, name: b"x"}) if (tmp_path / "in").mkdir() is None else None
    assert "evil.txt" in refused(path, "leads out of the zip")
    assert list(tmp_path.rglob("evil*")) == []


def test_a_link_is_refused(files: Files, tmp_path: Path) -> None:
    """A symbolic link in place of a file."""
    path = write(tmp_path / "m.zip", files)
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    refused(path, "'link' is a link")


def test_a_password_is_said(files: Files, tmp_path: Path) -> None:
    """It is no damage, and downloading it again does not help."""
    path = write(tmp_path / "m.zip", files)
    packed = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed[packed.rindex(mark) + flags] |= 1
    path.write_bytes(packed)
    refused(path, "is locked with a password; get the model from its source again")


def test_a_name_that_stands_twice_is_refused(files: Files, tmp_path: Path) -> None:
    """Which of the two was checked and which is read would be anyone's guess."""
    path = write(tmp_path / "m.zip", files)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("rdf.yaml", files["rdf.yaml"])
    refused(path, "a name stands in it twice")


def test_an_unusual_packing_is_refused(files: Files, tmp_path: Path) -> None:
    """Bzip2 unpacks without a limit, and no model is packed in it."""
    refused(write(tmp_path / "m.zip", files, zipfile.ZIP_BZIP2), "packed in a way that bioimage.io models are not")


def test_a_zip_that_would_fill_the_memory_is_refused(
    saved: tuple[TrainedModel, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sizes are added up before anything is unpacked."""
    sizes = sum(entry.file_size for entry in zipfile.ZipFile(saved[1]).infolist())
    monkeypatch.setattr(package_files, "LARGEST_MODEL", sizes)
    load_model(saved[1])
    monkeypatch.setattr(package_files, "LARGEST_MODEL", sizes - 1)
    refused(saved[1], "it unpacks to .* GB, more than")
    monkeypatch.setattr(package_files, "LARGEST_MODEL", sizes)
    monkeypatch.setattr(package_read, "LARGEST_DESCRIPTION", 100)
    refused(saved[1], "its description has .* bytes, more than 100")


@pytest.mark.parametrize("name", ["weights.pt", "README.md"])
def test_a_zip_that_lies_about_its_size_is_not_unpacked(files: Files, tmp_path: Path, name: str) -> None:
    """48 MiB of zeros that call themselves ten bytes: ten are read, and they are not what the check sum says."""
    path = write(tmp_path / "m.zip", {name: bytes(48 << 20), **{k: v for k, v in files.items() if k != name}})
    data = bytearray(path.read_bytes())
    data[22:26] = struct.pack("<I", 10)
    directory = data.index(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = struct.pack("<I", 10)
    path.write_bytes(data)
    assert memory_of(lambda: refused(path, f"Bad CRC-32 for file '{name}'")) < 8 << 20


def test_a_file_that_the_description_does_not_name_is_not_unpacked(files: Files, tmp_path: Path) -> None:
    """It costs no memory, however large it is; above the size of any model, the zip is refused."""
    path = write(tmp_path / "m.zip", {**files, "notes.txt": bytes(100 << 20)})
    assert memory_of(lambda: load_model(path)) < 8 << 20
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 1_900_000_000)
    path.write_bytes(data)
    refused(path, "unpacks to 1.9 GB, more than 1.1 GB")


def memory_of(action: Callable[[], Any]) -> int:
    """Return the most bytes that Python held at once while something was done."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("count", [300, 3000])
def test_a_zip_of_thousands_of_files_is_refused(files: Files, tmp_path: Path, count: int) -> None:
    """By the size of its list of files, before the list is read."""
    path = write(tmp_path / "m.zip", {**files, **{f"{i}.txt": b"" for i in range(count)}})
    refused(path, "holds 3.* files, more than 256" if count == 300 else "is refused: its list of files has .* bytes")


@pytest.mark.parametrize(
    ("width", "match"), [(2048, "the network has 222,.* weights, expected at most 64"), (1024, "expected 22.* or more")]
)
def test_a_wide_network_without_its_weights_is_refused_before_it_is_built(
    files: Files, tmp_path: Path, width: int, match: str
) -> None:
    """Cards of wide networks: one that nobody trains, and one whose weights are not there."""
    wide = {"channels": 2, "classes": 2, "widths": [width] * 6}
    path = write(tmp_path / "m.zip", described(files, lambda d: d["config"]["milcnn"].update(network=wide)))
    assert memory_of(lambda: refused(path, match)) < 8 << 20


@pytest.mark.parametrize("top", ["shapes/", "a model of shapes/"])
def test_a_repacked_or_unpacked_model_loads(
    files: Files, saved: tuple[TrainedModel, Path], tmp_path: Path, top: str
) -> None:
    """Zip and folder, with one folder on top of its files or none, and with what macOS adds."""
    whole = {
        **{top + name: data for name, data in files.items()},
        "__MACOSX/shapes/._rdf.yaml": b"x",
        ".DS_Store": b"y",
    }
    assert load_model(write(tmp_path / "again.zip", whole)).digest == saved[0].digest
    with zipfile.ZipFile(tmp_path / "again.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    for folder in (tmp_path / "unpacked", tmp_path / "unpacked" / top):
        loaded = load_model(folder)
        assert (loaded.digest, loaded.path) == (saved[0].digest, folder)
    assert load_model(tmp_path / "unpacked" / top / "rdf.yaml").path == tmp_path / "unpacked" / top
    (tmp_path / "unpacked" / top / "weights.pt").write_bytes(b"x")
    refused(tmp_path / "unpacked", "another SHA-256")
    (tmp_path / "unpacked" / top / "weights.pt").unlink()
    (tmp_path / "unpacked" / top / "weights.pt").symlink_to(tmp_path / "again.zip")
    refused(tmp_path / "unpacked", "lacks the file 'weights.pt'")


def test_two_models_in_one_zip_are_told_apart_by_nobody(files: Files, tmp_path: Path) -> None:
    """Neither is taken."""
    both = {top + name: data for name, data in files.items() for top in ("a/", "b/")}
    refused(write(tmp_path / "m.zip", both), "holds 2 models, in a, b")


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """It has no end, and nobody writes to it."""
    os.mkfifo(tmp_path / "m.zip")
    refused(tmp_path / "m.zip", "is a pipe or a device; expected a model .zip")


@pytest.mark.parametrize("name", ["weights.pt", "README.md", "image.npy", "class_maps.npy"])
def test_a_file_that_was_changed_is_refused(files: Files, tmp_path: Path, name: str) -> None:
    """One byte more than the description's hash was made of."""
    refused(write(tmp_path / "m.zip", {**files, name: files[name] + b"\n"}), f"'{name}' has another SHA-256")


@pytest.mark.parametrize("name", ["weights.pt", "README.md", "scores.npy"])
def test_a_file_that_is_missing_is_named(files: Files, tmp_path: Path, name: str) -> None:
    """The description names it, the zip lacks it."""
    del files[name]
    refused(write(tmp_path / "m.zip", files), f"lacks the file '{name}'")


def test_a_zip_without_description_is_refused(files: Files, tmp_path: Path) -> None:
    """It says what it found instead."""
    del files["rdf.yaml"]
    refused(write(tmp_path / "m.zip", files), "holds no rdf.yaml, so it is not a bioimage.io model; found .*README.md")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d["config"].pop("milcnn"), "a bioimage.io model, but not one of napari-milcnn: .* no config.milcnn"),
        (lambda d: d.pop("config"), "no config.milcnn"),
        (lambda d: d.update(config=["milcnn"]), "no config.milcnn"),
        (lambda d: d.update(type="dataset"), "describes no model"),
        (lambda d: d["weights"].pop("pytorch_state_dict"), "names no pytorch_state_dict weights"),
        (lambda d: d.update(weights="weights.pt"), "names no pytorch_state_dict weights"),
        (lambda d: d["weights"]["pytorch_state_dict"].pop("sha256"), "with their SHA-256"),
        (lambda d: d["weights"]["pytorch_state_dict"].update(source=["weights.pt"]), "names no pytorch_state_dict"),
        (
            lambda d: d["weights"]["pytorch_state_dict"].update(source="https://example.org/w.pt"),
            "lacks the file 'http",
        ),
        (lambda d: d["weights"]["pytorch_state_dict"].update(sha256=0), "with their SHA-256"),
    ],
)
def test_a_foreign_model_is_refused(files: Files, tmp_path: Path, change: Callable[..., Any], match: str) -> None:
    """A description of something else, or of a bioimage.io model of somebody else."""
    refused(write(tmp_path / "m.zip", described(files, change)), match)


@pytest.mark.parametrize(
    "architecture",
    [
        {"import_from": "os", "callable": "system", "kwargs": {"command": "exit 1"}},
        {"import_from": "napari_milcnn.network.mil_network", "callable": "exec"},
        {"callable": "build_network", "source": "network.py", "sha256": sha256(b"raise SystemExit")},
        "napari_milcnn.network.mil_network.build_network",
        None,
    ],
)
def test_a_network_that_is_not_ours_is_never_built(files: Files, tmp_path: Path, architecture: Any) -> None:
    """The file names its architecture; only ours is taken, and by our own import."""
    files["network.py"] = b"raise SystemExit"
    change = described(files, lambda d: d["weights"]["pytorch_state_dict"].update(architecture=architecture))
    refused(write(tmp_path / "m.zip", change), "asks for the network .*no code is run")


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"pooling": "max"}, "stated twice, and differently: pooling is 'max' in the kwargs .*, and 'noisy_and' in"),
        ({"widths": [2, 2, 2, 2, 2, 4]}, r"widths is \[2, 2, 2, 2, 2, 4\] in the kwargs"),
        ({"layers": 7}, "layers is 7 in the kwargs .*, and nothing of that name in config.milcnn"),
        ({"widths": ...}, r"differently: widths is \[32, .*\] in the kwargs .*, and \[2, "),  # left out
        (["max"], r"kwargs of its architecture are \['max'\], expected a dictionary"),
    ],
)
def test_a_network_that_is_stated_in_two_ways_is_refused(files: Files, tmp_path: Path, kwargs: Any, match: str) -> None:
    """Other programs read the kwargs, and take defaults for those left out; a file without any states nothing else."""
    path, ours = tmp_path / "m.zip", lambda d: d["weights"]["pytorch_state_dict"]["architecture"]

    def combined(stated: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in {**stated, **changed}.items() if value is not ...}

    change = described(files, lambda d: ours(d).update(
        kwargs=combined(ours(d)["kwargs"], kwargs) if isinstance(kwargs, dict) else kwargs))  # fmt: skip
    refused(write(path, change), match)
    assert load_model(write(path, described(files, lambda d: ours(d).pop("kwargs")))).classes


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a: &a [x]\nb: *a\n", "refers to itself by YAML aliases"),
        ("- &a [x, x]\n" + "".join(f"- &{y} [{f'*{x}, ' * 9}]\n" for x, y in pairwise("abcdefghijk")),
         "refers to itself by YAML aliases"),
        ("type: !!python/object/apply:os.mkdir [RAN]\n", "cannot be read as YAML .*could not determine a constructor"),
        ("type: !!python/name:os.system ''\n", "cannot be read as YAML"),
        ("type: !!bool perhaps\n", "cannot be read as YAML"),
        ("type: !!int ''\n", "cannot be read as YAML"),
        ("type: !!timestamp today\n", "cannot be read as YAML"),
        ("type: " + "9" * 5000, "cannot be read as YAML"),
        ("[" * 100_000, "nested more than 64 deep"),
        ("a:\n" + "".join(" " * i + "-\n" for i in range(1, 100)), "nested more than 64 deep"),
        ("type: [model\n", "cannot be read as YAML"),
        ("just words", "describes no model"),
        ("", "describes no model"),
    ],
    ids=["alias", "bomb", "object", "name", "bool", "int", "time", "long number", "deep", "deep list", "broken",
         "words", "empty"],
)  # fmt: skip
def test_yaml_made_to_hurt_is_refused(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, match: str
) -> None:
    """Aliases that grow, tags that build objects, values that break the reader."""
    monkeypatch.chdir(tmp_path)
    refused(write(tmp_path / "m.zip", {**files, "rdf.yaml": text.encode()}), match)
    assert [path.name for path in tmp_path.iterdir()] == ["m.zip"]


def test_a_description_that_is_no_text_is_refused(files: Files, tmp_path: Path) -> None:
    """Bytes that are not UTF-8."""
    spoiled = {**files, "rdf.yaml": files["rdf.yaml"].replace(b"Nobody", b"\xff\xfe\xfa")}
    refused(write(tmp_path / "m.zip", spoiled), "cannot be read as YAML")


# --- weights that are none ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("disguise", ["pickle", "torch", "legacy torch", "inside the tensors"])
def test_a_pickle_that_runs_code_is_refused_and_not_run(files: Files, tmp_path: Path, disguise: str) -> None:
    """With its hash made right. The same bytes, loaded by torch without weights_only, do run: the payload is live."""
    ran = tmp_path / "ran"
    weights = {
        "pickle": lambda: pickle.dumps(Payload(ran)),
        "torch": lambda: torch_bytes(Payload(ran)),
        "legacy torch": lambda: torch_bytes({"a": Payload(ran)}, _use_new_zipfile_serialization=False),
        "inside the tensors": lambda: torch_bytes({"head.bias": torch.zeros(2), "head.weight": Payload(ran)}),
    }[disguise]()
    refused(write(tmp_path / "m.zip", with_weights(files, weights)), "its weights are not plain tensors .*run")
    assert not ran.exists()
    if disguise == "pickle":
        pickle.loads(weights)
    else:
        torch.load(io.BytesIO(weights), weights_only=False)
    assert ran.exists()


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        (lambda state: b"", "not plain tensors"),
        (lambda state: b"words", "not plain tensors"),
        (lambda state: torch_bytes(torch.nn.Linear(2, 2)), "not plain tensors"),
        (lambda state: torch_bytes(list(state.values())), "not a dictionary of named tensors"),
        (lambda state: torch_bytes({"head.bias": 3.0}), "not a dictionary of named tensors"),
        (lambda state: torch_bytes(dict(enumerate(state.values()))), "not a dictionary of named tensors"),
        (lambda state: torch_bytes({}), "do not fit its network .*Missing key"),
        (lambda state: torch_bytes({**state, "extra": torch.zeros(1)}), "do not fit its network .*Unexpected key"),
        (lambda state: torch_bytes({**state, "head.bias": torch.zeros(3)}), "do not fit its network .*head.bias"),
        (lambda state: torch_bytes({**state, "head.bias": torch.empty(1).expand(10**12)}), "do not fit its network"),
        (lambda state: torch_bytes({**state, "head.bias": torch.tensor([0, math.nan])}), "NaN or infinity, in head"),
        (lambda state: torch_bytes({**state, "head.bias": torch.tensor([0, math.inf])}), "NaN or infinity, in head"),
        (lambda state: torch_bytes({**state, "head.bias": torch.zeros(2, device="meta")}), "do not fit its network"),
        (lambda state: torch_bytes({**state, "head.bias": torch.zeros(2).to_sparse()}), "do not fit its network"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused(
    files: Files, saved: tuple[TrainedModel, Path], tmp_path: Path, weights: Callable[..., bytes], match: str
) -> None:
    """No tensors, unnamed tensors, too few, too many, of another shape, or not finite."""
    data = weights(dict(saved[0].network.state_dict()))
    refused(write(tmp_path / "m.zip", with_weights(files, data)), match)


def test_weights_with_false_notes_are_read_as_plain_tensors(
    files: Files, saved: tuple[TrainedModel, Path], tmp_path: Path
) -> None:
    """Torch keeps notes beside a state_dict and believes them: ours are the tensors alone."""
    state = saved[0].network.state_dict()
    state._metadata = 5
    loaded = load_model(write(tmp_path / "m.zip", with_weights(files, torch_bytes(state))))
    assert loaded.digest == saved[0].digest


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_pickles_with_a_wrong_byte_are_refused(
    saved: tuple[TrainedModel, Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Weights with random bytes in their description, their hash made right: tensors, or a refusal."""
    parts = zipfile.ZipFile(io.BytesIO(torch_bytes(saved[0].network.state_dict())))
    stored = {name: bytearray(parts.read(name)) for name in parts.namelist()}
    pickled = next(content for name, content in stored.items() if name.endswith("data.pkl"))
    for place in data.draw(st.lists(st.integers(0, len(pickled) - 1), min_size=1, max_size=4)):
        pickled[place] = data.draw(st.sampled_from(b".0Rbeu}](tQ\x80\xff"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in stored.items():
            archive.writestr(name, bytes(content))
    weights = buffer.getvalue()
    path = write(tmp_path_factory.getbasetemp() / "bent.zip", with_weights(read(saved[1]), bytes(weights)))
    try:
        loaded = load_model(path)
    except ModelError:
        return
    assert loaded.card == saved[0].card


@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_damaged_byte_is_noticed_or_harmless(
    saved: tuple[TrainedModel, Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A few bytes of a whole zip, half of them in its directory, changed: the same model or a refusal, nothing else."""
    model, path = saved
    spoiled = bytearray(path.read_bytes())
    directory = spoiled.index(b"PK\x01\x02")
    places = st.integers(0, len(spoiled) - 1) | st.integers(directory, len(spoiled) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=4)):
        spoiled[place] ^= data.draw(st.integers(1, 255))
    damaged = tmp_path_factory.getbasetemp() / "damaged.zip"
    damaged.write_bytes(spoiled)
    try:
        loaded = load_model(damaged)
    except ModelError:
        return
    assert loaded.digest == model.digest


def test_a_name_of_no_letters_is_refused(saved: tuple[TrainedModel, Path], tmp_path: Path) -> None:
    """A zip directory with an empty name, over which Python's own zipfile stumbles."""
    data = bytearray(saved[1].read_bytes())
    directory = data.index(b"PK\x01\x02")
    data[directory + 46] = 0
    path = tmp_path / "m.zip"
    path.write_bytes(data)
    refused(path, "is not a whole zip file")
