"""The commands next and check: what to label next, and what may be wrong with labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pandas as pd
import typer
from rich.markup import escape
from rich.table import Table

from napari_milcnn.cli.option_flags import MODEL, AsJson, Layout, given_options, options_of, reading_of, reading_options
from napari_milcnn.cli.progress import exit_status, messages, output, print_json, shown
from napari_milcnn.errors import ImageError
from napari_milcnn.images.paths import printable
from napari_milcnn.options import ComputeOptions
from napari_milcnn.schema import score_columns

if TYPE_CHECKING:
    from napari_milcnn.labels.checks import Finding
    from napari_milcnn.labels.ranking import Ranking
    from napari_milcnn.labels.table import LabelTable

_PRINTED = 20
"""Rows that are printed; the table on disk has all."""
TABLE = typer.Option("--out", "-o", help="Table to write, such as next.csv.")


@options_of(ComputeOptions)
@reading_options
def next_command(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of images, with the labels.csv of those that are labelled.", metavar="FOLDER"),
    ],
    model: Annotated[str, MODEL],
    *,
    out: Annotated[Path | None, TABLE] = None,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Sort the images without a label by what labelling them would teach the model."""
    from napari_milcnn.labels.labelling import open_labelling
    from napari_milcnn.labels.ranking import rank_images
    from napari_milcnn.model.package_read import load_model

    with exit_status():
        if not folder.exists():
            raise ImageError(f"{folder} does not exist; expected a folder of images")
        loaded, labelling = load_model(model), open_labelling(folder, reading_of(options))
        table, rows = labelling.everything(), labelling.unlabelled()
        steps = rank_images(loaded, table, rows, known=labelling.labelled(), **given_options(ComputeOptions, options))
        *_, last = shown(steps, "look at images")
        assert last.result is not None
        ranked = _ranking_table(table, last.result, loaded.classes)
        _give(ranked, out, as_json, ["rank", "file", "plane", "uncertainty", "top"])
        if not rows:
            messages.print("every image has a label", markup=False)
        if last.result.errors:
            raise typer.Exit(1)


def _ranking_table(table: LabelTable, ranking: Ranking, classes: Sequence[str]) -> pd.DataFrame:
    """One row per image, what to label next first; images that could not be looked at stand last, with the reason."""
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
        str | None, typer.Option("--model", "-m", help="Compare the labels with what this model sees, too.")
    ] = None,
    layout: Layout = None,
    out: Annotated[Path | None, TABLE] = None,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Look for labels that may be wrong: contradicted by a model, given twice, or of groups that mislead."""
    from napari_milcnn.labels.checks import check_labels
    from napari_milcnn.labels.table import read_labels
    from napari_milcnn.model.package_read import load_model

    with exit_status():
        table = read_labels(labels, reading_of(options), layout)
        steps = check_labels(
            table, None if model is None else load_model(model), **given_options(ComputeOptions, options)
        )
        *_, last = shown(steps, "check labels")
        assert last.result is not None
        _give(_findings_table(table, last.result), out, as_json, ["kind", "finding"])
        if not last.result:
            messages.print("nothing was found that may be wrong", markup=False)


def _findings_table(table: LabelTable, findings: Sequence[Finding]) -> pd.DataFrame:
    """One row per finding: its kind, its images, and the sentence that says what to do."""
    rows = [(one.kind, "|".join(table.images[row].name for row in one.rows), one.sentence) for one in findings]
    return pd.DataFrame(rows, columns=["kind", "files", "finding"])


def _give(table: pd.DataFrame, out: Path | None, as_json: bool, columns: Sequence[str]) -> None:
    """Print a table, or the first of its rows, and write all of it where that is asked for."""
    from napari_milcnn.results.write import write_table

    if out is not None:
        write_table(out, table)
    if as_json:
        print_json(table.astype(object).where(table.notna(), None).to_dict("records"))
        return
    printed = Table(*columns, box=None, pad_edge=False)
    for row in table.head(_PRINTED)[list(columns)].to_dict("records"):
        printed.add_row(*(_printed(str(name), value) for name, value in row.items()))
    output.print(printed)
    if len(table) > _PRINTED:
        output.print(f"and {len(table) - _PRINTED} more", markup=False)
    if out is not None:
        output.print(f"written to {out}", markup=False)


def _printed(name: str, value: Any) -> str:
    if name == "file":
        return escape(Path(value).name)
    return f"{value:.3f}" if isinstance(value, float) else escape(str(value))
