"""The checkpoint of a training: its state on disk, from which it goes on as though it had never been stopped.

A checkpoint is read with `weights_only=True`: it holds tensors and plain values, and reading it runs no code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from napari_milcnn.atomic_write import replacing
from napari_milcnn.errors import OptionsError, ResumeError
from napari_milcnn.model.tensor_files import read_tensors
from napari_milcnn.options import current_names
from napari_milcnn.untrusted import short

_FORMAT = 2
_OPTION = "option "
LARGEST_CHECKPOINT = 2 << 30
"""Bytes; five times the weights of the largest network, and more."""
_STATES = ("network", "averaged", "best")
_PARTS: dict[str, type] = {
    "run": dict, "network": dict, "averaged": dict, "optimiser": dict, "schedule": dict, "card": str, "best": dict,
    "best_card": str,
}  # fmt: skip
"""What a checkpoint holds, as the attributes of `Checkpoint`."""
_PLAIN = (str, int, float, bool, type(None))
"""What a fact about a run may be."""


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
        found = read_tensors(path, LARGEST_CHECKPOINT)
    except (OSError, ValueError) as error:
        raise not_a_checkpoint(path, str(getattr(error, "strerror", None) or error)) from error
    state = _checked_state(path, found)
    recorded = _with_current_names(state.run)
    changed = [f"{name} (was {short(str(recorded.get(name)))}, is {value})" for name, value in run.items()
               if recorded.get(name) != value]  # fmt: skip
    if changed:
        raise ResumeError(
            f"{path} belongs to another training, which differs in {'; '.join(changed)}; use the settings of that "
            "training, or train without resume to start from scratch"
        )
    return state


def not_a_checkpoint(path: Path, reason: str) -> OptionsError:
    """Return the error that says why a file is no checkpoint, and what to do."""
    return OptionsError(
        f"{path} is not a checkpoint of a training ({short(reason)}); train without resume to start from scratch"
    )


def _checked_state(path: Path, found: object) -> Checkpoint:
    """Return what a checkpoint holds, of which everything has its kind."""
    number = found.get("format") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(number, int):
        raise not_a_checkpoint(path, "it has no format number")
    if number != _FORMAT:
        raise OptionsError(
            f"{path} is a checkpoint of format {number}; this version goes on from format {_FORMAT} "
            "only: train without resume to start from scratch, or go on with the version that wrote it"
        )
    wrong = [name for name, kind in _PARTS.items() if not isinstance(found.get(name), kind)]
    wrong += [name for name in _STATES if name not in wrong and not _is_state(found[name])]
    if not wrong and not all(isinstance(key, str) and isinstance(fact, _PLAIN) for key, fact in found["run"].items()):
        wrong = ["run"]
    if wrong:
        raise not_a_checkpoint(path, f"its {wrong[0]} is missing or damaged")
    return Checkpoint(**{name: found[name] for name in _PARTS})


def _is_state(weights: dict[object, object]) -> bool:
    return all(isinstance(name, str) and torch.is_tensor(value) for name, value in weights.items())


def option_facts(options: Mapping[str, object]) -> dict[str, object]:
    """Name training options as they stand among the facts of a run."""
    return {f"{_OPTION}{name}": value for name, value in options.items()}


def _with_current_names(run: Mapping[str, object]) -> dict[str, object]:
    """Give options their present names among the facts of a run."""
    options = {name.removeprefix(_OPTION): value for name, value in run.items() if name.startswith(_OPTION)}
    others = {name: value for name, value in run.items() if not name.startswith(_OPTION)}
    return {**others, **option_facts(current_names(options))}
