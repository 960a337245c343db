"""One picture that says what a model saw in an image: the image with the outlined objects, the evidence, the scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from skimage.segmentation import find_boundaries

from napari_milcnn.atomic_write import replacing
from napari_milcnn.figures.palette import class_colours
from napari_milcnn.images.paths import printable
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.class_maps import lay_over
from napari_milcnn.inference.masks import PlaneMasks, class_image
from napari_milcnn.inference.predict import Prediction

SHOWN = 4
"""Planes in one picture, evenly spread over the image's planes."""
_SIDE = 1024
"""Longest side, in px, that a plane is shown with."""
_FEWEST_BARS = 7
"""Room is left for so many, so that two classes do not fill the panel."""
_BACKGROUND, _TEXT, _FAINT = "#16181d", "#e8eaee", "#7d8592"
_CHANNEL_COLOURS = ((0, 1, 0), (1, 0, 1), (0, 0.6, 1), (1, 0.6, 0))
_SCALE_BARS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class ShownPlane:
    """A plane of the picture: its index, the image as RGB (Y, X, 3), and its objects, if any were made."""

    index: int
    rgb: np.ndarray
    step: int
    masks: PlaneMasks | None


def shown_planes(count: int) -> list[int]:
    """Return the indices of the planes shown, of so many."""
    return np.unique(np.linspace(0, count - 1, min(count, SHOWN)).round().astype(int)).tolist()  # type: ignore[no-any-return]


