"""Where the shipped images and models lie: inside an installed package, or beside the sources of a checkout."""

from __future__ import annotations

from pathlib import Path

from napari_milcnn.errors import ImageError

_PACKAGE = Path(__file__).parent.parent


def sample_folder() -> Path:
    """Return the folder of shipped sample data.

    Raises
    ------
    ImageError
        If this installation came without it.
    """
    places = (_PACKAGE / "_sample_data", _PACKAGE.parent.parent / "sample_data")
    for place in places:
        if (place / "models").is_dir():
            return place
    raise ImageError(
        f"the sample data are not there: looked in {' and '.join(map(str, places))}; reinstall the package"
    )


def shipped_models() -> dict[str, Path]:
    """Name -> file of each shipped model, for example 'yeast-sim'."""
    return {path.stem: path for path in sorted((sample_folder() / "models").glob("*.zip"))}
