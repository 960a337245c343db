"""What all cases are made of: a folder of files, values at the edge of what is possible, and damage."""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

Files = dict[str, bytes]


@dataclass(frozen=True)
class Case:
    """Files, by their path in a folder, and what is done with them (`fuzz_worker.TARGETS`)."""

    target: str
    files: Files

    def write(self, folder: Path) -> None:
        """Write the files into a folder."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def to_json(self) -> str:
        """Write the case as a text, for the corpus."""
        files = {name: base64.b64encode(content).decode() for name, content in self.files.items()}
        return json.dumps({"target": self.target, "files": files}, indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> Case:
        """Read a case of the corpus."""
        found = json.loads(text)
        return Case(found["target"], {name: base64.b64decode(data) for name, data in found["files"].items()})


NUMBERS = st.sampled_from(
    [0, 1, -1, 2, 3, 7, 8, 16, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63,
     2**64, 10**30, -(2**31), 0.5, 1e-300, 1e300, -0.0]
) | st.integers(-(2**70), 2**70) | st.floats()  # fmt: skip
TEXTS = st.sampled_from([
    "", " ", "a", "[/]", "[red]", "\x1b[2J", "\0", "\ud800", "\u202eabc", "../../etc/passwd", "/etc/passwd",
    "/dev/zero", "=cmd|' /C calc'!A0", "<script>alert(1)</script>", "NaN", "inf", "1,5", "0x10", "1e999", "true",
    "null", "é",
    "a" * 5000, "B03", "2024-01-01", "%s%n", "{0}", "${x}", "a|b", "a\nb", "\u2028", "µm", "micrometer", "pixel",
    "-1", "1e5", "C:\\con", "CON", ".", "..", "a/b", "\\\\host\\share", "!!python/object/apply:os.system [ls]",
]) | st.text(max_size=12)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def rarely(odd: st.SearchStrategy[Any], usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Take the usual in nine of ten cases: a file in which everything is wrong is refused at its first byte."""
    return st.integers(0, 9).flatmap(lambda die: odd if die == 9 else usual)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Return bytes as they are, cut off, with some of them changed, or with a part twice or removed."""
    how = draw(st.sampled_from(["as it is"] * 8 + ["bytes", "bytes", "cut", "insert", "remove", "append"]))
    if how == "as it is" or not content:
        return content
    spoiled = bytearray(content)
    place = st.integers(0, len(content) - 1)
    if how == "bytes":
        for at in draw(st.lists(place, min_size=1, max_size=6)):
            spoiled[at] = draw(st.sampled_from(b"\0\1\x7f\x80\xff") | st.integers(0, 255))
    elif how == "cut":
        del spoiled[draw(place) :]
    elif how == "insert":
        at = draw(place)
        spoiled[at:at] = draw(st.binary(min_size=1, max_size=16))
    elif how == "remove":
        at = draw(place)
        del spoiled[at : at + draw(st.integers(1, 64))]
    else:
        spoiled += draw(st.binary(max_size=64))
    return bytes(spoiled)


def places_in(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the path of every value in a document, but for the document itself."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, child in inner for path in [(*here, key), *places_in(child, (*here, key))]]


@st.composite
def changed(draw: st.DrawFn, document: Any, most: int = 3) -> Any:
    """Return a document, such as that of a JSON file, in which some values are replaced, removed or repeated."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(0, most))):
        places = places_in(document)
        if not places:
            break
        *way, last = draw(st.sampled_from(places))
        parent = document
        for key in way:
            parent = parent[key]
        how = draw(st.sampled_from(["replace"] * 3 + ["near", "remove", "repeat", "add"]))
        if how == "replace":
            parent[last] = draw(VALUES)
        elif how == "near":
            parent[last] = _near(draw, parent[last])
        elif how == "remove":
            del parent[last]
        elif how == "repeat" and isinstance(parent, list):
            parent.extend([parent[last]] * draw(st.sampled_from([1, 2, 100])))
        elif isinstance(parent, dict):
            parent[draw(TEXTS)] = draw(VALUES)
    return document


def _near(draw: st.DrawFn, value: Any) -> Any:
    """Return a value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return draw(NUMBERS)
    if isinstance(value, str):
        return draw(TEXTS)
    return [value] if isinstance(value, dict) else {}


def json_bytes(document: Any) -> bytes:
    """Write a document as JSON, with NaN as Python writes it, and lone surrogates as escapes."""
    return json.dumps(document).encode()


@st.composite
def json_files(draw: st.DrawFn, document: Any) -> bytes:
    """Return a changed document as a JSON file, which may be damaged, nested deeply or begin with a mark."""
    content = json_bytes(draw(changed(document)))
    deep = st.sampled_from([b"[" * 100_000, b'{"a":' * 50_000, b"\xef\xbb\xbf" + content, content[:-1] + b',"a":1}'])
    return draw(rarely(deep | damaged(content), st.just(content)))
