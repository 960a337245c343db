"""The record of a screen: what a screen was made of and how, so that a later run goes on with it or refuses to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from napari_milcnn.atomic_write import sha256
from napari_milcnn.errors import OutputError, ResultsError, ResumeError
from napari_milcnn.images.open import AS_THEY_SAY, ImageReading
from napari_milcnn.inference.evidence import EvidenceMaker
from napari_milcnn.options import MaskOptions
from napari_milcnn.results.opened import RECORD, read_csv, read_parquet
from napari_milcnn.results.record import (
    KIND_OF_SCREENS,
    checked_record,
    classification_record,
    differences,
    flat_options,
)
from napari_milcnn.results.unfinished import fingerprint
from napari_milcnn.results.write import read_json, write_json, write_table, write_tables
from napari_milcnn.screens.sources.fields import FIELD_ROW, MISSING_ROW, PLACE, Screen
from napari_milcnn.untrusted import short

FIELDS, MISSING = "fields.parquet", "missing.csv"
_NOT_NUMBERS: Final = ("evidence device", "evidence batch_size", "evidence tile")
"""Options of the evidence that change no number."""


def screen_record(
    maker: EvidenceMaker, found: Screen, *, classes: Sequence[str], masks: MaskOptions | None,
    layout: Path | None, shared: Mapping[str, object], command: Sequence[str],
) -> dict[str, object]:  # fmt: skip
    """Return the record of a screen: model, options, versions, and of what its fields and its layout were read.

    `shared` are the options of the run, such as its workers.
    """
    record = classification_record(maker, (), classes=classes, reading=found.reading, mask_options=masks,
                                   masks_as="zarr" if shared.get("masks") != "nowhere" else None,
                                   command=command)  # fmt: skip
    files = found.fields[[*PLACE, "file", "series"]].to_csv(index=False)
    return {
        "kind": KIND_OF_SCREENS, **record, "way": way_of(record), "source": found.source,
        "layout": None if layout is None else str(layout.absolute()),
        "layout_sha256": None if layout is None else fingerprint(layout), "run": dict(shared),
        "fields": len(found.fields), "fields_sha256": sha256(files.encode("utf-8", "surrogateescape")),
        "wells": len(found.fields[["plate", "well"]].drop_duplicates()), "missing": len(found.missing),
        "knows_training_images": maker.model.card.training.look is not None, "finished": False,
    }  # fmt: skip


def way_of(record: Mapping[str, object]) -> str:
    """Return what stands for the model and all options of a record that change numbers; `way` in the record."""
    found = checked_record(record)
    chosen = {name: value for name, value in flat_options(found.options) if value is not None}
    numbers = {name: value for name, value in chosen.items() if name not in _NOT_NUMBERS}
    return sha256(json.dumps([found.model["sha256"], numbers], sort_keys=True).encode("utf-8", "surrogateescape"))


def recorded_screen(out: Path) -> dict[str, object] | None:
    """Read the record of a screen in a folder; None where there is none.

    Raises
    ------
    OutputError
        If the folder holds other results, or the record is damaged.
    """
    path = out / RECORD
    try:
        found = read_json(path)
        if found.get("kind") != KIND_OF_SCREENS:
            raise OutputError(f"{out} holds other results than those of a screen; choose another folder")
        checked_record(found)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise OutputError(f"{path} is not the record of a screen ({reason}); choose another folder") from error
    return found


def reading_of_record(record: Mapping[str, object]) -> ImageReading:
    """Return how the fields of a screen were opened; as the files say it, if its record does not tell."""
    options = record.get("options")
    try:
        return TypeAdapter(ImageReading).validate_python(options["reading"] if isinstance(options, Mapping) else None)
    except (ValidationError, KeyError):
        return AS_THEY_SAY


def read_fields(folder: Path) -> pd.DataFrame:
    """Read the table of the fields of a screen.

    Raises
    ------
    ResultsError
        If it is not there, or damaged.
    """
    path = folder / FIELDS
    fields = read_parquet(path, FIELD_ROW, "go on with resume (command line: --resume)")
    odd = fields.loc[~fields["series"].str.fullmatch(r"[0-9]{0,9}"), "series"]
    if len(odd):
        raise ResultsError(f"{path} is damaged: {short(odd.iloc[0], 60)!r} is not the number of a series")
    return fields


def read_missing(folder: Path) -> pd.DataFrame:
    """Read the table of what is missing in a screen, all cells as text; without rows where nothing is."""
    path = folder / MISSING
    columns = list(MISSING_ROW)
    return read_csv(path, texts=columns).fillna("") if path.is_file() else pd.DataFrame(columns=columns)


def what_differs_in(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Say in what the model and the options of two runs of a screen differ."""
    found = differences(checked_record(old), checked_record(new))
    return [one for one in found if not one.startswith(_NOT_NUMBERS)]


def _other_place_of_masks(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Say where masks went and are to go: wells that are done keep theirs where they are."""
    before, now = (run.get("masks") if isinstance(run := one.get("run"), Mapping) else None for one in (old, new))
    return [f"the place of masks ({before} before, {now} now)"] if before is not None and before != now else []


def check_same_way(out: Path, old: Mapping[str, object], new: Mapping[str, object]) -> None:
    """Refuse to go on with a screen of another model or of other options.

    Raises
    ------
    ResumeError
        Naming the differences.
    """
    found = [*what_differs_in(old, new), *_other_place_of_masks(old, new)]
    if found:
        raise ResumeError(
            f"{out} holds a screen that differs in {'; '.join(found)}; go on with its model and options, classify all "
            "its wells again with redo_changed (command line: --redo-changed), or choose another folder"
        )


def write_screen(out: Path, record: Mapping[str, object], found: Screen) -> None:
    """Write the record of a screen, the table of its fields and that of what is missing."""
    write_tables((out / FIELDS).with_suffix(""), found.fields)
    if len(found.missing):
        write_table(out / MISSING, found.missing)
    else:
        (out / MISSING).unlink(missing_ok=True)
    write_json(out / RECORD, record)
