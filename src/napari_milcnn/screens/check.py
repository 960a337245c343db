"""Whether the images of a screen fit its model and its options: asked before the folder of results is taken.

A mistake that all images share (channels that are not those of the model, a pixel size that cannot be true, pixels that
nothing here can read) is said once, and nothing is written. What is wrong with some images only costs a row each.

Fields are tried in random order until one fits, which is nearly always the first. Of a few of them it is also said what
holds for all: how their channels were understood, that they have another bit depth than the training images, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from napari_milcnn.errors import ImageError
from napari_milcnn.images.open import ImageReading
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.inference.pipeline import failures_of
from napari_milcnn.inference.unlike import pixels_unlike
from napari_milcnn.screens.parts import FieldOfWell

_MOST_TRIED: Final = 100
"""Fields that are tried before a screen of which none fits is refused."""
_LOOKED_AT: Final = 3
"""Fields of which it is said what they have in common."""
_LARGEST_LOOK: Final = 2**24
"""Pixels of the largest plane of which the intensities are looked at."""
_UNLIKE: Final = "unlike the training images"


def check_fields(
    maker: EvidenceMaker, fields: Sequence[FieldOfWell], reading: ImageReading, *, cells: bool,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    """Refuse a screen none of whose fields can be classified, and say what those that were looked at have in common.

    Parameters
    ----------
    maker : EvidenceMaker
        The model and its options.
    fields : sequence of FieldOfWell
        All fields of the screen.
    reading : ImageReading
        How they are opened.
    cells : bool
        Whether cells are looked for, so that the channel in which they are found is needed, too.
    say : callable
        Called with each sentence.

    Raises
    ------
    ImageError
        If none of up to 100 fields can be classified. The message has the reason of one that could at least be opened,
        if there is one.
    """
    found: list[dict[str, str]] = []
    unread: list[str] = []
    unfit: list[str] = []
    tried = np.random.default_rng(0).permutation(len(fields))[:_MOST_TRIED]
    for count, number in enumerate(tried, start=1):
        image = None
        with failures_of(fields[number].file) as reasons:
            image = fields[number].open(reading)
            with image:
                found.append(_to_know(maker, image, cells))
        (unread if image is None else unfit).extend(reasons)
        if found and count >= _LOOKED_AT:
            break
    if not found:
        of_all = f"{len(tried)} of {len(fields)} were tried" if len(tried) < len(fields) else "all were tried"
        raise ImageError(f"no field of the screen can be classified ({of_all}), such as: {(unfit or unread)[0]}")
    for kind, sentence in found[0].items():
        if all(kind in notes for notes in found):
            say(f"{len(found)} field{'s were' if len(found) > 1 else ' was'} looked at first: {sentence}")


def _to_know(maker: EvidenceMaker, image: ImageStack, cells: bool) -> dict[str, str]:
    """Return what is to know of an image that fits, kind -> sentence.

    Raises
    ------
    ImageError
        If it does not fit, or its pixels cannot be read.
    """
    model_input = maker.takes(image, foreground=cells)
    notes = {text: text for text in (one.removeprefix(f"{image.path}: ") for one in model_input.warnings)}
    height, width = image.plane_shape
    if height * width <= _LARGEST_LOOK and maker.model.card.normalise != "group":
        reason, on_sizes = pixels_unlike(model_input, 0)
        notes |= {_UNLIKE: "; ".join([f"{_UNLIKE}: {reason}", *([on_sizes] if on_sizes else [])])} if reason else {}
    return notes
