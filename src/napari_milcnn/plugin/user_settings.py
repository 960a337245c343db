"""What the docks remember between sessions, in the settings that Qt stores for the user."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import QSettings

from napari_milcnn.model.shipped import shipped_models

_RECENT_MODELS = "recent_models"
_MOST_MODELS = 6


def user_settings() -> QSettings:
    """Return the settings of this plugin."""
    return QSettings("napari-milcnn", "napari-milcnn")


def recent_models() -> list[Path]:
    """Return the model files used last that still exist, without the shipped models."""
    stored = user_settings().value(_RECENT_MODELS) or []
    paths = [Path(one) for one in ([stored] if isinstance(stored, str) else stored)]
    shipped = set(shipped_models().values())
    return [path for path in paths if path not in shipped and path.is_file()]


def remember_model(path: Path) -> None:
    """Put a model file at the top of the recent models; shipped models are always listed and need no place there."""
    if path not in set(shipped_models().values()):
        recent = [path, *(one for one in recent_models() if one != path)][:_MOST_MODELS]
        user_settings().setValue(_RECENT_MODELS, [str(one) for one in recent])
