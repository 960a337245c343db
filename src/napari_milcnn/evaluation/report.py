"""What an evaluation found: the record, its files, and a page to look at.

report.html is one file without scripts or links to elsewhere: pictures are inside it, so that it can be mailed, printed
and opened in years. Whatever a user typed (names of files, classes, groups) is escaped by the template.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from napari_milcnn.atomic_write import replacing
from napari_milcnn.errors import MilcnnError, OutputError
from napari_milcnn.evaluation.localisation import LocalisationScores
from napari_milcnn.figures.plots import confusion_figure, reliability_figure, svg
from napari_milcnn.figures.thumbnails import thumbnail
from napari_milcnn.images.paths import printable
from napari_milcnn.inference.model_input import model_input
from napari_milcnn.labels.mislabels import with_planes
from napari_milcnn.labels.table import LabelledImage, LabelTable
from napari_milcnn.metrics.calibration import Reliability
from napari_milcnn.model.trained_model import TrainedModel, card_text
from napari_milcnn.options import EvaluateOptions
from napari_milcnn.results.layout import joined_by_itself
from napari_milcnn.results.opened import (
    OpenedResults,
)
from napari_milcnn.results.read import with_margin, with_name
from napari_milcnn.results.record import versions
from napari_milcnn.results.write import write_json, write_table
from napari_milcnn.schema import score_column, score_columns

HEADLINES = ("accuracy", "balanced accuracy", "mean average precision", "mean ROC AUC", "mean F1", "group accuracy")


_THUMBNAILS = 24


_ROWS = 20
"""Rows of a table on the page; the CSV has all."""


@dataclass(frozen=True)
class ImageOutcome:
    """What came of one labelled image.

    Attributes
    ----------
    image : LabelledImage
        The row of the table.
    planes : int
        Planes classified.
    scores : ndarray or None
        Score of each class, the mean over planes, float64 (classes,); None where the image failed.
    error : str
        Why it failed, or nothing.
    warnings : tuple of str
        What was done to it, in sentences.
    fold : int or None
        The fold it was held out in, from 1.
    localisation : LocalisationScores or None
        How well evidence finds its cells, where it has a truth image.
    """

    image: LabelledImage
    planes: int = 0
    scores: np.ndarray | None = None
    error: str = ""
    warnings: tuple[str, ...] = ()
    fold: int | None = None
    localisation: LocalisationScores | None = None


@dataclass(frozen=True)
class EvaluationReport:
    """How good a model is on labelled images.

    Attributes
    ----------
    model : TrainedModel
        What was measured; in cross-validation the untrained model that each fold began with.
    table : LabelTable
        The images and their labels.
    options : EvaluateOptions
        How it was measured.
    outcomes : tuple of ImageOutcome
        What came of each image, failed ones among them.
    figures : dict
        Name -> value over all images; NaN where it could not be measured.
    intervals : dict
        Name -> lower and upper end of the 95 % interval over draws of whole groups.
    classes : DataFrame
        One row per class: images, said, precision, recall, F1, average precision, ROC AUC, learned b.
    confusion : DataFrame
        Label (rows) against top class (columns), in images; with several labels, 2 x 2 counts of each class.
    reliability : Reliability
        How often answers of a confidence are right.
    groups : DataFrame
        One row per group, the worst first.
    mislabels, uncertain : DataFrame
        Images whose label the model contradicts, and images that it is least sure of.
    localisation : DataFrame or None
        Evidence against truth images, per class and in all.
    folds : DataFrame or None
        Headline figures of each fold of a cross-validation.
    warnings : tuple of str
        What a reader should know, in sentences.
    """

    model: TrainedModel
    table: LabelTable
    options: EvaluateOptions
    outcomes: tuple[ImageOutcome, ...]
    figures: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    classes: pd.DataFrame
    confusion: pd.DataFrame
    reliability: Reliability
    groups: pd.DataFrame
    mislabels: pd.DataFrame
    uncertain: pd.DataFrame
    localisation: pd.DataFrame | None
    folds: pd.DataFrame | None
    warnings: tuple[str, ...]

    @property
    def accuracy(self) -> float:
        """Share of images whose top class is right; with several labels, share of right yes-or-no answers."""
        return self.figures["accuracy"]

    @property
    def mean_average_precision(self) -> float:
        """Average precision, averaged over the classes that could be measured."""
        return self.figures["mean average precision"]

    @property
    def failed(self) -> tuple[ImageOutcome, ...]:
        """The images that could not be classified."""
        return tuple(outcome for outcome in self.outcomes if outcome.error)

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per image: file, label, group, fold, planes, top class, score of each class, warnings, error.

        Behind the file its plane, where the table of labels names any.
        """
        return with_planes(pd.DataFrame([self._prediction(outcome) for outcome in self.outcomes]))

    def _prediction(self, outcome: ImageOutcome) -> dict[str, Any]:
        image, names = outcome.image, self.model.classes
        scores = np.full(len(names), np.nan) if outcome.scores is None else outcome.scores
        return {
            "file": printable(image.file), "plane": image.plane,
            "label": "|".join(image.labels), "group": printable(image.group),
            "fold": outcome.fold or "", "planes": outcome.planes,
            "top": "" if outcome.scores is None else names[scores.argmax()],
            **{score_column(name): float(score) for name, score in zip(names, scores, strict=True)},
            "warnings": "; ".join(outcome.warnings), "error": outcome.error,
        }  # fmt: skip

    def document(self) -> dict[str, Any]:
        """Return the figures as plain data, as metrics.json has them; what could not be measured is null."""
        facts = {
            "model": {"name": self.model.card.name, "sha256": self.model.digest, "classes": self.model.classes},
            "images": len(self.outcomes) - len(self.failed), "groups": len(self.groups),
            "single_label": self.model.card.single_label, "figures": self.figures, "intervals": self.intervals,
            "classes": self.classes, "folds": self.folds, "localisation": self.localisation,
            "reliability": vars(self.reliability), "warnings": self.warnings,
            "failures": [{"file": printable(o.image.file), "error": o.error} for o in self.failed],
            "options": self.options.model_dump(), "versions": versions(),
        }  # fmt: skip
        return {name: _plain(value) for name, value in facts.items()}

    def save(self, folder: str | Path) -> Path:
        """Write metrics.json, confusion.csv, predictions.csv, groups.csv, mislabels.csv and report.html to a folder.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file; expected a folder for the results")
        write_json(folder / "metrics.json", self.document())
        write_table(folder / "confusion.csv", self.confusion.reset_index())
        write_table(folder / "predictions.csv", self.predictions)
        write_table(folder / "groups.csv", self.groups)
        write_table(folder / "mislabels.csv", self.mislabels)
        with replacing(folder / "report.html") as draft:
            draft.write_text(html(self), encoding="utf-8")
        return folder


def _plain(value: Any) -> Any:
    """Turn a value into what JSON can say: tables into rows, NaN into null."""
    if isinstance(value, pd.DataFrame):
        return _plain(value.to_dict("records"))
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def html(report: EvaluationReport) -> str:
    """Return the page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("napari_milcnn.evaluation", "templates"),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"figure": _figure, "percent": _percent}
    return environment.get_template("report.html").render(_context(report))


