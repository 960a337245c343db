"""What is made of the tables of a screen and written beside them: wells, what is wrong with fields, and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields as names_of
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from napari_milcnn.errors import MilcnnError
from napari_milcnn.images.channels import match_channels
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.model.package_read import load_model
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.results.write import Pieces, read_json, write_tables
from napari_milcnn.schema import FIELD_COLUMNS, class_of, is_score
from napari_milcnn.screens.outputs.crate import write_crate
from napari_milcnn.screens.outputs.dose_pictures import dose_pictures, doses_in_words
from napari_milcnn.screens.outputs.galleries import ShownCell, choose_cells, choose_fields, with_picture
from napari_milcnn.screens.outputs.quality import PROBLEMS, problems_of_fields
from napari_milcnn.screens.outputs.report import ScreenReport, write_report
from napari_milcnn.screens.parts import FieldOfWell
from napari_milcnn.screens.record import read_missing, reading_of_record
from napari_milcnn.screens.statistics.analyse import ScreenStatistics, edge_sentences
from napari_milcnn.screens.statistics.hits import HIT
from napari_milcnn.screens.wells import well_table

PAGE = "report.html"


def write_outputs(
    folder: Path, fields: pd.DataFrame, predictions: pd.DataFrame, cells: Pieces, found: ScreenStatistics | None,
    likeness: pd.DataFrame,
) -> None:  # fmt: skip
    """Write quality.csv and quality.parquet, the fields with a problem, report.html and ro-crate-metadata.json.

    Parameters
    ----------
    folder : Path
        The folder of the screen.
    fields, predictions : DataFrame
        As in `ScreenTables`.
    cells : callable
        As in `ScreenTables`.
    found : ScreenStatistics or None
        Wells compared with controls; None as long as no field was classified.
    likeness : DataFrame
        likeness.csv; no row of too few wells.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    if predictions.empty:
        return
    _write_problems(folder, predictions)
    record = read_json(folder / "run.json")
    model = _model_of(record)
    chosen = _with_pictures(_chosen_cells(predictions, cells), fields, record, model)
    report = ScreenReport(record, predictions, well_table(predictions), read_missing(folder), cells=chosen, model=model,
                          likeness=likeness, planned=fields[["plate", "well"]].drop_duplicates())  # fmt: skip
    if found is not None:
        report = replace(report, wells=found.wells, **_comparison(found))
    write_report(folder / PAGE, report)
    write_crate(folder, record, model)


def _write_problems(folder: Path, predictions: pd.DataFrame) -> None:
    """List the fields with a problem, with what they are and why."""
    problems = problems_of_fields(predictions)
    rows = problems[list(PROBLEMS)].any(axis=1)
    place = [name for name in (*FIELD_COLUMNS, "t", "z", "file", "name") if name in predictions]
    write_tables(folder / "quality", predictions.loc[rows, place].join(problems))


def _model_of(record: Mapping[str, object]) -> TrainedModel | None:
    """Load the model of a record; None if it is not there any more, or another one is."""
    facts = record.get("model")
    if not isinstance(facts, Mapping) or not facts.get("path"):
        return None
    try:
        model = load_model(str(facts["path"]))
    except (MilcnnError, OSError):
        return None
    return model if model.digest == facts.get("sha256") else None


def _comparison(found: ScreenStatistics) -> dict[str, Any]:
    """Return what the page tells of the comparison with controls: hits, dose responses and edges."""
    treatments = found.treatments
    compared = found.plates["note"].eq("").any()
    return {
        "hits": treatments.loc[treatments[HIT]].drop(columns=HIT) if compared else None,
        "dose_curves": list(dose_pictures(found.wells, found.doses)),
        "dose_notes": doses_in_words(found.doses),
        "notes": found.notes,
        "edge_effects": edge_sentences(found.plates),
    }


def _chosen_cells(predictions: pd.DataFrame, cells: Pieces) -> list[ShownCell]:
    classes = [class_of(str(name)) for name in predictions if is_score(name)]
    listed = (piece for piece in cells() if {"class", "shown", "mean_evidence"} <= set(piece))
    return choose_cells(listed, classes) or choose_fields(predictions, classes)


def _with_pictures(
    chosen: Sequence[ShownCell], fields: pd.DataFrame, record: Mapping[str, object], model: TrainedModel | None
) -> list[ShownCell]:
    """Open the images of the cells that were chosen."""
    columns = [one.name for one in names_of(FieldOfWell)]
    known = {
        (row["plate"], row["well"], row["site"], row["file"]): FieldOfWell(*(str(row[name]) for name in columns))
        for row in fields[fields["file"].isin({one.row["file"] for one in chosen})].to_dict("records")
    }
    reading = reading_of_record(record)

    def opened(row: Mapping[str, object]) -> ImageStack:
        return known[row["plate"], row["well"], row["site"], row["file"]].open(reading)

    def channels(image: ImageStack) -> Sequence[int]:
        return range(len(image.channels)) if model is None else match_channels(model.channels, image)[0]

    return [with_picture(one, opened, channels) for one in chosen]
