"""Cells that Cellpose or StarDist find in the image, where they are installed; nothing depends on them.

Both are imported by name when they run. Each gets one plane (Y, X) of the channel in which the model finds its cells,
with its own defaults. The calls are those of Cellpose 3 (`models.Cellpose` estimates the diameter) and 4
(`models.CellposeModel`, which needs none), and of StarDist 0.9. Neither can be interrupted within a plane.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from napari_milcnn.errors import ComputeError
from napari_milcnn.plugin.qt.notices import Level
from napari_milcnn.plugin.results_to_layers import layer_name
from napari_milcnn.progress import Progress, Steps

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_milcnn.model.trained_model import TrainedModel
    from napari_milcnn.plugin.layers_to_image import LayerImage
    from napari_milcnn.plugin.qt.job import Ending
    from napari_milcnn.plugin.results_to_layers import LayerData

SegmentPlane: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Finds the cells of a plane (Y, X): numbers (Y, X), 0 for background."""
_STARDIST_TILE = 1024
"""Longest side of a plane, in px, that StarDist takes at once."""
_STILL = "The cells that were chosen before are still chosen"


@dataclass(frozen=True)
class Segmenter:
    """A program that finds cells.

    Attributes
    ----------
    name : str
        What the program is called.
    module : str
        The package that is imported.
    finds : str
        What it finds, in a few words.
    load : callable
        Loads its model, which it downloads when it is used for the first time.
    """

    name: str
    module: str
    finds: str
    load: Callable[[], SegmentPlane]

    @property
    def tip(self) -> str:
        """What the user should know before a search."""
        return (
            f"{self.name} finds {self.finds}, in the planes that a run would classify; Cancel waits for the plane that "
            "is being searched"
        )


def _load_cellpose() -> SegmentPlane:
    models = import_module("cellpose.models")
    if hasattr(models, "Cellpose"):
        model, options = models.Cellpose(gpu=True, model_type="cyto3"), {"channels": [0, 0], "diameter": None}
    else:
        model, options = models.CellposeModel(gpu=True), {}
    return lambda plane: model.eval(plane, **options)[0]


def _load_stardist() -> SegmentPlane:
    normalize = import_module("csbdeep.utils").normalize
    model = import_module("stardist.models").StarDist2D.from_pretrained("2D_versatile_fluo")

    def segment(plane: np.ndarray) -> np.ndarray:
        tiles = tuple(-(-side // _STARDIST_TILE) for side in plane.shape)
        labels: np.ndarray = model.predict_instances(
            normalize(plane, 1, 99.8), axes="YX", n_tiles=tiles, show_tile_progress=False
        )[0]
        return labels

    return segment


SEGMENTERS = (
    Segmenter("Cellpose", "cellpose", "cells and nuclei", _load_cellpose),
    Segmenter("StarDist", "stardist", "round, bright nuclei", _load_stardist),
)


def installed_segmenters() -> tuple[Segmenter, ...]:
    """Return the programs that are installed; none of them is imported."""
    return tuple(one for one in SEGMENTERS if find_spec(one.module) is not None)


@dataclass(eq=False)
class CellSearch:
    """Has a program find the cells of an image.

    Attributes
    ----------
    segmenter : Segmenter
        The program.
    layers : tuple of Image
        The layers of the image.
    source : LayerImage
        These layers as one image.
    model : TrainedModel
        The model, whose channel of the foreground is searched.
    options : mapping
        Fields of `EvidenceOptions`.
    planes : sequence of int
        Numbers of the planes to search.
    found : dict
        By number of the plane, its cells, int32 (Y, X).
    """

    segmenter: Segmenter
    layers: tuple[Image, ...]
    source: LayerImage
    model: TrainedModel
    options: Mapping[str, object]
    planes: Sequence[int]
    found: dict[int, np.ndarray] = field(default_factory=dict)

    def steps(self) -> Steps[tuple[int, np.ndarray]]:
        """Search a plane at a time, in a thread; to cancel, leave the loop.

        Yields
        ------
        Progress
            Before each plane, and after it with the number of the plane and its cells, int32 (Y, X).

        Raises
        ------
        ComputeError
            If the program fails.
        """
        from napari_milcnn.inference.evidence import EvidenceMaker

        maker, total, name = EvidenceMaker(self.model, **self.options), len(self.planes), self.segmenter.name
        yield Progress(0, total, f"loading {name}")
        segment = _asked(name, self.segmenter.load)
        for number, plane in enumerate(self.planes):
            yield Progress(number, total, name)
            channel = maker.foreground_channel(self.source.image, plane)
            cells = np.asarray(_asked(name, segment, channel)).reshape(channel.shape).astype(np.int32)
            yield Progress(number + 1, total, name, result=(plane, cells))

    def take(self, step: Progress[tuple[int, np.ndarray]]) -> None:
        """Keep the cells of a plane."""
        if step.result is not None:
            plane, self.found[plane] = step.result

    @property
    def has_cells(self) -> bool:
        """Whether cells were found."""
        return any(cells.any() for cells in self.found.values())

    @property
    def is_complete(self) -> bool:
        """Whether every plane was searched."""
        return len(self.found) == len(self.planes)

    def layer(self) -> LayerData:
        """Return the cells as a labels layer of the user's own, in the place of the image."""
        cells = np.zeros((len(self.source.image.planes), *self.source.image.plane_shape), np.int32)
        for plane, own in self.found.items():
            cells[plane] = own
        facts = {"name": layer_name(self.source, f"cells ({self.segmenter.name})"), "metadata": {}}
        return self.source.to_layer(cells), {**self.source.transform(), **facts}, "labels"

    def said(self, layer: str, ending: Ending) -> tuple[str, Level]:
        """Say what was found and where it is now, `layer` being the name of the new layer; and how serious it is."""
        if ending.error:
            kept = f". The layer {layer} has the cells of {self._searched}" if layer else ""
            return f"{ending.error.rstrip('.')}{kept}. {_STILL}.", Level.ERROR
        if not self.is_complete:
            kept = f" The layer {layer} has the cells of {self._searched}." if layer else ""
            return f"Stopped.{kept} {_STILL}.", Level.WARNING
        if not self.has_cells:
            return f"{self.segmenter.name} found no cells in {self._searched}. {_STILL}.", Level.WARNING
        count = sum(np.unique(cells[cells > 0]).size for cells in self.found.values())
        name, found = self.segmenter.name, f"{count} cell{'s'[: count != 1]}"
        text = f"{name} found {found} in {self._searched}. The layer {layer} is chosen as the cells."
        if len(self.found) == len(self.source.image.planes):
            return text, Level.NOTE
        return (
            f"{text} The other planes have no cells in it; search them, too, before you classify them.",
            Level.WARNING,
        )

    @property
    def _searched(self) -> str:
        planes = len(self.source.image.planes)
        return "the image" if planes == 1 else f"{len(self.found)} of {planes} planes"


def _asked(name: str, call: Callable[..., Any], *arguments: object) -> Any:
    """Call another program, and say in words if it fails.

    Raises
    ------
    ComputeError
        If it fails in any way.
    """
    try:
        return call(*arguments)
    except MemoryError:
        raise
    except Exception as error:  # whatever another program may raise
        text = str(error).strip() or "no reason given"
        raise ComputeError(
            f"{name} failed ({type(error).__name__}: {text}); try it outside napari-milcnn to see whether it works on "
            "this computer. It downloads its model when it is used for the first time"
        ) from error
