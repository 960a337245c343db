"""Draw the overview picture of an image: outlined objects, the class map, and the score of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from skimage.segmentation import find_boundaries

from napari_milcnn.atomic_write import replacing
from napari_milcnn.figures.palette import class_colours
from napari_milcnn.images.paths import printable
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.class_maps import MapPlacement, lay_over
from napari_milcnn.inference.masks import PlaneMasks, class_image
from napari_milcnn.inference.predict import Prediction
from napari_milcnn.schema import NO_CLASS, NOTHING

CHANNEL_COLOURS = ((0, 1, 0), (1, 0, 1), (0, 0.6, 1), (1, 0.6, 0))
"""RGB colours of the first channels of an image that has several; further channels are not shown."""
_MOST_PLANES = 4
"""Largest number of planes in one picture; they are spread evenly over the image's planes."""
_LONGEST_SIDE = 1024
"""Longest side of a plane in the picture, in px."""
_FEWEST_BARS = 7
"""The panel of scores has room for at least this many bars, so that the bars of two classes do not fill it."""
_BACKGROUND, _TEXT, _FAINT = "#16181d", "#e8eaee", "#7d8592"
_SCALE_BARS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Possible lengths of the scale bar, in µm."""


@dataclass(frozen=True)
class ShownPlane:
    """A plane of the picture.

    Attributes
    ----------
    index : int
        Its row in the prediction.
    rgb : ndarray
        The image, float (Y, X, 3) from 0 to 1, reduced by `step`.
    step : int
        Each `step`-th pixel of the image is shown.
    masks : PlaneMasks or None
        Its objects at full size; None where no masks were made.
    """

    index: int
    rgb: np.ndarray
    step: int
    masks: PlaneMasks | None


def shown_planes(count: int) -> list[int]:
    """Return the indices of the planes to show, out of `count` planes."""
    spread = np.linspace(0, count - 1, min(count, _MOST_PLANES))
    return np.unique(spread.round().astype(int)).tolist()  # type: ignore[no-any-return]


def shown_plane(image: ImageStack, channels: Sequence[int], index: int, masks: PlaneMasks | None) -> ShownPlane:
    """Read one plane for the picture; a large plane is reduced by a whole step.

    Parameters
    ----------
    image : ImageStack
        The image.
    channels : sequence of int
        Indices of the channels to show.
    index : int
        Index of the plane.
    masks : PlaneMasks or None
        Objects of the plane to outline.
    """
    step = reducing_step(image.plane_shape, _LONGEST_SIDE)
    raw = image.plane(index, tuple(channels)[: len(CHANNEL_COLOURS)])[:, ::step, ::step].astype(np.float32)
    return ShownPlane(index, composite(raw), step, masks)


def reducing_step(shape: Sequence[int], longest_side: int) -> int:
    """Return the smallest step at which each `step`-th pixel of (Y, X) fits into `longest_side` px."""
    return max(1, -(-max(shape) // longest_side))


def composite(raw: np.ndarray) -> np.ndarray:
    """Merge channels into a colour picture, with the contrast of each channel stretched.

    Parameters
    ----------
    raw : ndarray
        Intensities, float (channels, Y, X), of at most as many channels as `CHANNEL_COLOURS` has colours.

    Returns
    -------
    ndarray
        RGB, float (Y, X, 3) from 0 to 1: grey for one channel, else in `CHANNEL_COLOURS`.
    """
    low, high = (np.percentile(raw, q, axis=(1, 2), keepdims=True) for q in (1, 99.7))
    scaled = np.clip((raw - low) / np.maximum(high - low, 1e-9), 0, 1)
    colours = np.array([(1, 1, 1)] if len(raw) == 1 else CHANNEL_COLOURS[: len(raw)])
    return np.asarray(np.clip(np.einsum("cyx,cr->yxr", scaled, colours), 0, 1))


def lay_over_reduced(class_map: np.ndarray, placement: MapPlacement, step: int, shape: Sequence[int]) -> np.ndarray:
    """Lay class maps (..., Y, X) over a picture that shows each `step`-th pixel of their image.

    Returns float32 (..., Y, X) of the picture's shape.
    """
    reduced = MapPlacement(placement.stride / step, placement.y / step, placement.x / step)
    return lay_over(class_map, reduced, shape)


def overlay_opacity(probability: np.ndarray) -> np.ndarray:
    """Return how opaque a class map (..., Y, X) is over its image, from 0 to 1: more where p is high."""
    return np.asarray(np.clip(0.15 + 0.5 * probability, 0, 1))


def write_overview(path: Path, prediction: Prediction, planes: Sequence[ShownPlane], pixel_size: float | None) -> None:
    """Draw the overview picture of an image and write it as PNG.

    Parameters
    ----------
    path : Path
        The file.
    prediction : Prediction
        The model's prediction for the image.
    planes : sequence of ShownPlane
        The planes to show, one below the other.
    pixel_size : float or None
        µm per pixel of the image; without it there is no scale bar.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
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
        return f"{prediction.name}: {prediction.top[0] or NOTHING}{_unlike_words(prediction)}"
    counts = {name: prediction.top.count(name) for name in prediction.classes}
    found = ", ".join(f"{name} {n}" for name, n in sorted(counts.items(), key=lambda item: -item[1]) if n)
    empty = prediction.top.count(NO_CLASS)
    found = ", ".join(filter(None, [found, f"{NOTHING} {empty}" if empty else ""]))
    return f"{prediction.name}: {len(prediction.planes)} planes — {found}{_unlike_words(prediction)}"


