"""The commands next and check: which images to label next, and which labels may be wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from napari_milcnn.cli.option_flags import (
    MODEL,
    TABLE_OUT,
    AsJson,
    Layout,
    given_options,
    loaded,
    options_of,
    reading_of,
    reading_options,
    table_lock,
)
from napari_milcnn.cli.progress import exit_status, last_result, messages, output, print_failure, print_json, warn
from napari_milcnn.errors import ImageError
from napari_milcnn.images.paths import printable
from napari_milcnn.options import ComputeOptions
from napari_milcnn.schema import score_columns

if TYPE_CHECKING:
    import pandas as pd

    from napari_milcnn.labels.checks import Finding
    from napari_milcnn.labels.ranking import Ranking
    from napari_milcnn.labels.table import LabelTable

_PRINTED = 20
"""Most rows that are printed; the table on disk has all rows."""


@options_of(ComputeOptions)
@reading_options
def next_command(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of images, with the labels.csv of the labelled ones.", metavar="FOLDER"),
    ],
    model: Annotated[str, MODEL],
    *,
    out: Annotated[Path | None, TABLE_OUT] = None,
    as_json: AsJson = False,
    **options: object,
) -> None:
    """Sort the images without a label by how much their labels would teach the model."""
    from napari_milcnn.images.paths import as_on_disk
    from napari_milcnn.labels.labelling import open_labelling
    from napari_milcnn.labels.ranking import rank_images

    folder = as_on_disk(folder)
    with exit_status(), table_lock(out, folder, folder / "labels.csv"):
        if not folder.exists():
            raise ImageError(f"{folder} does not exist; expected a folder of images")
        trained, labelling = loaded(model), open_labelling(folder, reading_of(options))
        table, rows = labelling.everything(), labelling.unlabelled()
        steps = rank_images(trained, table, rows, known=labelling.labelled(), **given_options(ComputeOptions, options))
        ranking = last_result(steps, "rank images")
        ranked = _ranking_table(table, ranking, trained.classes)
        names = [table.images[row].name for row in ranking.order]
        write_and_print(ranked, out, as_json, ranked.assign(file=names)[["rank", "file", "uncertainty", "top"]])
        if not rows:
            messages.print("every image has a label")
        for reason in ranking.errors.values():
            print_failure(reason)
        if ranking.errors:
            raise typer.Exit(1)


def _ranking_table(table: LabelTable, ranking: Ranking, classes: Sequence[str]) -> pd.DataFrame:
    """Return one row per image, the one to label next first; images that failed come last, with their error."""
    import pandas as pd

    images = [table.images[row] for row in ranking.order]
    facts = pd.DataFrame({
        "rank": range(1, len(images) + 1),
        "file": [printable(image.file) for image in images],
        "plane": [image.plane for image in images],
        "uncertainty": ranking.uncertainty,
        "top": ["" if row in ranking.errors else classes[scores.argmax()]
                for row, scores in zip(ranking.order, ranking.scores, strict=True)],
    })  # fmt: skip
    scores = pd.DataFrame(ranking.scores, columns=score_columns(classes))
    return facts.join(scores).assign(error=[ranking.errors.get(row, "") for row in ranking.order])


@options_of(ComputeOptions)
@reading_options
def check_command(
    labels: Annotated[Path, typer.Argument(help="Table of labels.", metavar="LABELS.csv")],
    *,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model to compare the labels with, a .zip or a shipped model.")
    ] = None,
    layout: Layout = None,
    out: Annotated[Path | None, TABLE_OUT] = None,
    as_json: AsJson = False,
    **options: object,
) -> None:
    """Look for wrong labels: labels that a model contradicts, images that are there twice, and misleading groups."""
    from napari_milcnn.labels.checks import check_labels, comparable_rows
    from napari_milcnn.labels.table import read_labels

    with exit_status(), table_lock(out, labels, labels / "labels.csv", layout):
        table = read_labels(labels, reading_of(options), layout)
        trained = None if model is None else loaded(model)
        steps = check_labels(table, trained, **given_options(ComputeOptions, options))
        findings = _findings_table(table, last_result(steps, "check labels"))
        write_and_print(findings, out, as_json, findings[["kind", "finding"]])
        if findings.empty:
            messages.print("no problems found")
        if trained is None:
            messages.print("without --model, only identical images and groups were checked")
        elif skipped := len(table.images) - len(comparable_rows(trained, table)):
            warn(f"{skipped} of {len(table.images)} images were not compared with the model: their labels are not "
                 "among its classes, or they have several labels and the model gives one")  # fmt: skip


def _findings_table(table: LabelTable, findings: Sequence[Finding]) -> pd.DataFrame:
    """Return one row per finding: its kind, its images, and a sentence that says what to do."""
    import pandas as pd

    rows = [(one.kind, "|".join(table.images[row].name for row in one.rows), one.sentence) for one in findings]
    return pd.DataFrame(rows, columns=["kind", "files", "finding"])


def write_and_print(table: pd.DataFrame, out: Path | None, as_json: bool, printed: pd.DataFrame) -> None:
    """Write a table if --out is given, and print it as JSON or the first rows of `printed` as text."""
    from napari_milcnn.results.write import write_table

    if out is not None:
        write_table(out, table)
    if as_json:
        print_json(table.astype(object).where(table.notna(), None).to_dict("records"))
        return
    if len(printed):
        shown_table = Table(*printed, box=None, pad_edge=False)
        for row in printed.head(_PRINTED).itertuples(index=False):
            shown_table.add_row(*map(_printed_cell, row))
        output.print(shown_table)
    if len(printed) > _PRINTED:
        output.print(f"and {len(printed) - _PRINTED} more")
    if out is not None:
        output.print(f"written to {out}")


def _printed_cell(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3f}"
    return str(value)
