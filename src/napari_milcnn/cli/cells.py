"""The command cells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_milcnn.cli.option_flags import (
    MODEL,
    TABLE_OUT,
    AsJson,
    given_options,
    loaded,
    options_of,
    reading_of,
    reading_options,
    table_lock,
)
from napari_milcnn.cli.progress import exit_status, output, print_json, warn
from napari_milcnn.images.paths import printable
from napari_milcnn.options import ComputeOptions


@options_of(ComputeOptions)
@reading_options
def cells_command(
    image: Annotated[Path, typer.Argument(help="Image.", metavar="IMAGE")],
    objects: Annotated[
        Path, typer.Option(help="Label image of its cells, from any segmentation program, or a folder with it.")
    ],
    model: Annotated[str, MODEL],
    out: Annotated[Path, TABLE_OUT],
    *,
    as_json: AsJson = False,
    **options: object,
) -> None:
    """Classify each cell of a label image by itself: one row per cell."""
    from napari_milcnn.images.intensity import Plates
    from napari_milcnn.inference.cells import classify_cells, read_label_image
    from napari_milcnn.results.write import write_table

    with exit_status(), table_lock(out):
        trained = loaded(model)
        reading = reading_of(options)
        with Plates(reading.plates, reading).open(image) as stack:
            labels = read_label_image(objects, stack)
            table = classify_cells(trained, stack, labels, on_warning=warn, **given_options(ComputeOptions, options))
        table.insert(0, "file", printable(image))
        write_table(out, table)
        counts = table["top"].value_counts().to_dict()
        if as_json:
            print_json({"model": trained.card.name, "out": out, "cells": len(table), "classes": counts})
        else:
            found = ", ".join(f"{name} {count}" for name, count in counts.items())
            cells = f"{len(table)} cell{'s'[: len(table) != 1]}"
            output.print(f"{cells}{': ' * bool(found)}{found}; written to {out}")
