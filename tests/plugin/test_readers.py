"""A dropped model becomes the current one; other zips are left to other plugins; no layer is ever added."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import npe2
import pytest
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager

from napari_milcnn.errors import ModelError
from napari_milcnn.plugin.current_model import CurrentModel, current
from napari_milcnn.plugin.readers import get_reader, read_model


@pytest.fixture(scope="module")
def saved(compact, tmp_path_factory) -> Path:
    """Return the zip of a small model."""
    return compact.with_card(name="small").save(tmp_path_factory.mktemp("model") / "M.zip")


@pytest.fixture(autouse=True)
def _nothing_current():
    current.clear()
    yield
    current.clear()


@pytest.fixture
def plugins(npe2pm):
    """Return a plugin manager that knows this plugin alone."""
    npe2pm.register(npe2.PluginManifest.from_distribution("napari-milcnn"))
    return npe2pm


def write_zip(path: Path, **files: str) -> Path:
    """Write a zip of text files."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("_", "."), text)
    return path


def test_a_dropped_model_is_the_current_one(saved, plugins):
    """Napari opens the model without a layer and shows its name."""
    viewer = ViewerModel()
    assert viewer.open(saved, plugin="napari-milcnn") == []
    assert len(viewer.layers) == 0
    assert current.model.classes == ("a", "b", "c")
    assert current.model.path == saved
    assert notification_manager.records[-1].message == "small is now the current model. Its classes: a, b, c."


def test_napari_finds_the_reader_by_itself(saved, plugins):
    """The manifest claims *.zip in any case, and no folders."""
    npe2.read([str(saved)], stack=False)
    assert current.model is not None
    found = plugins.iter_compatible_readers
    assert [one.plugin_name for one in found(["x/M.ZIP"])] == ["napari-milcnn"]
    assert list(found([str(saved.parent)])) == list(found(["image.tif"])) == []


def test_a_model_that_was_packed_again_and_a_zip_made_to_hurt(saved, tmp_path):
    """Everything in one folder of the zip: a model. A directory that breaks zipfile: loading it says what is wrong."""
    with zipfile.ZipFile(saved) as whole, zipfile.ZipFile(tmp_path / "again.zip", "w") as again:
        for name in whole.namelist():
            again.writestr(f"top/{name}", whole.read(name))
    assert get_reader(str(tmp_path / "again.zip")) is read_model
    content = bytearray(saved.read_bytes())
    content[content.index(b"PK\x01\x02") + 46] = 0
    (tmp_path / "hurt.zip").write_bytes(content)
    assert get_reader(str(tmp_path / "hurt.zip")) is read_model
    with pytest.raises(ModelError, match="is not a whole zip file"):
        read_model(str(tmp_path / "hurt.zip"))
    os.mkfifo(tmp_path / "pipe.zip")
    assert get_reader(str(tmp_path / "pipe.zip")) is None


def test_one_model_of_a_list(saved):
    """A stack of one model is opened; of two models, neither can be chosen."""
    assert get_reader([str(saved)])([str(saved)]) == [(None,)]
    assert current.model.path == saved
    with pytest.raises(
        ModelError, match="2 models were opened as one stack; expected one: open only the model to work with"
    ):
        get_reader([str(saved)] * 2)([str(saved)] * 2)


def test_foreign_files_are_left_to_others(tmp_path, saved):
    """A zip without a description, text named .zip, nothing there, an empty list, one foreign zip among two."""
    foreign = write_zip(tmp_path / "tables.zip", a_csv="1,2")
    text = tmp_path / "text.zip"
    text.write_text("no zip")
    for path in (foreign, text, tmp_path / "missing.zip", tmp_path):
        assert get_reader(str(path)) is None
    assert get_reader([]) is None
    assert get_reader([str(saved), str(foreign)]) is None


def test_broken_models_give_a_message(tmp_path, saved, plugins):
    """A truncated zip and a model of another tool are refused; the current model stays."""
    read_model(str(saved))
    half = tmp_path / "half.zip"
    half.write_bytes(saved.read_bytes()[: saved.stat().st_size // 2])
    other = write_zip(tmp_path / "other.zip", rdf_yaml="type: model")
    for path, message in ((half, "is not a whole zip file"), (other, "not one of napari-milcnn")):
        with pytest.raises(ModelError, match=message):
            ViewerModel().open(path, plugin="napari-milcnn")
    assert current.model.path == saved


def test_the_current_model_emits_its_changes(compact):
    """Each change is emitted once, with the new model; setting the same model again is not a change."""
    here, seen = CurrentModel(), []
    here.changed.connect(seen.append)
    here.set(compact)
    here.set(compact)
    assert here.model is compact
    here.clear()
    here.clear()
    assert here.model is None
    assert seen == [compact, None]


def test_choosing_a_reader_is_light():
    """Every dropped zip calls this reader, so it must load neither torch nor Qt."""
    code = "import sys, napari_milcnn.plugin.readers, napari_milcnn.plugin.writers; "
    code += "print([name for name in ('torch', 'qtpy', 'napari', 'zarr') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
