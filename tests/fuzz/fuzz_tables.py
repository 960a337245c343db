"""Tables and records made to hurt: labels, results, evaluations, records of runs and of trainings."""

from __future__ import annotations

import base64
from typing import Any

from fuzz_parts import TEXTS, Case, Files, damaged, json_bytes, json_files, rarely
from hypothesis import strategies as st

_TINY_IMAGE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAJklEQVR4nDXFtQEAIADAsOLO/+eylCyBEFMutf07PvCJL3zjB78P"
    "MigBwdG4MWQAAAAASUVORK5CYII="
)
_LABELS = [["file", "label", "plane", "group", "plate", "control", "split"],
           ["a.png", "x", "", "g1", "p1", "yes", "train"], ["b.png", "y|x", "", "g2", "p1", "no", "validation"],
           ["sub/c.png", "y", "", "B03", "p2", "", "train"]]  # fmt: skip
_PREDICTIONS = [
    ["file", "name", "position", "t", "z", "top", "margin", "unlike", "unlike reason", "score a", "score b", "P a",
     "P b", "cells", "warnings", "error"],
    ["/x/a.tif", "a", "0", "0", "0", "a", "0.5", "0.3", "", "0.75", "0.25", "0.7", "0.2", "3", "", ""],
    ["/x/a.tif", "a", "0", "1", "0", "b", "0.5", "1.3", "too dark", "0.25", "0.75", "0.1", "0.8", "0", "w", ""],
    ["/x/b.tif", "b", "0", "0", "0", "", "", "", "nothing", "0.5", "0.5", "0.5", "0.5", "", "", ""],
    ["/x/c.tif", "c", "", "", "", "", "", "", "", "", "", "", "", "", "", "it failed"],
]  # fmt: skip
_EVALUATED = [
    ["file", "name", "plane", "label", "group", "fold", "top", "score a", "score b", "error"],
    ["/x/a.tif", "a", "0", "a", "g", "0", "a", "0.75", "0.25", ""],
    ["/x/b.tif", "b", "0", "b", "g", "0", "a", "0.6", "0.4", ""],
]  # fmt: skip
_OBJECTS = [["file", "position", "t", "z", "label", "class", "shown", "area_px", "area_um2", "y", "x", "mean_evidence",
             "score", "evidence a"],
            ["/x/a.tif", "0", "0", "0", "1", "a", "True", "30", "", "5", "5", "0.2", "0.7", "0.2"]]  # fmt: skip
_CONFUSION = [["label", "a", "b"], ["a", "1", "0"], ["b", "1", "0"]]
_LAYOUT = [["file", "label", "dose"], ["a.tif", "a", "1"], ["b.tif", "b", "x"]]
_METRICS: dict[str, Any] = {
    "images": 2, "single_label": True, "figures": {"accuracy": 0.5, "brier": None},
    "intervals": {"accuracy": [0.1, 0.9], "brier": None},
    "reliability": {"confidence": [0.7, None], "observed": [0.5, None], "count": [2, 0]},
}  # fmt: skip
_RUN: dict[str, Any] = {
    "format": 2, "program": "napari-milcnn", "created": "2026-01-01T00:00:00", "command": ["napari-milcnn", "classify"],
    "model": {"path": "/nowhere/m.zip", "name": "m", "sha256": "0" * 64}, "files": ["/x/a.tif", "/x/b.tif"],
    "names": ["a", "b"], "planes": [[0], None], "unfinished": [], "finished": True, "seed": 0, "seconds": 1.5,
    "options": {"reading": {"axes": None, "channels": None, "pixel_size": None, "series": None, "z": "planes"},
                "masks": True, "classes": None, "mask_options": {"threshold": "auto"}, "evidence": {"kind": None}},
    "versions": {"napari-milcnn": "0.1.0"}, "images": [{"file": "/x/a.tif", "error": ""}],
}  # fmt: skip
_NOTES: dict[str, Any] = {
    "milcnn_labelling": 1, "axes": None, "split_in_table": True,
    "classes": [{"name": "x", "colour": "#ff0000", "images": 2}, {"name": "y", "colour": "#00ff00"}],
    "images": [{"file": "a.png", "plane": "", "group": "g1"}, {"file": "b.png"}],
}  # fmt: skip
_TRAINING: dict[str, Any] = {
    "command": "napari-milcnn train labels.csv", "epochs_done": 1, "state": "stopped", "versions": {"torch": "2"},
    "plan": {"labels": "labels.csv", "out": "m.zip", "reading": {"axes": None, "z": "planes"}, "layout": None,
             "init": None, "preset": "compact", "network": {"pooling": "max"}, "options": {"epochs": 3}, "seen": {},
             "foreground": {"size": 3.0}, "facts": {"name": "m", "reference": None}},
}  # fmt: skip


