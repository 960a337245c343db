"""Initial settings of the docks: the plugin's page in napari's Preferences (napari 0.9 and later), or the defaults.

napari reads the fields of the page, their defaults and descriptions from napari.yaml; a test checks that they equal
those in this file.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from napari_milcnn.options import DEVICE_HELP, Device, EvidenceKind, Options, make_options


class Preferences(Options):
    """What the form of a dock shows when the dock opens."""

    device: Device = Field("auto", description=DEVICE_HELP)
    tile: int | None = Field(
        None, ge=1, description="Side of the tiles in which a plane is read and processed, in px; 0: whole planes if "
                                "they fit into memory."
    )  # fmt: skip
    kind: EvidenceKind = Field("object", description="Kind of evidence that the dock shows first.")
    auto_classify: bool = Field(False, description="Classify each image when it opens, while the dock is open.")

    @field_validator("tile", mode="before")
    @classmethod
    def _none_for_zero(cls, tile: int | None) -> int | None:
        return tile or None  # a field of napari's page cannot be empty


def preferences() -> Preferences:
    """Read the plugin's page in napari's Preferences; the defaults if there is no page.

    Raises
    ------
    OptionsError
        If the page holds an impossible value.
    """
    try:
        from napari.settings import get_plugin_settings
    except ImportError:  # napari before 0.9, or no napari
        return Preferences()
    try:
        page: Any = get_plugin_settings("napari-milcnn")
    except KeyError:  # the plugin is not registered, or it is switched off
        return Preferences()
    return make_options(Preferences, {name: getattr(page.classify, name) for name in Preferences.model_fields})