def shown_plane(image: ImageStack, channels: Sequence[int], index: int, masks: PlaneMasks | None) -> ShownPlane:
    """Read one plane for the picture, made smaller by whole steps where it is large."""
    step = max(1, -(-max(image.plane_shape) // _SIDE))
    raw = image.plane(index, tuple(channels)[: len(_CHANNEL_COLOURS)])[:, ::step, ::step].astype(np.float32)
    return ShownPlane(index, composite(raw), step, masks)


def composite(raw: np.ndarray) -> np.ndarray:
    """Channels (channels, Y, X) -> RGB (Y, X, 3) from 0 to 1: grey for one channel, else green, magenta, …."""
    low, high = (np.percentile(raw, q, axis=(1, 2), keepdims=True) for q in (1, 99.7))
    scaled = np.clip((raw - low) / np.maximum(high - low, 1e-9), 0, 1)
    colours = np.array([(1, 1, 1)] if len(raw) == 1 else _CHANNEL_COLOURS[: len(raw)])
    return np.asarray(np.clip(np.einsum("cyx,cr->yxr", scaled, colours), 0, 1))


def write_overview(path: Path, prediction: Prediction, planes: Sequence[ShownPlane], pixel_size: float | None) -> None:
    """Draw the picture and write it as PNG."""
    colours = class_colours(prediction.classes)
    bars = max(2.2, 0.24 * len(prediction.classes) + 0.9)
    figure = Figure(figsize=(12.5, 0.75 + len(planes) * max(4.1, bars)), facecolor=_BACKGROUND, layout="constrained")
    grid = figure.subplots(len(planes), 3, squeeze=False, width_ratios=(1, 1, 0.75))
    figure.suptitle(printable(_title(prediction)), color=_TEXT, fontsize=14, x=0.01, ha="left", wrap=True)
    for axes, plane in zip(grid, planes, strict=True):
        _draw_image(axes[0], prediction, plane, colours, pixel_size)
        _draw_evidence(axes[1], prediction, plane)
        _draw_scores(axes[2], prediction, plane.index, colours)
    with replacing(path) as draft:
        figure.savefig(draft, format="png", dpi=100)


def _title(prediction: Prediction) -> str:
    if len(prediction.planes) == 1:
        return f"{prediction.name}: {prediction.top[0]}"
    counts = {name: prediction.top.count(name) for name in prediction.classes}
    found = ", ".join(f"{name} {n}" for name, n in sorted(counts.items(), key=lambda item: -item[1]) if n)
    return f"{prediction.name}: {len(prediction.planes)} planes — {found}"


def _draw_image(
    axes: Axes, prediction: Prediction, plane: ShownPlane, colours: dict[str, str], pixel_size: float | None
) -> None:
    rgb = plane.rgb.copy()
    handles = []
    if plane.masks is not None:
        found = class_image(plane.masks.labels, plane.masks.objects, prediction.classes)[:: plane.step, :: plane.step]
        edges = find_boundaries(plane.masks.labels[:: plane.step, :: plane.step], mode="inner")
        for number, name in enumerate(prediction.classes, start=1):
            rgb[edges & (found == number)] = _rgb(colours[name])
            count = int((plane.masks.objects["class"] == name).sum())
            handles += [Line2D([], [], color=colours[name], lw=3, label=f"{name} ({count})")] if count else []
    where = prediction.plane_name(plane.index)
    _show(axes, rgb, " · ".join(filter(None, [where, "objects" if handles else "image"])))
    _scale_bar(axes, rgb.shape, plane.step, pixel_size)
    if handles:
        axes.legend(handles=handles, loc="lower left", fontsize=8, framealpha=0.6, facecolor=_BACKGROUND,
                    labelcolor=_TEXT, edgecolor="none")  # fmt: skip


def _draw_evidence(axes: Axes, prediction: Prediction, plane: ShownPlane) -> None:
    top = prediction.classes.index(prediction.top[plane.index])
    height, width = plane.rgb.shape[:2]
    placement = prediction.placement
    small = type(placement)(placement.stride / plane.step, placement.y / plane.step, placement.x / plane.step)
    laid = lay_over(prediction.class_maps[plane.index, top], small, (height, width))
    _show(axes, plane.rgb.mean(2), f"where {prediction.top[plane.index]} was seen", cmap="gray", vmin=0, vmax=1)
    shown = axes.imshow(laid, cmap="inferno", vmin=0, vmax=1, alpha=np.clip(0.15 + 0.5 * laid, 0, 1))
    bar = axes.figure.colorbar(shown, ax=axes, fraction=0.04, pad=0.01)
    bar.set_label("instance probability p", color=_FAINT, fontsize=8)
    bar.ax.tick_params(colors=_FAINT, labelsize=7)


def _draw_scores(axes: Axes, prediction: Prediction, index: int, colours: dict[str, str]) -> None:
    scores, names = prediction.scores[index], prediction.classes
    places = np.arange(len(names))[::-1]
    axes.barh(places, scores, color=[colours[name] for name in names], height=0.62)
    for place, name, score in zip(places, names, scores, strict=True):
        weight = "bold" if name == prediction.top[index] else "normal"
        axes.text(min(score, 1) + 0.02, place, f"{score:.2f}", va="center", color=_TEXT, fontsize=9, fontweight=weight)
    lowest = min(0, len(names) - _FEWEST_BARS) - 0.5
    axes.set(xlim=(0, 1.18), ylim=(lowest, len(names) - 0.5), xticks=(0, 0.5, 1), facecolor=_BACKGROUND)
    axes.set_yticks(places, names, fontsize=9)
    axes.set_title("score of each class", color=_TEXT, fontsize=10, loc="left")
    axes.tick_params(colors=_TEXT, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _show(axes: Axes, picture: np.ndarray, title: str, **options: Any) -> None:
    axes.imshow(picture, interpolation="nearest", **options)
    axes.set_title(title, color=_TEXT, fontsize=10, loc="left")
    axes.axis("off")


def _scale_bar(axes: Axes, shape: tuple[int, ...], step: int, pixel_size: float | None) -> None:
    if pixel_size is None:
        return
    width = shape[1] * step * pixel_size
    length = max((bar for bar in _SCALE_BARS if bar <= width / 4), default=_SCALE_BARS[0])
    pixels = length / pixel_size / step
    right, bottom = shape[1] * 0.97, shape[0] * 0.96
    axes.add_patch(Rectangle((right - pixels, bottom), pixels, shape[0] * 0.012, color="white"))
    axes.text(right - pixels / 2, bottom - shape[0] * 0.01, f"{length:g} µm", color="white", ha="center", va="bottom",
              fontsize=8)  # fmt: skip


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
