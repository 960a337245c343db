"""The one model that all docks share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psygnal import Signal

if TYPE_CHECKING:
    from napari_milcnn.model.trained_model import TrainedModel


class CurrentModel:
    """Holds the current model, or none, and says when another one takes its place.

    Attributes
    ----------
    changed : Signal
        Emitted with the new model, or None, once it is there; not where it is the one that was there already.
    """

    changed = Signal(object)

    def __init__(self) -> None:
        self._model: TrainedModel | None = None

    @property
    def model(self) -> TrainedModel | None:
        """The current model; None before the first one, and after `clear`."""
        return self._model

    def set(self, model: TrainedModel) -> None:
        """Make a model the current one."""
        self._take(model)

    def clear(self) -> None:
        """Let the model go, so that its memory can be given back."""
        self._take(None)

    def _take(self, model: TrainedModel | None) -> None:
        if model is not self._model:
            self._model = model
            self.changed.emit(model)


current = CurrentModel()
"""What a dropped model becomes, and every dock of this session reads."""
