"""The package as a whole: its public face, what importing it loads, the README's code, the manifest, the samples."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import napari_milcnn as mil

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "napari", "qtpy", "PyQt6", "PySide6", "magicgui", "zarr", "skimage")


def fresh(code):
    """Run code in a new interpreter and return what it prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_public_face():
    """Every public name is there, sorted, and no other is promised."""
    assert mil.__all__ == sorted(mil.__all__)
    assert all(getattr(mil, name).__doc__ for name in mil.__all__)
    assert set(mil.__all__) == set(mil._HOME)
    assert set(mil.__all__) <= set(dir(mil))
    assert mil.__version__ == importlib.metadata.version("napari-milcnn")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mil.nothing


def test_importing_is_light():
    """Importing the package loads nothing heavy."""
    loaded = fresh(f"import sys, napari_milcnn; print([n for n in {HEAVY} if n in sys.modules])")
    assert loaded.strip() == "[]"


def test_help_is_light():
    """The command line says what it can do before numpy, which takes a third of that time, is loaded."""
    kept_out = ("numpy", *HEAVY)
    loaded = fresh(f"import sys, napari_milcnn.cli.app; print([n for n in {kept_out} if n in sys.modules])")
    assert loaded.strip() == "[]"


@pytest.mark.slow
def test_the_core_needs_no_napari_and_no_qt():
    """The whole core and the command line run where neither napari nor Qt can be imported."""
    code = """
import sys
for name in ("napari", "qtpy", "PyQt6", "PySide6", "PyQt5", "magicgui", "superqt"):
    sys.modules[name] = None
import pkgutil, importlib, napari_milcnn
for module in pkgutil.walk_packages(napari_milcnn.__path__, "napari_milcnn."):
    if ".plugin" not in module.name and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print("done")
"""
    assert fresh(code).strip() == "done"


@pytest.mark.slow
def test_readme_code_runs(tmp_path, monkeypatch, capsys):
    """The README's Python runs as printed, for fewer epochs; the trained model's classes are those of the table."""
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    names = {}
    assert "epochs=12" in code
    exec(compile(code.replace("epochs=12", "epochs=2, epoch_steps=1"), "README.md", "exec"), names)
    assert names["prediction"].classes == ("cell periphery", "mitochondria", "nucleus")
    assert names["masks"].labels.shape == (1, 512, 512)
    assert "cells" in capsys.readouterr().out


def test_readme_names_real_commands_and_files():
    """Each command in the README exists, and each file it links to is there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    from napari_milcnn.cli.app import app

    known = {command.name for command in app.registered_commands}
    assert set(re.findall(r"^napari-milcnn (\w+)", text, re.MULTILINE)) <= known
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"make (\w+)  ", text)) <= set(targets)
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / link).exists(), link


def test_root_manifest_is_the_packages():
    """napari.yaml at the root links to the one inside the package."""
    assert (ROOT / "napari.yaml").read_text() == (ROOT / "src" / "napari_milcnn" / "napari.yaml").read_text()


def test_manifest_is_valid_and_claims_no_tiff():
    """npe2 accepts the manifest; every command can be imported; no reader claims TIFFs or folders."""
    from npe2 import PluginManifest

    manifest = PluginManifest.from_distribution("napari-milcnn")
    manifest.validate_imports()
    assert manifest.name == "napari-milcnn"
    for reader in manifest.contributions.readers or ():
        assert not any("tif" in pattern for pattern in reader.filename_patterns)
        assert not reader.accepts_directories


@pytest.mark.parametrize(
    ("name", "shape"),
    [("yeast_field", (512, 512)), ("yeast_two_labels", (512, 512)), ("yeast_timelapse", (8, 256, 256))],
)
def test_samples_open_as_layers(name, shape):
    """Each sample gives a GFP and an RFP layer, 16 bit, at 0.16 µm."""
    from napari_milcnn.plugin import sample_data

    gfp, rfp = getattr(sample_data, name)()
    for data, options, kind in (gfp, rfp):
        assert (data.shape, data.dtype, kind) == (shape, np.uint16, "image")
        assert options["axis_labels"] == list("tyx"[-len(shape) :])
        assert options["scale"][-2:] == [pytest.approx(0.16)] * 2
    assert gfp[1]["name"].endswith("GFP")
    assert rfp[1]["name"].endswith("RFP")


def test_shipped_models_load_and_are_small():
    """Both models load, say whose data they saw, and all samples stay under 12 MB."""
    for name in ("yeast-sim", "nuclei"):
        model = mil.load_model(name)
        assert model.card.name == name
        assert model.card.credit
        assert model.card.trained_on
    assert sum(path.stat().st_size for path in mil.sample_folder().rglob("*") if path.is_file()) < 12e6


def test_sample_opens_in_napari(make_napari_viewer_proxy):
    """Napari's File > Open Sample opens ours, with its scale in micrometres."""
    viewer = make_napari_viewer_proxy()
    viewer.open_sample("napari-milcnn", "yeast-field")
    assert [layer.name for layer in viewer.layers] == ["yeast-mitochondria GFP", "yeast-mitochondria RFP"]
    assert viewer.layers[0].scale == pytest.approx([0.16, 0.16])
