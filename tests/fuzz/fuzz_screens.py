"""Screens made to hurt: names of files, tables of images and layouts, and the folder of a screen with its Parquet."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
from fuzz_parts import TEXTS, Case, Files, damaged, json_bytes, json_files, rarely
from fuzz_tables import csv_bytes, csv_plainly
from hypothesis import strategies as st
from pyarrow import parquet

_LAYOUT = [["plate", "well", "treatment", "dose", "strain", "control", "label"],
           ["p", "A01", "", "", "wt", "negative", "a"], ["p", "A02", "drug", "1,5", "", "", "b"],
           ["p", "B01", "drug", "2", "", "positive", ""]]  # fmt: skip
_IMAGES = [["file GFP", "file RFP", "plate", "well", "site", "t", "z", "dose"],
           ["p/a_w1.tif", "p/a_w2.tif", "p", "A01", "1", "", "", "1"],
           ["p/b_w1.tif", "p/b_w2.tif", "p", "A02", "1", "", "", "2"]]  # fmt: skip
_NAMES = [
    "p/x_A01_s1_w1.tif",
    "p/x_A01_s1_w2.tif",
    "p/x_A02_s1_w1.tif",
    "p/x_A02_s1_w2.tif",
    "q/r01c02f01p01-ch1sk1.tiff",
]
_FIELDS: dict[str, list[Any]] = {
    "plate": ["p", "p"], "well": ["A01", "A02"], "site": ["1", "1"], "t": ["", ""], "z": ["", ""],
    "file": ["/x/a.tif", "/x/b.tif"], "series": ["", ""], "name": ["p_A01_s1", "p_A02_s1"], "dose": [1.0, None],
}  # fmt: skip
_PREDICTIONS: dict[str, list[Any]] = {
    "plate": ["p", "p"], "well": ["A01", "A02"], "site": ["1", "1"], "file": ["/x/a.tif", "/x/b.tif"],
    "name": ["p_A01_s1", "p_A02_s1"], "position": [0, None], "t": [0, None], "z": [0, None], "top": ["a", ""],
    "margin": [0.5, None], "score a": [0.75, None], "score b": [0.25, None], "P a": [0.7, None], "P b": [0.1, None],
    "warnings": ["", ""], "error": ["", "it failed"],
}  # fmt: skip
_WELL: dict[str, list[Any]] = {"plate": ["p"], "well": ["A01"], "instances": [9], "bag score a": [0.7],
                               "bag score b": [0.3], "bag P a": [0.6], "bag P b": [0.2], "feature_000": [0.1],
                               "feature_001": [0.2]}  # fmt: skip
_PART: dict[str, Any] = {
    "key": "k", "way": "", "plate": "p", "well": "A01", "seconds": 1.0, "device": "cpu", "computer": "c",
    "when": "2026",
    "fields": [{"name": "p_A01_s1", "file": "/x/a.tif", "sha256": "", "stamp": "", "error": ""}],
}  # fmt: skip
_RUN: dict[str, Any] = {
    "kind": "screen", "format": 2, "program": "napari-milcnn", "created": "2026-01-01T00:00:00", "command": [],
    "model": {"path": "/nowhere/m.zip", "name": "m", "sha256": "0" * 64}, "files": [], "names": [], "planes": [],
    "options": {"reading": {"axes": None, "channels": None, "pixel_size": None, "series": None, "z": "planes"},
                "masks": True, "classes": None, "mask_options": {"threshold": "auto"}, "evidence": {"kind": None}},
    "versions": {"napari-milcnn": "0.1.0"}, "seed": 0, "seconds": 1.5, "run": {"masks": "beside"}, "wells": 2,
    "fields": 2, "finished": True,
}  # fmt: skip


@st.composite
def parquet_bytes(draw: st.DrawFn, columns: dict[str, list[Any]]) -> bytes:
    """Return a Parquet table in which cells, types and columns are changed, and which may be damaged."""
    columns = {name: list(cells) for name, cells in columns.items()}
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(list(columns)))
        how = draw(st.sampled_from(["cell", "texts", "numbers", "gaps", "lists", "drop", "name"]))
        cells = columns.pop(name)
        if how == "cell":
            cells = [draw(TEXTS) for _ in cells]
        elif how != "name":
            made = {"texts": str, "numbers": lambda _: 7, "gaps": lambda _: None, "lists": lambda one: [one]}
            cells = [made[how](one) for one in cells] if how in made else []
        if how != "drop":
            columns[draw(TEXTS) if how == "name" else name] = cells
    printed = {name.encode("utf-8", "replace").decode(): [
        one.encode("utf-8", "replace").decode() if isinstance(one, str) else one for one in cells
    ] for name, cells in columns.items()}  # fmt: skip
    written = io.BytesIO()
    parquet.write_table(pa.table(printed), written)
    return draw(rarely(damaged(written.getvalue()), st.just(written.getvalue())))


@st.composite
def screen_cases(draw: st.DrawFn) -> Case:
    """Return the images of a screen with a layout, or the folder of a screen, with one of its files changed."""
    if draw(st.booleans()):
        files: Files = {f"screen/{name}": b"" for name in _NAMES}
        files["images.csv"] = draw(csv_bytes(_IMAGES))
        files["layout.csv"] = draw(csv_bytes(_LAYOUT))
        files["layout.parquet"] = draw(
            parquet_bytes({name: list(cells) for name, *cells in zip(*_LAYOUT, strict=True)})
        )
        return Case("screen source", files)
    finished = draw(st.booleans())
    part = "parts/p/A01/"
    tables = {"fields.parquet": _FIELDS, **({"predictions.parquet": _PREDICTIONS} if finished else {
        f"{part}predictions.parquet": {name: cells[:1] for name, cells in _PREDICTIONS.items()},
        f"{part}well.parquet": _WELL})}  # fmt: skip
    records = {"run.json": _RUN | {"finished": finished}, f"{part}part.json": _PART}
    spoiled = draw(st.sampled_from([*tables, *records]))
    files = {name: json_bytes(record) for name, record in records.items()}
    files["missing.csv"] = csv_plainly([["plate", "well", "site", "reason"], ["p", "B01", "", "gone"]])
    for name, table in tables.items():
        written = io.BytesIO()
        parquet.write_table(pa.table(table), written)
        files[name] = draw(parquet_bytes(table)) if name == spoiled else written.getvalue()
    if spoiled in records:
        files[spoiled] = draw(json_files(records[spoiled]))
    return Case("screen", files)
