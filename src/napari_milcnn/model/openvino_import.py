"""OpenVINO without its telemetry, which tells its makers over the internet of each import and each conversion.

Images of a lab and what is done with them are nobody else's business, and a computer without a network would wait.
Where the package `openvino_telemetry` cannot be imported, OpenVINO takes a stub of its own in its place.
"""

from __future__ import annotations

import sys
from importlib import metadata
from types import ModuleType


def openvino_version() -> str | None:
    """Return the version of OpenVINO; None where it is not installed. It is not imported."""
    try:
        return metadata.version("openvino")
    except metadata.PackageNotFoundError:
        return None


def import_openvino() -> ModuleType:
    """Import OpenVINO, which then sends nothing.

    Raises
    ------
    ImportError
        If it is not installed, or cannot run on this computer.
    """
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # an import of it then fails
    import openvino

    return openvino  # type: ignore[no-any-return]
