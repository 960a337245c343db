"""The page of napari's Preferences and the defaults behind it."""

from __future__ import annotations

import npe2
import pytest

from napari_milcnn.errors import OptionsError
from napari_milcnn.options import ComputeOptions
from napari_milcnn.plugin.preferences import Preferences, preferences

settings = pytest.importorskip("napari.settings")
needs_page = pytest.mark.skipif(not hasattr(settings, "get_plugin_settings"), reason="napari before 0.9 has no page")


def manifest_fields():
    """Return the fields of the plugin's page in napari.yaml."""
    manifest = npe2.PluginManifest.from_distribution("napari-milcnn")
    return manifest.contributions.configurations["classify"].properties


def test_defaults():
    """By default the device is auto, planes are whole, evidence is of objects, and nothing starts by itself."""
    chosen = Preferences()
    assert (chosen.device, chosen.tile, chosen.kind, chosen.auto_classify) == ("auto", None, "object", False)
    assert chosen.device == ComputeOptions().device
    assert Preferences(tile=0).tile is None
    assert Preferences(tile=512).tile == 512


@needs_page
def test_the_manifest_equals_the_class():
    """Fields, defaults and descriptions in napari.yaml are those of the class, which accepts every choice."""
    fields = manifest_fields()
    assert list(fields) == list(Preferences.model_fields)
    assert Preferences(**{name: field.default for name, field in fields.items()}) == Preferences()
    for name, field in fields.items():
        assert field.title
        for choice in field.enum or ():
            assert getattr(Preferences(**{name: choice}), name) == choice
        if name != "device":
            assert field.description == Preferences.model_fields[name].description


@needs_page
def test_the_page_is_read(npe2pm, plugin_settings):
    """The docks start with the values that the user sets in napari."""
    npe2pm.register(npe2.PluginManifest.from_distribution("napari-milcnn"))
    page = settings.get_plugin_settings("napari-milcnn").classify
    assert preferences() == Preferences()
    page.tile, page.kind, page.device, page.auto_classify = 256, "jacobian", "cuda:1", True
    assert preferences() == Preferences(tile=256, kind="jacobian", device="cuda:1", auto_classify=True)


@needs_page
def test_without_a_page(plugin_settings):
    """If napari does not know the plugin, the defaults are used."""
    assert preferences() == Preferences()


def test_older_napari(monkeypatch):
    """Napari before 0.9 has no such function; the defaults are used."""
    monkeypatch.delattr(settings, "get_plugin_settings", raising=False)
    assert preferences() == Preferences()


def test_an_impossible_value_gives_a_message(monkeypatch):
    """A settings file written by hand names a device that does not exist."""
    page = type("Page", (), {"device": "gpu", "tile": 0, "kind": "object", "auto_classify": False})
    held = type("Held", (), {"classify": page})
    monkeypatch.setattr(settings, "get_plugin_settings", lambda name: held, raising=False)
    with pytest.raises(OptionsError, match="option 'device' is 'gpu'"):
        preferences()
