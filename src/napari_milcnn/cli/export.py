"""The command export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_milcnn.cli.option_flags import AsJson, loaded
from napari_milcnn.cli.progress import exit_status, output, print_json
from napari_milcnn.options import ExportFormat


def export_command(
    model: Annotated[str, typer.Argument(help="Model .zip, or a shipped model.", metavar="M.zip")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .onnx, or .xml for OpenVINO.")],
    *,
    file_format: Annotated[ExportFormat, typer.Option("--format", help="Format of the file.")] = "onnx",
    as_json: AsJson = False,
) -> None:
    """Write a model for other programs, as ONNX or OpenVINO; the file is checked against torch."""
    from napari_milcnn.model.export import EXPORT_TOLERANCE, export_model, input_contract

    with exit_status():
        trained = loaded(model)
        written = export_model(trained, out, format=file_format)
        if as_json:
            print_json({**input_contract(trained), "out": written, "export_format": file_format})
        else:
            output.print(
                f"{trained.card.name} written to {written}; on images of several sizes it gives torch's answers to "
                f"{EXPORT_TOLERANCE:g}. How images become its input is in the metadata of the file."
            )