def _unlike_words(prediction: Prediction) -> str:
    """Say how many planes are unlike the training images; for a single plane, in what."""
    count = int((prediction.is_unlike & prediction.has_structure).sum())
    if not count:
        return ""
    if len(prediction.planes) > 1:
        return f" — {count} unlike the training images"
    return f" — unlike the training images ({prediction.unlike[0]:.1f}): {prediction.unlike_reasons[0]}"


def _draw_image(
    axes: Axes, prediction: Prediction, plane: ShownPlane, colours: dict[str, str], pixel_size: float | None
) -> None:
    """Draw the image with its objects outlined in the colours of their classes."""
    rgb = plane.rgb.copy()
    handles = []
    if plane.masks is not None:
        classes = class_image(plane.masks.labels, plane.masks.shown, prediction.classes)[:: plane.step, :: plane.step]
        edges = find_boundaries(plane.masks.labels[:: plane.step, :: plane.step], mode="inner")
        for number, name in enumerate(prediction.classes, start=1):
            rgb[edges & (classes == number)] = to_rgb(colours[name])
            count = int((plane.masks.shown["class"] == name).sum())
            handles += [Line2D([], [], color=colours[name], lw=3, label=f"{name} ({count})")] if count else []
    plane_name = prediction.plane_name(plane.index)
    _draw_picture(axes, rgb, " · ".join(filter(None, [plane_name, "objects" if handles else "image"])))
    _draw_scale_bar(axes, rgb.shape, plane.step, pixel_size)
    if handles:
        axes.legend(handles=handles, loc="lower left", fontsize=8, framealpha=0.6, facecolor=_BACKGROUND,
                    labelcolor=_TEXT, edgecolor="none")  # fmt: skip


def _draw_evidence(axes: Axes, prediction: Prediction, plane: ShownPlane) -> None:
    """Draw the class map of the top class over the grey image."""
    if prediction.top[plane.index] == NO_CLASS:
        _draw_picture(axes, plane.rgb.mean(2), NOTHING)
        return
    top = prediction.classes.index(prediction.top[plane.index])
    class_map = prediction.class_maps[plane.index, top]
    probability = lay_over_reduced(class_map, prediction.placement, plane.step, plane.rgb.shape[:2])
    _draw_picture(axes, plane.rgb.mean(2), f"where {prediction.top[plane.index]} was seen")
    overlay = axes.imshow(probability, cmap="inferno", vmin=0, vmax=1, alpha=overlay_opacity(probability))
    bar = axes.figure.colorbar(overlay, ax=axes, fraction=0.04, pad=0.01)
    bar.set_label("instance probability p", color=_FAINT, fontsize=8)
    bar.ax.tick_params(colors=_FAINT, labelsize=7)


def _draw_scores(axes: Axes, prediction: Prediction, index: int, colours: dict[str, str]) -> None:
    """Draw the score of each class as a bar, the first class on top."""
    scores, names = prediction.scores[index], prediction.classes
    heights = np.arange(len(names))[::-1]
    axes.barh(heights, scores, color=[colours[name] for name in names], height=0.62)
    for height, name, score in zip(heights, names, scores, strict=True):
        weight = "bold" if name == prediction.top[index] else "normal"
        axes.text(min(score, 1) + 0.02, height, f"{score:.2f}", va="center", color=_TEXT, fontsize=9, fontweight=weight)
    lowest = min(0, len(names) - _FEWEST_BARS) - 0.5
    axes.set(xlim=(0, 1.18), ylim=(lowest, len(names) - 0.5), xticks=(0, 0.5, 1), facecolor=_BACKGROUND)
    axes.set_yticks(heights, names, fontsize=9)
    axes.set_title("score of each class", color=_TEXT, fontsize=10, loc="left")
    axes.tick_params(colors=_TEXT, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_picture(axes: Axes, picture: np.ndarray, title: str) -> None:
    """Draw a grey (Y, X) or colour (Y, X, 3) picture with values from 0 to 1."""
    axes.imshow(picture, interpolation="nearest", cmap="gray", vmin=0, vmax=1)  # colour pictures need no colour map
    axes.set_title(title, color=_TEXT, fontsize=10, loc="left")
    axes.axis("off")


def _draw_scale_bar(axes: Axes, shape: tuple[int, ...], step: int, pixel_size: float | None) -> None:
    """Draw the longest scale bar that takes no more than a quarter of the picture's width."""
    if pixel_size is None:
        return
    width = shape[1] * step * pixel_size
    length = max((bar for bar in _SCALE_BARS if bar <= width / 4), default=_SCALE_BARS[0])
    pixels = length / pixel_size / step
    right, bottom = shape[1] * 0.97, shape[0] * 0.96
    axes.add_patch(Rectangle((right - pixels, bottom), pixels, shape[0] * 0.012, color="white"))
    axes.text(right - pixels / 2, bottom - shape[0] * 0.01, f"{length:g} µm", color="white", ha="center", va="bottom",
              fontsize=8)  # fmt: skip
