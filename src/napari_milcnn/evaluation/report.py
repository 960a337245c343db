"""The report of an evaluation: its results, the files it writes, and the page report.html."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from napari_milcnn.atomic_write import replacing, replacing_files
from napari_milcnn.errors import MilcnnError
from napari_milcnn.evaluation.faithfulness import faithfulness_records
from napari_milcnn.evaluation.localisation import LocalisationScores
from napari_milcnn.evaluation.page import page_table, png_uri, rendered, svg_uri
from napari_milcnn.figures.plots import confusion_figure, reliability_figure
from napari_milcnn.figures.thumbnails import thumbnail
from napari_milcnn.images.paths import printable
from napari_milcnn.inference.model_input import model_input
from napari_milcnn.labels.mislabels import with_planes
from napari_milcnn.labels.table import LabelledImage, LabelTable
from napari_milcnn.metrics.calibration import Reliability
from napari_milcnn.model.faithfulness_words import EXPLANATION, HEADING, faithfulness_sentences
from napari_milcnn.model.trained_model import TrainedModel, card_text
from napari_milcnn.options import EvaluateOptions
from napari_milcnn.output_lock import OutputLock, locked_folder
from napari_milcnn.results.layout import joined_by_itself
from napari_milcnn.results.opened import Metrics, OpenedResults
from napari_milcnn.results.read import with_margin, with_name
from napari_milcnn.results.record import versions
from napari_milcnn.results.write import write_json, write_table
from napari_milcnn.schema import BAG_ANSWER, BAG_RIGHT, NO_CLASS, UNLIKE, UNLIKE_REASON, score_column, score_columns

HEADLINES = ("accuracy", "balanced accuracy", "mean average precision", "mean ROC AUC", "mean F1", "group accuracy",
             "bag accuracy")  # fmt: skip
"""Results that are shown first, on the page and on the command line."""
_FILES = (
    "metrics.json", "report.html", "confusion.csv", "predictions.csv", "groups.csv", "mislabels.csv",
    "faithfulness.csv",
)  # fmt: skip
"""What an evaluation writes; where metrics.json is, the others are of the same evaluation."""
_MOST_THUMBNAILS = 24
"""Largest number of suspected mislabels with a picture on the page."""
_MOST_ROWS = 20
"""Largest number of rows in a long table on the page; the CSV has all rows."""
_GROUP_COLUMNS = ("group", "label", "answer", BAG_ANSWER, "images", "image accuracy", "own score")
"""Columns of the table of groups on the page, where the table has them."""


@dataclass(frozen=True)
class ImageOutcome:
    """The result of evaluating one labelled image.

    Attributes
    ----------
    image : LabelledImage
        The row of the table.
    planes : int
        Number of planes that were classified.
    scores : ndarray or None
        Score of each class, the mean over planes, float64 (classes,); None if the image failed.
    error : str
        Why the image failed; empty if it did not.
    warnings : tuple of str
        Sentences about the image that a user should know.
    fold : int or None
        The fold in which the image was held out, from 1; None without cross-validation.
    localisation : LocalisationScores or None
        How well evidence finds the cells; None if the image has no truth image.
    unlike : float
        The largest `Prediction.unlike` of its planes; NaN if the model does not know its training images.
    unlike_reason : str
        What differs in that plane from the training images; empty if nothing does.
    has_structure : bool
        Whether any of its planes shows something to classify.
    bag_scores : ndarray or None
        On the last image of a group, where asked for: score of each class for all images of the group in one bag,
        float32 (classes,).
    """

    image: LabelledImage
    planes: int = 0
    scores: np.ndarray | None = None
    error: str = ""
    warnings: tuple[str, ...] = ()
    fold: int | None = None
    localisation: LocalisationScores | None = None
    unlike: float = math.nan
    unlike_reason: str = ""
    has_structure: bool = True
    bag_scores: np.ndarray | None = None


@dataclass(frozen=True)
class EvaluationReport:
    """How good a model is on labelled images.

    Attributes
    ----------
    model : TrainedModel
        The model that was measured; in cross-validation the untrained model with which each fold began.
    table : LabelTable
        The images and their labels.
    options : EvaluateOptions
        How the model was measured.
    outcomes : tuple of ImageOutcome
        The result of each image, including those that failed.
    figures : dict
        Name of a metric -> its value over all images; NaN if it could not be measured.
    intervals : dict
        Name of a metric -> lower and upper end of the 95 % interval over draws of whole groups.
    classes : DataFrame
        One row per class: images (number with this label), said (number to which the model gives this class),
        precision, recall, F1, average precision, ROC AUC, learned b.
    confusion : DataFrame
        Label (rows) against top class (columns), in images; with several labels, 2 x 2 counts of each class.
    reliability : Reliability
        How often answers with a given confidence are right.
    groups : DataFrame
        One row per group, the worst first.
    mislabels, uncertain : DataFrame
        Images whose label the model contradicts, and images of which it is least sure.
    localisation : DataFrame or None
        Evidence against truth images, for each class and overall; None without truth images.
    unlike : DataFrame or None
        Images and accuracy of those at most 1 and above 1 in `unlike`; None if the model does not know its training
        images.
    folds : DataFrame or None
        Headline results of each fold of a cross-validation.
    warnings : tuple of str
        Sentences that a reader of the report should know.
    faithfulness : DataFrame or None
        How much of a class's score hangs on the pixels of its mask (`Faithfulness.table`); None unless asked for.
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
    unlike: pd.DataFrame | None
    folds: pd.DataFrame | None
    warnings: tuple[str, ...]
    faithfulness: pd.DataFrame | None = None

    @property
    def headlines(self) -> tuple[str, ...]:
        """The results that are shown first."""
        return tuple(name for name in HEADLINES if name in self.figures)

    @property
    def accuracy(self) -> float:
        """Share of images whose top class is right; with several labels, the share of right yes-or-no answers."""
        return self.figures["accuracy"]

    @property
    def mean_average_precision(self) -> float:
        """Average precision, averaged over the classes for which it could be measured."""
        return self.figures["mean average precision"]

    @property
    def failed(self) -> tuple[ImageOutcome, ...]:
        """The images that could not be classified."""
        return tuple(outcome for outcome in self.outcomes if outcome.error)

    @property
    def faithfulness_sentences(self) -> list[str]:
        """How much of the scores hangs on the masks of each kind of evidence, in words; empty unless asked for."""
        return [] if self.faithfulness is None else faithfulness_sentences(faithfulness_records(self.faithfulness))

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per image: file, label, group, fold, planes, top class, unlike, scores, warnings, error.

        If the table of labels names planes, the column `plane` follows the column `file`.
        """
        return with_planes(pd.DataFrame([self._prediction_row(outcome) for outcome in self.outcomes]))

    def _prediction_row(self, outcome: ImageOutcome) -> dict[str, object]:
        image, names = outcome.image, self.model.classes
        scores = np.full(len(names), np.nan) if outcome.scores is None else outcome.scores
        return {
            "file": printable(image.file), "plane": image.plane,
            "label": "|".join(image.labels), "group": printable(image.group),
            "fold": outcome.fold or "", "planes": outcome.planes,
            "top": NO_CLASS if outcome.scores is None or not outcome.has_structure else names[scores.argmax()],
            UNLIKE: outcome.unlike, UNLIKE_REASON: outcome.unlike_reason,
            **{score_column(name): float(score) for name, score in zip(names, scores, strict=True)},
            "warnings": printable("; ".join(outcome.warnings)), "error": printable(outcome.error),
        }  # fmt: skip

    def document(self) -> dict[str, object]:
        """Return the content of metrics.json as plain data, with None for what could not be measured."""
        facts = {
            "model": {"name": self.model.card.name, "sha256": self.model.digest, "classes": self.model.classes},
            "images": len(self.outcomes) - len(self.failed), "groups": len(self.groups),
            "single_label": self.model.card.single_label, "figures": self.figures, "intervals": self.intervals,
            "classes": self.classes, "folds": self.folds, "localisation": self.localisation,
            "faithfulness": self.faithfulness,
            "unlike": self.unlike, "reliability": vars(self.reliability), "warnings": self.warnings,
            "failures": [{"file": printable(o.image.file), "error": printable(o.error)} for o in self.failed],
            "options": self.options.model_dump(), "versions": versions(),
        }  # fmt: skip
        return {name: _json_value(value) for name, value in facts.items()}

    def save(self, folder: str | Path, *, lock: OutputLock | None = None) -> Path:
        """Write metrics.json, confusion.csv, predictions.csv, groups.csv, mislabels.csv and report.html to a folder.

        faithfulness.csv is written where faithfulness was measured.

        Parameters
        ----------
        folder : path
            It is made if it does not exist.
        lock : OutputLock, optional
            The lock of the folder, where the caller holds it already, as the command line does.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        OutputError
            If there is a file where the folder should be, a file cannot be written, or another run writes there.
        """
        folder = Path(folder)
        with locked_folder(folder) if lock is None else nullcontext(lock) as held:
            with replacing_files(folder, _FILES) as drafts:
                self._write_files(drafts)
            held.check()
        return folder

    def _write_files(self, folder: Path) -> None:
        write_json(folder / "metrics.json", self.document())
        write_table(folder / "confusion.csv", self.confusion.reset_index())
        write_table(folder / "predictions.csv", self.predictions)
        write_table(folder / "groups.csv", self.groups)
        write_table(folder / "mislabels.csv", self.mislabels)
        if self.faithfulness is not None:
            write_table(folder / "faithfulness.csv", self.faithfulness)
        with replacing(folder / "report.html") as draft:
            draft.write_text(html(self), encoding="utf-8")


def _json_value(value: object) -> object:
    """Turn a value into what JSON can hold: tables become lists of rows, NaN and infinity become None."""
    if isinstance(value, pd.DataFrame):
        return _json_value(value.to_dict("records"))
    if isinstance(value, dict):
        return {str(key): _json_value(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return _json_value(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def html(report: EvaluationReport) -> str:
    """Return the text of report.html."""
    return rendered("napari_milcnn.evaluation", "report.html", _context(report))


def _context(report: EvaluationReport) -> dict[str, object]:
    """Return the variables of the template."""
    card = report.model.card
    single = card.single_label
    names = [name for name in report.headlines if name != "group accuracy" or len(report.groups) < len(report.outcomes)]
    return {
        "report": report,
        "card": card,
        "card_lines": [line.split("  ", 1) for line in card_text(report.model).splitlines()],
        "images": len(report.outcomes) - len(report.failed),
        "single": single,
        "headlines": [(name, report.figures[name], report.intervals.get(name)) for name in names],
        "confusion": svg_uri(confusion_figure(report.confusion)) if single else None,
        "reliability": svg_uri(reliability_figure(report.reliability, single)),
        "classes": page_table(report.classes.rename(columns={"said": "answers"})),
        "confusion_rows": page_table(report.confusion.reset_index()),
        "groups": page_table(report.groups.reindex(columns=_GROUP_COLUMNS).head(_MOST_ROWS)),
        "wrong_groups": int((report.groups["right"] == 0).sum()),
        "wrong_bags": int((report.groups[BAG_RIGHT] == 0).sum()) if BAG_RIGHT in report.groups else None,
        "mislabels": [
            (_thumbnail_uri(report, image), row) for image, row in _images_of(report.mislabels, _MOST_THUMBNAILS)
        ],
        "uncertain": [row for _, row in _images_of(report.uncertain, _MOST_ROWS)],
        "localisation": None if report.localisation is None else page_table(report.localisation),
        "faithfulness": None if report.faithfulness is None else page_table(report.faithfulness),
        "faithfulness_title": HEADING,
        "faithfulness_words": EXPLANATION,
        "faithfulness_sentences": report.faithfulness_sentences,
        "kind": report.options.kind or ("object" if card.evidence is None else card.evidence.kind),
        "unlike": None if report.unlike is None else page_table(report.unlike),
        "folds": None if report.folds is None else page_table(report.folds),
        "most_rows": _MOST_ROWS,
    }  # fmt: skip


def _images_of(table: pd.DataFrame, most: int) -> Iterator[tuple[LabelledImage, dict[str, object]]]:
    """Give the image and the cells of each of the first rows of a table; the cell `name` is added to them."""
    for row in table.head(most).to_dict("records"):
        image = LabelledImage(Path(row["file"]), (), row["group"], plane=row.get("plane", ""))
        yield image, {**{str(key): value for key, value in row.items()}, "name": printable(image.name)}


def _thumbnail_uri(report: EvaluationReport, labelled: LabelledImage) -> str | None:
    """Return a picture of the middle plane of an image as a data URI; None if the image cannot be read."""
    try:
        with report.table.open(labelled) as image:
            picture = thumbnail(image, len(image.planes) // 2, model_input(report.model, image).channels)
    except (MilcnnError, OSError):
        return None
    return png_uri(picture)


def results_of(report: EvaluationReport) -> OpenedResults:
    """Turn a report into the object that `read_results` gives for the folder in which the report was saved."""
    table = report.predictions
    columns = score_columns(report.model.classes)
    files: dict[str, Path | None] = {printable(o.image.file): o.image.file for o in report.outcomes}
    found = OpenedResults(
        None, with_name(with_margin(table, columns)), report.model.classes, report.model.card.single_label, files,
        metrics=Metrics.model_validate(report.document()), written_confusion=report.confusion,
        reading=report.table.reading, warnings=report.warnings,
    )  # fmt: skip
    return joined_by_itself(found)
