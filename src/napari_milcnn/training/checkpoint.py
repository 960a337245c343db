"""The checkpoint of a training: its state on disk, from which it goes on as though it had never been stopped.

A checkpoint is read with `weights_only=True`: it holds tensors and plain values, and reading it runs no code.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from napari_milcnn.atomic_write import replacing
from napari_milcnn.errors import OptionsError, ResumeError
from napari_milcnn.options import current_names

_FORMAT = 2
_OPTION = "option "


@dataclass(frozen=True)
class Checkpoint:
    """What a training needs to go on after an epoch.

    Attributes
    ----------
    run : dict
        Facts that identify the training: hashes of the model that it started from and of the table, and the options. A
        checkpoint of another training is refused.
    network, averaged, optimiser, schedule : dict
        State dicts.
    card : str
        Card of the model in training, as JSON; its curve has one row for each epoch done.
    best : dict
        State dict of the best network so far.
    best_card : str
        Its card, as JSON.
    """

    run: dict[str, object]
    network: dict[str, Tensor]
    averaged: dict[str, Tensor]
    optimiser: dict[str, object]
    schedule: dict[str, object]
    card: str
    best: dict[str, Tensor]
    best_card: str


def save_checkpoint(path: Path, state: Checkpoint) -> None:
    """Write a checkpoint; a failure leaves the old one as it was.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    content = BytesIO()  # torch reports a full disk in terms of its own source code
    torch.save({"format": _FORMAT, **vars(state)}, content)
    with replacing(path) as draft:
        draft.write_bytes(content.getbuffer())


def load_checkpoint(path: Path, run: dict[str, object]) -> Checkpoint | None:
    """Read the checkpoint of the training with these facts; None where there is none yet.

    Raises
    ------
    OptionsError
        If it is damaged, or of another version of this program.
    ResumeError
        If it belongs to another training.
    """
    if not path.exists():
        return None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        _check_format(path, found["format"])
        state = Checkpoint(**{name: found[name] for name in Checkpoint.__dataclass_fields__})
        recorded = _with_current_names(state.run)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, TypeError, AttributeError) as error:
        raise OptionsError(
            f"{path} is not a checkpoint of a training ({type(error).__name__}); train without resume to start "
            "from scratch"
        ) from error
    changed = [f"{name} (was {recorded.get(name)}, is {value})" for name, value in run.items()
               if recorded.get(name) != value]  # fmt: skip
    if changed:
        raise ResumeError(
            f"{path} belongs to another training, which differs in {'; '.join(changed)}; use the settings of that "
            "training, or train without resume to start from scratch"
        )
    return state


def _check_format(path: Path, found: object) -> None:
    if found != _FORMAT:
        raise OptionsError(
            f"{path} is a checkpoint of format {found}; this version goes on from format {_FORMAT} only: train without "
            "resume to start from scratch, or go on with the version that wrote it"
        )


def option_facts(options: Mapping[str, object]) -> dict[str, object]:
    """Name training options as they stand among the facts of a run."""
    return {f"{_OPTION}{name}": value for name, value in options.items()}


def _with_current_names(run: Mapping[str, object]) -> dict[str, object]:
    """Give options their present names among the facts of a run."""
    options = {name.removeprefix(_OPTION): value for name, value in run.items() if name.startswith(_OPTION)}
    others = {name: value for name, value in run.items() if not name.startswith(_OPTION)}
    return {**others, **option_facts(current_names(options))}
