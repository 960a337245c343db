"""How much of a score hangs on the masks, in words: the same in reports, on cards, in terminals and in the dock."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from napari_milcnn.options import EVIDENCE_NAMES

if TYPE_CHECKING:
    from napari_milcnn.model.card import MaskFaithfulness

HEADING = "Does the score hang on the masks?"
EXPLANATION = (
    "Of up to eight images of each class, the pixels of the masks of that class were replaced by the image's own "
    "background: what is lost of the score hangs on them. Then only these pixels were kept: what stays of the score "
    "needs nothing else. The same was done with the masks moved to a random place (elsewhere). This does not say that "
    "the masks are right: images with holes are unlike anything that the model has learned, and such numbers agree "
    "with known cells only roughly."
)
_CLEAR = 0.05
"""Difference of two mean scores below which they are called alike."""
_VERDICTS = {
    (True, True): "The score hangs on these pixels more than on as many elsewhere.",
    (True, False): "The score needs these pixels more than others, but they alone keep no more of it.",
    (False, True): "These pixels alone keep more of the score than others, but it does not need them.",
    (False, False): "The score hangs on these pixels no more than on as many elsewhere.",
}
"""Whether more is lost without the masks, and whether more stays with them alone, than elsewhere -> what that means."""


def faithfulness_sentences(found: Iterable[MaskFaithfulness]) -> list[str]:
    """Say for each kind of evidence, over all classes, how much of the score hangs on its masks."""
    return [_sentence(one) for one in found if one.class_name is None]


def _sentence(found: MaskFaithfulness) -> str:
    verdict = _VERDICTS[
        found.lost > found.lost_elsewhere + _CLEAR, found.mask_alone > found.elsewhere_alone + _CLEAR
    ]  # fmt: skip
    return (
        f"Masks from {EVIDENCE_NAMES[found.evidence]} cover {found.area:.0%} of the image ({found.images} "
        f"image{'s'[: found.images != 1]}). Without their pixels {score_text(found.lost)} of a score of "
        f"{score_text(found.score)} is lost (elsewhere {score_text(found.lost_elsewhere)}); with them alone "
        f"{score_text(found.mask_alone)} stays (elsewhere {score_text(found.elsewhere_alone)}). {verdict}"
    )


def score_text(value: float) -> str:
    """Write a score, or a difference of scores, with two digits; a negative one that rounds to zero has no sign."""
    return f"{round(value, 2) + 0.0:.2f}"
