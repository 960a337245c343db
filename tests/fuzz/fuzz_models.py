"""Model files and checkpoints made to hurt: zips, YAML, cards, and pickles in the zips of torch."""

from __future__ import annotations

import io
import pickle
import struct
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from fuzz_parts import NUMBERS, TEXTS, Case, Files, changed, damaged, json_bytes
from hypothesis import strategies as st

from napari_milcnn.atomic_write import sha256
from napari_milcnn.model.trained_model import new_model
from napari_milcnn.training.checkpoint import Checkpoint


@cache
def model_parts() -> tuple[dict[str, Any], Files]:
    """Return the description and the other files of a small model."""
    model = new_model(("round", "long"), ("GFP", "RFP"), pixel_size=0.65, widths=(2, 2, 2, 2, 2, 2))
    with tempfile.TemporaryDirectory() as folder:
        path = model.save(Path(folder) / "m.zip")
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
    description = yaml.safe_load(files.pop("rdf.yaml"))
    files |= {name: b"x" for name in files if name != "weights.pt"}  # test images, which no reader of ours looks into
    return _rehashed(description, files), files


def torch_bytes(thing: Any) -> bytes:
    """Return what torch.save writes."""
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


@st.composite
def spoiled_tensors(draw: st.DrawFn, state: dict[str, Any]) -> bytes:
    """Return a file of torch in which values, the bytes of its pickle, or its zip are changed."""
    how = draw(st.sampled_from(["values", "values", "pickle", "zip", "packed", "opcodes", "same"]))
    if how == "values":
        state = dict(state)
        for name in draw(st.lists(st.sampled_from(sorted(state)), max_size=2)):
            state[name] = draw(_things)
        return torch_bytes(state)
    content = torch_bytes(state)
    if how == "zip":
        return draw(damaged(content))
    if how == "same":
        return content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in parts if name.endswith("data.pkl"))
    if how == "pickle":
        parts[name] = draw(damaged(parts[name]))
    elif how == "opcodes":
        parts[name] = draw(_pickles)
    buffer = io.BytesIO()
    packing = zipfile.ZIP_DEFLATED if how == "packed" else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for part, data in parts.items():
            archive.writestr(part, data)
    return buffer.getvalue()


_things = st.sampled_from([
    None, 1, "x", [], {}, torch.zeros(3), torch.full((2,), float("nan")), torch.zeros(2, dtype=torch.complex64),
    torch.empty(1).expand(10**9), torch.zeros(0), torch.zeros(2, device="meta"), torch.zeros(2).to_sparse(),
    torch.zeros(2, dtype=torch.int8), torch.full((2, 2, 3, 3), 3e38), torch.zeros(2, 2, 3, 3, dtype=torch.float64),
]) | NUMBERS | TEXTS  # fmt: skip
_pickles = st.sampled_from([
    pickle.dumps({"a": 1}), b"cos\nsystem\n(S'true'\ntR.", b"\x80\x02c__builtin__\neval\nX\x01\0\0\01\x85R.",
    b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", b"\x80\x02]q\0h\0a.", b"\x80\x02" + b"(" * 100_000 + b".",
    b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".", b"\x80\x02ctorch\nload\nX\x0b\0\0\0/etc/passwd\x85R.",
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01tR.", b"\x80\x02c__torch__\nX\n)\x81.", b"", b".", b"\x80\xff.",
    b"\x80\x02}q\0" + b"".join(b"X" + struct.pack("<I", 3) + b"%03d" % i + b"h\0s" for i in range(100)) + b".",
    b"\x80\x02N" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60)) + b".",
]) | st.binary(max_size=60)  # fmt: skip


@st.composite
def model_cases(draw: st.DrawFn) -> Case:
    """Return a model zip with a changed description, changed weights with a right hash, or a damaged zip."""
    description, files = model_parts()
    files = dict(files)
    how = draw(st.sampled_from(["card", "card", "card", "description", "weights", "weights", "zip", "yaml", "names"]))
    if how == "card":
        card = draw(changed(description["config"]["milcnn"]))
        description = {**description, "config": {**description["config"], "milcnn": card}}
    elif how == "description":
        description = draw(changed(description))
    elif how == "weights":
        with zipfile.ZipFile(io.BytesIO(files["weights.pt"])):
            state = torch.load(io.BytesIO(files["weights.pt"]), weights_only=True)
        files["weights.pt"] = draw(spoiled_tensors(dict(state)))
        description = _rehashed(description, files)
    try:
        text = yaml.safe_dump(description, allow_unicode=draw(st.booleans())).encode("utf-8", "surrogatepass")
    except yaml.YAMLError:
        text = json_bytes(description)
    files["rdf.yaml"] = draw(damaged(text)) if how == "yaml" else text
    if how == "names":
        name = draw(st.sampled_from(["weights.pt", "rdf.yaml", "README.md"]))
        files[draw(TEXTS) or "x"] = files.pop(name)
    buffer = io.BytesIO()
    top = draw(st.sampled_from(["", "", "", "top/", "a/b/"]))
    with zipfile.ZipFile(buffer, "w", draw(st.sampled_from([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED]))) as archive:
        for name, data in files.items():
            plain = name.encode("utf-8", "replace").decode().replace("\0", "0")
            archive.writestr((top + plain)[:200], data)
    content = buffer.getvalue()
    return Case("model", {"m.zip": draw(damaged(content)) if how == "zip" else content})


def _rehashed(node: Any, files: Files) -> Any:
    """Return a description in which each file has the hash that it has."""
    if isinstance(node, list):
        return [_rehashed(one, files) for one in node]
    if not isinstance(node, dict):
        return node
    changes = {"sha256": sha256(files[node["source"]])} if node.get("source") in files and "sha256" in node else {}
    return {key: _rehashed(one, files) for key, one in node.items()} | changes


@st.composite
def checkpoint_cases(draw: st.DrawFn) -> Case:
    """Return the checkpoint of a training."""
    weights = {"maps.weight": torch.zeros(2, 2, 1, 1)}
    state = Checkpoint(
        run={"labels": "a" * 64, "option epochs": 3}, network=weights, averaged=weights,
        optimiser={"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}, schedule={"last_epoch": 1}, card="{}",
        best=weights, best_card="{}",
    )  # fmt: skip
    return Case("checkpoint", {"m.checkpoint": draw(spoiled_tensors({"format": 2, **vars(state)}))})
