"""Draw the overview picture of an image: outlined objects, the class map, and the score of each class.

Every image of a run has one, so it is put together from arrays; matplotlib, which takes fifteen times as long, gives
only its font and its colour map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import imagecodecs
import matplotlib as mpl
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont
from skimage.segmentation import find_boundaries

from napari_milcnn.atomic_write import replacing
from napari_milcnn.figures.palette import class_colours
from napari_milcnn.images.paths import printable
from napari_milcnn.images.stack import ImageStack, Window
from napari_milcnn.inference.class_maps import MapPlacement, lay_over
from napari_milcnn.inference.masks import PlaneMasks, class_image
from napari_milcnn.inference.predict import Prediction
from napari_milcnn.schema import NO_CLASS, NOTHING

CHANNEL_COLOURS = ((0, 1, 0), (1, 0, 1), (0, 0.6, 1), (1, 0.6, 0))
"""RGB colours of the first channels of an image that has several; further channels are not shown."""
_MOST_PLANES = 4
"""Largest number of planes in one picture; they are spread evenly over the image's planes."""
_READ_PIXELS = 2**24
"""Pixels that are read at a time, about."""
_LONGEST_SIDE = 1024
"""Longest side of a plane in the picture, in px."""
_PANEL_SIDE, _SCORES_WIDTH, _GAP = 460, 270, 14
"""Longest side of a plane in the picture, width of the panel of scores, and room between things, all in px."""
_SCORE_HEIGHT = 22
"""Height of the row of one class in the panel of scores, in px."""
_TITLE, _HEADING, _SMALL = 19, 14, 11
"""Sizes of the font, in px."""
_BACKGROUND, _TEXT, _FAINT = "#16181d", "#e8eaee", "#7d8592"
_CONTRAST_PIXELS = 2**16
"""Pixels of a plane above which every second row and column tells its contrast."""
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
    height, width = image.plane_shape
    rows = max(1, _READ_PIXELS // width // step) * step
    windows = (Window(top, min(top + rows, height), 0, width) for top in range(0, height, rows))
    own = tuple(channels)[: len(CHANNEL_COLOURS)]
    raw = np.concatenate([image.plane(index, own, window)[:, ::step, ::step] for window in windows], 1)
    raw = raw.astype(np.float32)
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
    few = raw[:, ::2, ::2] if raw[0].size > _CONTRAST_PIXELS else raw
    low, high = np.percentile(few, (1, 99.7), axis=(1, 2), keepdims=True).astype(np.float32)
    scaled = np.clip((raw - low) / np.maximum(high - low, np.float32(1e-9)), 0, 1)
    colours = np.array([(1, 1, 1)] if len(raw) == 1 else CHANNEL_COLOURS[: len(raw)], np.float32)
    return np.asarray(np.clip(np.moveaxis(scaled, 0, -1) @ colours, 0, 1))


def lay_over_reduced(class_map: np.ndarray, placement: MapPlacement, step: float, shape: Sequence[int]) -> np.ndarray:
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
    rows = []
    for plane in planes:
        panels = [_image_panel(prediction, plane, colours, pixel_size), _evidence_panel(prediction, plane),
                  _scores_panel(prediction, plane.index, colours)]  # fmt: skip
        rows.append(_put_together(panels, across=True))
    title = _text_image(printable(_title(prediction)), _TITLE, rows[0].width)
    with replacing(path) as draft:
        pixels = np.asarray(_framed(_put_together([title, *rows], across=False)))
        draft.write_bytes(imagecodecs.png_encode(pixels, level=1, filter=imagecodecs.PNG.FILTER.SUB))  # a quick one


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


def _image_panel(
    prediction: Prediction, plane: ShownPlane, colours: dict[str, str], pixel_size: float | None
) -> Image.Image:
    """Draw the image with its objects outlined in the colours of their classes."""
    picture, counts = np.asarray(_panel_picture(plane.rgb)).copy(), {}
    if plane.masks is not None:
        labels = _sampled(plane.masks.labels, picture.shape)
        classes = class_image(labels, plane.masks.shown, prediction.classes)
        edges = find_boundaries(labels, mode="inner")
        for number, name in enumerate(prediction.classes, start=1):
            picture[edges & (classes == number)] = ImageColor.getrgb(colours[name])
        found = plane.masks.shown["class"].value_counts()
        counts = {name: int(found[name]) for name in prediction.classes if name in found}
    image = Image.fromarray(picture)
    if pixel_size is not None:
        _draw_scale_bar(image, pixel_size * plane.rgb.shape[1] * plane.step / image.width)
    _draw_legend(image, {f"{name} ({count})": colours[name] for name, count in counts.items()})
    return _panel(
        " · ".join(filter(None, [prediction.plane_name(plane.index), "objects" if counts else "image"])), image
    )


def _evidence_panel(prediction: Prediction, plane: ShownPlane) -> Image.Image:
    """Draw the class map of the top class over the grey image, beside the scale of its colours."""
    grey = np.repeat(np.asarray(_panel_picture(plane.rgb)).mean(2, keepdims=True), 3, 2).astype(np.uint8)
    name = prediction.top[plane.index]
    if name == NO_CLASS:
        return _panel(NOTHING, Image.fromarray(grey))
    class_map = prediction.class_maps[plane.index, prediction.classes.index(name)]
    step = plane.rgb.shape[0] * plane.step / grey.shape[0]
    probability = lay_over_reduced(class_map, prediction.placement, step, grey.shape[:2])
    opacity = overlay_opacity(probability)[..., None]
    overlay = _heat_colours()[np.uint8(255 * np.clip(probability, 0, 1))]
    picture = Image.fromarray(np.uint8((1 - opacity) * grey + opacity * overlay))
    return _panel(f"where {name} was seen", _put_together([picture, _colour_scale(picture.height)], across=True))


def _colour_scale(height: int) -> Image.Image:
    """Draw the scale of the colours of p, as high as the picture that it stands beside."""
    image = Image.new("RGB", (44, height), _BACKGROUND)
    colours = _heat_colours()[np.linspace(255, 0, height).round().astype(int)]
    image.paste(Image.fromarray(np.repeat(colours[:, None], 12, axis=1)), (0, 0))
    draw = ImageDraw.Draw(image)
    for value, y, anchor in ((1, 1, "lt"), (0.5, height // 2, "lm"), (0, height - 2, "ls")):
        draw.text((17, y), f"{value:g}", _FAINT, _font(_SMALL), anchor)
    draw.text((17, height // 4), "p", _FAINT, _font(_SMALL), "lm")
    return image


def _scores_panel(prediction: Prediction, index: int, colours: dict[str, str]) -> Image.Image:
    """Draw the score of each class as a bar, the first class on top."""
    names = [printable(name) for name in prediction.classes]
    left = min(max(_font(_SMALL).getlength(name) for name in names) + 8, 0.5 * _SCORES_WIDTH)
    full = _SCORES_WIDTH - left - 38
    image = Image.new("RGB", (_SCORES_WIDTH, _SCORE_HEIGHT * len(names) + 20), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    for i, (name, score) in enumerate(zip(names, prediction.scores[index], strict=True)):
        top, middle = i * _SCORE_HEIGHT + 4, i * _SCORE_HEIGHT + _SCORE_HEIGHT // 2
        bold = prediction.classes[i] == prediction.top[index]
        end = left + full * min(max(float(score), 0), 1)
        draw.text((left - 8, middle), _shortened(name, left - 8), _TEXT, _font(_SMALL, bold=bold), "rm")
        draw.rectangle((left, top, end, top + _SCORE_HEIGHT - 8), colours[prediction.classes[i]])
        draw.text((end + 5, middle), f"{score:.2f}", _TEXT, _font(_SMALL, bold=bold), "lm")
    for value in (0, 0.5, 1):
        draw.text((left + full * value, image.height - 6), f"{value:g}", _FAINT, _font(_SMALL), "ms")
    return _panel("score of each class", image)


def _draw_legend(image: Image.Image, entries: dict[str, str]) -> None:
    """Write which colour is which class into the lower left corner."""
    if not entries:
        return
    width = int(max(_font(_SMALL).getlength(printable(text)) for text in entries)) + 34
    height = 17 * len(entries) + 8
    ground = Image.new("RGB", (min(width, image.width), min(height, image.height)), _BACKGROUND)
    corner = (6, max(0, image.height - ground.height - 6))
    image.paste(ground, corner, Image.new("L", ground.size, 150))
    draw = ImageDraw.Draw(image)
    for i, (text, colour) in enumerate(entries.items()):
        y = corner[1] + 12 + 17 * i
        draw.line((corner[0] + 6, y, corner[0] + 24, y), colour, 3)
        draw.text((corner[0] + 30, y), printable(text), _TEXT, _font(_SMALL), "lm")


def _draw_scale_bar(image: Image.Image, pixel_size: float) -> None:
    """Draw the longest scale bar that takes a quarter of the picture at most; `pixel_size` is that of the picture."""
    length = max((bar for bar in _SCALE_BARS if bar <= image.width * pixel_size / 4), default=_SCALE_BARS[0])
    right, bottom = image.width - 12, image.height - 12
    left = right - length / pixel_size
    draw = ImageDraw.Draw(image)
    draw.rectangle((left, bottom - 4, right, bottom), "white")
    draw.text(((left + right) / 2, bottom - 8), f"{length:g} µm", "white", _font(_SMALL), "ms")


def _panel_picture(rgb: np.ndarray) -> Image.Image:
    """Make a picture of (Y, X, 3), values from 0 to 1, whose longest side is as long as all of them."""
    zoom = _PANEL_SIDE / max(rgb.shape[:2])
    size = tuple(max(1, round(side * zoom)) for side in rgb.shape[1::-1])
    method = Image.Resampling.NEAREST if zoom >= 2 else Image.Resampling.BILINEAR
    return Image.fromarray(np.uint8(255 * rgb)).resize(size, method)


def _sampled(labels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return labels (Y, X) in the size of a picture: of each pixel the label in its middle."""
    y, x = (np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(int)
            for new, old in zip(shape, labels.shape, strict=False))  # fmt: skip
    return np.stack([np.asarray(labels[row])[x] for row in y])


def _panel(heading: str, picture: Image.Image) -> Image.Image:
    """Write a heading above a picture."""
    return _put_together(
        [_text_image(printable(heading), _HEADING, picture.width, lines=1), picture], across=False, gap=4
    )


def _put_together(parts: Sequence[Image.Image], *, across: bool, gap: int = _GAP) -> Image.Image:
    """Put pictures beside each other, or below each other."""
    room = gap * (len(parts) - 1)
    if across:
        size = (sum(part.width for part in parts) + room, max(part.height for part in parts))
    else:
        size = (max(part.width for part in parts), sum(part.height for part in parts) + room)
    sheet, at = Image.new("RGB", size, _BACKGROUND), 0
    for part in parts:
        sheet.paste(part, (at, 0) if across else (0, at))
        at += (part.width if across else part.height) + gap
    return sheet


def _framed(picture: Image.Image) -> Image.Image:
    """Put an empty margin around a picture."""
    sheet = Image.new("RGB", (picture.width + 2 * _GAP, picture.height + 2 * _GAP), _BACKGROUND)
    sheet.paste(picture, (_GAP, _GAP))
    return sheet


def _text_image(text: str, size: int, width: int, lines: int = 4) -> Image.Image:
    """Write a text in so many lines at most; what does not fit ends in an ellipsis."""
    rows: list[str] = [""]
    for word in text.split(" "):
        longer = f"{rows[-1]} {word}".strip()
        if rows[-1] and len(rows) < lines and _font(size).getlength(longer) > width:
            rows.append(word)
        else:
            rows[-1] = longer
    height = round(1.4 * size)
    image = Image.new("RGB", (width, height * len(rows)), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    for i, line in enumerate(rows):
        draw.text((0, i * height + height // 2), _shortened(line, width, size), _TEXT, _font(size), "lm")
    return image


def _shortened(text: str, width: float, size: int = _SMALL) -> str:
    """Cut a text that is wider than `width` px, with an ellipsis at its end."""
    if _font(size).getlength(text) <= width:
        return text
    while text and _font(size).getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


@cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return matplotlib's font, which knows the letters of most European languages."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / name, size)


@cache
def _heat_colours() -> np.ndarray:
    """Return the 256 colours of p from 0 to 1, uint8 (256, 3)."""
    return np.asarray(255 * mpl.colormaps["inferno"](np.linspace(0, 1, 256))[:, :3]).round().astype(np.uint8)