def _figure(value: Any) -> str:
    """Write a number as the page shows it; an en dash for one that could not be measured."""
    if not isinstance(value, float | np.floating):
        return str(value)
    return "–" if math.isnan(value) else f"{value:.3f}"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"


def _context(report: EvaluationReport) -> dict[str, Any]:
    single = report.model.card.single_label
    names = [name for name in HEADLINES if name != "group accuracy" or len(report.groups) < len(report.outcomes)]
    return {
        "report": report,
        "card": report.model.card,
        "card_lines": [line.split("  ", 1) for line in card_text(report.model).splitlines()],
        "images": len(report.outcomes) - len(report.failed),
        "single": single,
        "headlines": [(name, report.figures[name], report.intervals.get(name)) for name in names],
        "confusion": _svg_uri(confusion_figure(report.confusion)) if single else None,
        "reliability": _svg_uri(reliability_figure(report.reliability, single)),
        "classes": _shown(report.classes),
        "confusion_rows": _shown(report.confusion.reset_index()),
        "groups": _shown(report.groups, ("group", "label", "answer", "images", "image accuracy", "own score")),
        "wrong_groups": int((report.groups["right"] == 0).sum()),
        "mislabels": [(_thumbnail(report, _image(r)), _named(r)) for r in _records(report.mislabels, _THUMBNAILS)],
        "uncertain": [_named(row) for row in _records(report.uncertain, _ROWS)],
        "localisation": _shown(report.localisation),
        "folds": _shown(report.folds),
        "rows": _ROWS,
    }  # fmt: skip


def _records(table: pd.DataFrame, count: int) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.head(count).to_dict("records")]


def _named(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"name": printable(_image(row).name)}


def _image(row: dict[str, Any]) -> LabelledImage:
    return LabelledImage(Path(row["file"]), (), row["group"], plane=row.get("plane", ""))


def _shown(table: pd.DataFrame | None, columns: tuple[str, ...] | None = None) -> dict[str, Any] | None:
    """Head and rows of a table for the page; columns without a single number are left out."""
    if table is None:
        return None
    kept = [str(name) for name in columns or table if table[name].notna().any()]
    rows = table[kept].head(max(_ROWS, 0)).to_dict("records") if columns else table[kept].to_dict("records")
    return {"head": kept, "rows": [[row[name] for name in kept] for row in rows]}


def _thumbnail(report: EvaluationReport, row: LabelledImage) -> str | None:
    """Picture of the middle plane of an image as a data URI; None where it cannot be read."""
    try:
        with report.table.open(row) as image:
            picture = thumbnail(image, len(image.planes) // 2, model_input(report.model, image).channels)
    except (MilcnnError, OSError):
        return None
    from imageio.v3 import imwrite

    return _data_uri("png", imwrite("<bytes>", picture, extension=".png"))


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _svg_uri(figure: Figure) -> str:
    return _data_uri("svg+xml", svg(figure))


def results_of(report: EvaluationReport) -> OpenedResults:
    """Turn a report that was just made into what opening its saved folder gives."""
    table = report.predictions
    columns = score_columns(report.model.classes)
    files: dict[str, Path | None] = {printable(o.image.file): o.image.file for o in report.outcomes}
    found = OpenedResults(
        None, with_name(with_margin(table, columns)), report.model.classes, report.model.card.single_label, files,
        metrics=report.document(), written_confusion=report.confusion, reading=report.table.reading,
        warnings=report.warnings,
    )  # fmt: skip
    return joined_by_itself(found)
