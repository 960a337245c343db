"""Which cells show a phenotype, and where, learned from image-level labels alone.

Deep multiple instance learning after Kraus, Ba & Frey 2016 (doi 10.1093/bioinformatics/btw252). Names are loaded when
they are first used: importing this package imports neither torch nor Qt.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_milcnn.errors import MilcnnError
    from napari_milcnn.evaluation.evaluate import evaluate
    from napari_milcnn.evaluation.faithfulness import faithfulness
    from napari_milcnn.evaluation.report import EvaluationReport
    from napari_milcnn.images.intensity import Plate, Plates
    from napari_milcnn.images.open import open_image
    from napari_milcnn.images.stack import ImageStack
    from napari_milcnn.inference.cells import classify_cells
    from napari_milcnn.inference.evidence import Evidence, evidence
    from napari_milcnn.inference.masks import Masks, segment
    from napari_milcnn.inference.predict import GroupPrediction, Prediction, classify, classify_group
    from napari_milcnn.inference.unlike import relative_size
    from napari_milcnn.labels.checks import Finding, check_labels
    from napari_milcnn.labels.ranking import Ranking, rank_images
    from napari_milcnn.labels.table import LabelTable, check_images, read_labels
    from napari_milcnn.model.export import export_model
    from napari_milcnn.model.package_read import load_model
    from napari_milcnn.model.shipped import sample_folder
    from napari_milcnn.model.trained_model import TrainedModel, new_model
    from napari_milcnn.options import ForegroundOptions
    from napari_milcnn.progress import Progress
    from napari_milcnn.results.folder import ImageResult, classify_files
    from napari_milcnn.screens.likeness import map_of_wells, unexplained_wells, wells_like
    from napari_milcnn.screens.parts import WellDone
    from napari_milcnn.screens.run import screen
    from napari_milcnn.screens.sources.fields import Screen
    from napari_milcnn.screens.sources.open import open_screen
    from napari_milcnn.screens.summary import summarise
    from napari_milcnn.training.trainer import EpochReport, train
    from napari_milcnn.training.validation import calibrate

_HOME = {
    "EpochReport": "training.trainer",
    "EvaluationReport": "evaluation.report",
    "Evidence": "inference.evidence",
    "Finding": "labels.checks",
    "ForegroundOptions": "options",
    "GroupPrediction": "inference.predict",
    "ImageResult": "results.folder",
    "ImageStack": "images.stack",
    "LabelTable": "labels.table",
    "Masks": "inference.masks",
    "MilcnnError": "errors",
    "Plate": "images.intensity",
    "Plates": "images.intensity",
    "Prediction": "inference.predict",
    "Progress": "progress",
    "Ranking": "labels.ranking",
    "Screen": "screens.sources.fields",
    "TrainedModel": "model.trained_model",
    "WellDone": "screens.parts",
    "calibrate": "training.validation",
    "check_images": "labels.table",
    "check_labels": "labels.checks",
    "classify": "inference.predict",
    "classify_cells": "inference.cells",
    "classify_files": "results.folder",
    "classify_group": "inference.predict",
    "evaluate": "evaluation.evaluate",
    "evidence": "inference.evidence",
    "export_model": "model.export",
    "faithfulness": "evaluation.faithfulness",
    "load_model": "model.package_read",
    "map_of_wells": "screens.likeness",
    "new_model": "model.trained_model",
    "open_image": "images.open",
    "open_screen": "screens.sources.open",
    "rank_images": "labels.ranking",
    "read_labels": "labels.table",
    "relative_size": "inference.unlike",
    "sample_folder": "model.shipped",
    "screen": "screens.run",
    "segment": "inference.masks",
    "summarise": "screens.summary",
    "train": "training.trainer",
    "unexplained_wells": "screens.likeness",
    "wells_like": "screens.likeness",
}

__all__ = [
    "EpochReport",
    "EvaluationReport",
    "Evidence",
    "Finding",
    "ForegroundOptions",
    "GroupPrediction",
    "ImageResult",
    "ImageStack",
    "LabelTable",
    "Masks",
    "MilcnnError",
    "Plate",
    "Plates",
    "Prediction",
    "Progress",
    "Ranking",
    "Screen",
    "TrainedModel",
    "WellDone",
    "calibrate",
    "check_images",
    "check_labels",
    "classify",
    "classify_cells",
    "classify_files",
    "classify_group",
    "evaluate",
    "evidence",
    "export_model",
    "faithfulness",
    "load_model",
    "map_of_wells",
    "new_model",
    "open_image",
    "open_screen",
    "rank_images",
    "read_labels",
    "relative_size",
    "sample_folder",
    "screen",
    "segment",
    "summarise",
    "train",
    "unexplained_wells",
    "wells_like",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("napari-milcnn")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"napari_milcnn.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
