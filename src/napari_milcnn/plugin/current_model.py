"""The one model that all docks share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psygnal import Signal

if TYPE_CHECKING:
    from napari_milcnn.model.trained_model import TrainedModel


class CurrentModel:
    """Holds the current model, or none, and emits a signal when it changes.

    Attributes
    ----------
    changed : Signal
        Emitted with the new model or None after a change; setting the same model again emits nothing.
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
        self._replace(model)

    def clear(self) -> None:
        """Drop the model, so that its memory can be freed."""
        self._replace(None)

    def _replace(self, model: TrainedModel | None) -> None:
        if model is not self._model:
            self._model = model
            self.changed.emit(model)


current = CurrentModel()
"""The current model of this session: every dock reads it, and a dropped model replaces it."""
