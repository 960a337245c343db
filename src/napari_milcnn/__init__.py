"""Which cells show a phenotype, and where, learned from image-level labels alone.

Deep multiple instance learning after Kraus, Ba & Frey 2016 (doi 10.1093/bioinformatics/btw252). Names are loaded when
they are first used: importing this package imports neither torch nor Qt.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_milcnn.core.classify import Prediction, classify, classify_cells
    from napari_milcnn.core.dataset import LabelTable, check_images, read_labels
    from napari_milcnn.core.errors import MilcnnError
    from napari_milcnn.core.evaluation import evaluate
    from napari_milcnn.core.evidence import Evidence, evidence
    from napari_milcnn.core.images import ImageStack, open_image
    from napari_milcnn.core.masks import Masks, segment
    from napari_milcnn.core.model import TrainedModel, load_model, new_model
    from napari_milcnn.core.options import ForegroundOptions
    from napari_milcnn.core.report import EvaluationReport
    from napari_milcnn.core.samples import sample_folder
    from napari_milcnn.core.training import EpochReport, calibrate, train

_HOME = {
    "EpochReport": "training",
    "EvaluationReport": "report",
    "Evidence": "evidence",
    "ForegroundOptions": "options",
    "ImageStack": "images",
    "LabelTable": "dataset",
    "Masks": "masks",
    "MilcnnError": "errors",
    "Prediction": "classify",
    "TrainedModel": "model",
    "calibrate": "training",
    "check_images": "dataset",
    "classify": "classify",
    "classify_cells": "classify",
    "evaluate": "evaluation",
    "evidence": "evidence",
    "load_model": "model",
    "new_model": "model",
    "open_image": "images",
    "read_labels": "dataset",
    "sample_folder": "samples",
    "segment": "masks",
    "train": "training",
}

__all__ = [
    "EpochReport",
    "EvaluationReport",
    "Evidence",
    "ForegroundOptions",
    "ImageStack",
    "LabelTable",
    "Masks",
    "MilcnnError",
    "Prediction",
    "TrainedModel",
    "calibrate",
    "check_images",
    "classify",
    "classify_cells",
    "evaluate",
    "evidence",
    "load_model",
    "new_model",
    "open_image",
    "read_labels",
    "sample_folder",
    "segment",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("napari-milcnn")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"napari_milcnn.core.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
