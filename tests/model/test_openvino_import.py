"""OpenVINO is imported without what would send messages to its makers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from napari_milcnn.model.openvino_import import openvino_version

CHECK = """
import sys
from napari_milcnn.model.openvino_import import import_openvino
openvino = import_openvino()
openvino.convert_model
from openvino.tools.ovc import convert_impl
assert convert_impl.tm.__name__.endswith("telemetry_stub"), convert_impl.tm
assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)
"""


def test_nothing_is_sent() -> None:
    if openvino_version() is None:
        pytest.skip("the extra 'openvino' is not installed")
    subprocess.run([sys.executable, "-c", CHECK], check=True)
