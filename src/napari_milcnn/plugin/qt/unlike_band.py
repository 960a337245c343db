"""The coloured band above a result: whether a plane is like the training images, unlike them, or shows nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_milcnn.plugin.qt.forms import ERROR, LIKE, UNSURE, WARNING, Band
from napari_milcnn.schema import NO_CLASS, UNLIKE, UNLIKE_REASON, unlike_sentence

if TYPE_CHECKING:
    from napari_milcnn.inference.predict import Prediction

NOT_CALIBRATED = "The model does not know what its training images look like: calibrate it."
NOT_RECORDED = (
    "These results do not say whether it is like the training images: they were made before that was measured."
)


class UnlikeBand(Band):
    """Says of one plane, or of one row of results, whether its class can be trusted."""

    def show_prediction(self, prediction: Prediction | None) -> None:
        """Show what is known of a prediction of one plane; nothing for None."""
        if prediction is None:
            self.show_on("", UNSURE)
        else:
            first = float(prediction.unlike[0]), prediction.unlike_reasons[0], bool(prediction.has_structure[0])
            self.show_on(*_words(*first))

    def show_row(self, table: pd.DataFrame, number: int | None) -> None:
        """Show what is known of a row of `OpenedResults.table`; nothing for None, and for an image that failed."""
        if number is None or table["error"].iat[number]:
            self.show_on("", UNSURE)
            return
        name = str(table["name"].iat[number])
        if UNLIKE not in table:
            self.show_on(f"{name}: {NOT_RECORDED}", UNSURE)
            return
        reason = str(table[UNLIKE_REASON].iat[number]) if UNLIKE_REASON in table else ""
        value, top = float(table[UNLIKE].to_numpy(float)[number]), str(table["top"].iat[number])
        text, ground = _words(value, reason, top != NO_CLASS)
        self.show_on(f"{name}: {text}", ground)


def _words(value: float, reason: str, has_structure: bool) -> tuple[str, str]:
    """Return what is said of a plane, and the ground behind it."""
    if not has_structure:
        return unlike_sentence(value, reason, has_structure), ERROR
    if np.isnan(value):
        return NOT_CALIBRATED, UNSURE
    if value > 1:
        sentence = unlike_sentence(value, reason, has_structure)
        return f"{sentence}. Its class may be wrong, however high the score.", WARNING
    return f"like the training images ({value:.2f}, limit 1)", LIKE
