"""What the docks start from: our page of napari's Preferences (napari 0.9 and later), else the defaults.

The page's fields, their defaults and their words stand in napari.yaml, where napari reads them; a test holds them equal
to those here.
"""

from __future__ import annotations

from pydantic import Field, field_validator

from napari_milcnn.options import Device, EvidenceKind, Options, make_options


class Preferences(Options):
    """What a dock's form shows when it is opened."""

    device: Device = Field("auto", description="auto, cpu, cuda, cuda:1, mps or xpu.")
    tile: int | None = Field(
        None, ge=1, description="Side, in px, of the tiles a plane is read and run in; 0: whole planes where they fit "
                                "into memory."
    )  # fmt: skip
    kind: EvidenceKind = Field("object", description="Kind of evidence that is shown first.")
    auto_classify: bool = Field(False, description="Classify images as they open, while the dock is open.")

    @field_validator("tile", mode="before")
    @classmethod
    def _none_for_zero(cls, tile: int | None) -> int | None:
        return tile or None  # a field of napari's page always holds a number


def preferences() -> Preferences:
    """Read our page of napari's Preferences; the defaults where napari has none.

    Raises
    ------
    OptionsError
        If the page holds a value that it cannot have.
    """
    try:
        from napari.settings import get_plugin_settings
    except ImportError:  # napari before 0.9, or none
        return Preferences()
    try:
        page = get_plugin_settings("napari-milcnn").classify
    except KeyError:  # napari does not know this plugin, or it is switched off
        return Preferences()
    return make_options(Preferences, {name: getattr(page, name) for name in Preferences.model_fields})