@st.composite
def csv_bytes(draw: st.DrawFn, rows: list[list[str]]) -> bytes:
    """Return a table in which cells, rows and columns are changed, with any separator, quotes, encoding and damage."""
    rows = [list(row) for row in rows]
    for _ in range(draw(st.integers(0, 3))):
        how = draw(st.sampled_from(["cell"] * 4 + ["header", "drop column", "long row", "repeat", "drop row"]))
        row = draw(st.integers(0, len(rows) - 1)) if rows else 0
        if not rows or not rows[row]:
            break
        column = draw(st.integers(0, len(rows[row]) - 1))
        if how == "cell":
            rows[row][column] = draw(TEXTS)
        elif how == "header":
            rows[0][column % len(rows[0])] = draw(TEXTS | st.sampled_from(rows[0]))
        elif how == "drop column":
            rows = [[cell for i, cell in enumerate(one) if i != column] for one in rows]
        elif how == "long row":
            rows[row] += [draw(TEXTS)] * draw(st.sampled_from([1, 300]))
        elif how == "repeat":
            rows += [rows[row]] * draw(st.sampled_from([1, 50]))
        else:
            del rows[row]
    separator = draw(rarely(st.sampled_from([";", "\t"]), st.just(",")))
    end = draw(rarely(st.sampled_from(["\r", "\n\n"]), st.sampled_from(["\n", "\r\n"])))
    text = end.join(separator.join(_quoted(cell, draw, separator) for cell in row) for row in rows) + end
    text = draw(rarely(st.just(f"sep={separator}{end}"), st.just(""))) + text
    encoding = draw(rarely(st.sampled_from(["utf-16", "latin-1"]), st.sampled_from(["utf-8", "utf-8-sig"])))
    content = text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")
    return draw(rarely(damaged(content), st.just(content)))


def _quoted(cell: str, draw: st.DrawFn, separator: str) -> str:
    if any(mark in cell for mark in (separator, '"', "\n", "\r")) and draw(st.sampled_from([True, True, False])):
        return '"' + cell.replace('"', '""') + '"'
    return cell


@st.composite
def label_cases(draw: st.DrawFn) -> Case:
    """Return a table of labels, with images that are none."""
    files: Files = {"labels.csv": draw(csv_bytes(_LABELS))}
    for name in ("a.png", "b.png", "sub/c.png"):
        if draw(rarely(st.just(False), st.just(True))):
            files[name] = draw(rarely(damaged(_TINY_IMAGE), st.just(_TINY_IMAGE)))
    if draw(st.booleans()):
        files["labels.json"] = draw(json_files(_NOTES))
    return Case(draw(st.sampled_from(["labels", "labels", "labelling"])), files)


@st.composite
def result_cases(draw: st.DrawFn) -> Case:
    """Return a folder of results of a classification or an evaluation, with some of its files changed."""
    if draw(st.booleans()):
        tables, records = {"predictions.csv": _EVALUATED, "confusion.csv": _CONFUSION}, {"metrics.json": _METRICS}
    else:
        tables, records = {"predictions.csv": _PREDICTIONS, "objects.csv": _OBJECTS}, {"run.json": _RUN}
    tables |= draw(rarely(st.just({"layout.csv": _LAYOUT}), st.just({})))
    spoiled = draw(st.sampled_from([*tables, *records]))
    files = {name: csv_plainly(rows) for name, rows in tables.items()} | {n: json_bytes(r) for n, r in records.items()}
    files[spoiled] = draw(csv_bytes(tables[spoiled]) if spoiled in tables else json_files(records[spoiled]))
    if draw(rarely(st.just(True), st.just(False))):
        del files[draw(st.sampled_from(list(files)))]
    return Case("results", files)


def csv_plainly(rows: list[list[str]]) -> bytes:
    """Return a table as it should be."""
    return "".join(",".join(row) + "\n" for row in rows).encode()


@st.composite
def record_cases(draw: st.DrawFn) -> Case:
    """Return the record of a classification or of a training."""
    if draw(st.booleans()):
        return Case("record", {"run.json": draw(json_files(_RUN))})
    return Case("training", {"m.training.json": draw(json_files(_TRAINING)), "m.checkpoint": b"x"})
