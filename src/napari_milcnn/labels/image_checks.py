"""What is wrong with the images of a table, found in their headers before any training starts.

Decisions:

- Everything that is wrong is collected and said at once, so that a table is mended in one go.
- Copies are found by content: files of one size whose ends agree are compared by the hash of all their bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from napari_milcnn.errors import ImageError
from napari_milcnn.images.channels import find_channels
from napari_milcnn.images.open import ImageReading
from napari_milcnn.images.stack import ImageStack, only_planes
from napari_milcnn.untrusted import short

_THREADS = 8
"""Files that are opened at the same time."""
_PIXEL_SIZE_TOLERANCE = 0.10
"""Share by which pixel sizes may differ before images are resampled, as in classification."""
_END_BYTES = 2**16
"""Bytes at either end of a file that are compared first."""
OnImage = Callable[[int, int], bool]
"""Called after each image with (images done, images in all); the work stops when it returns False."""
_SPELLED_OUT = 5
_LONGEST_CASE = 500
"""Cases of one kind that are spelled out; the others are counted."""


class CheckedRow(NamedTuple):
    """What the checks need to know of one row of a table."""

    line: int | None
    file: Path
    labels: tuple[str, ...]
    plane: str
    name: str

    @property
    def place(self) -> str:
        """The line and the name of the row, or its name alone."""
        return repr(self.name) if self.line is None else f"line {self.line} {self.name!r}"


class _Header(NamedTuple):
    channels: tuple[str, ...]
    pixel_size: float | None
    pixel_type: str
    size: tuple[int, int]
    channels_named: bool
    is_picture: bool


def check_rows(
    rows: Sequence[CheckedRow],
    reading: ImageReading,
    errors: Problems,
    on_image: OnImage | None = None,
    pixel_size: float | None = None,
) -> Problems:
    """Open every image and compare them; add what cannot be trained on to `errors`, and return what should be known.

    `pixel_size` is that of the model in µm; without it, that of most images counts.
    """
    warnings = Problems()
    found: dict[CheckedRow, _Header] = {}
    files: dict[Path, list[CheckedRow]] = defaultdict(list)
    for row in rows:
        files[row.file].append(row)
    done = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for planes, headers in zip(
            files.values(), pool.map(lambda planes: _headers(planes, reading), files.values()), strict=True
        ):
            for row, header in zip(planes, headers, strict=True):
                if isinstance(header, str):
                    errors.add("images that cannot be read", f"{row.place}: {header}")
                else:
                    found[row] = header
            done += len(planes)
            if on_image is not None and not on_image(done, len(rows)):
                break
    _check_channels(found, errors, warnings)
    _check_pixel_sizes(found, warnings, pixel_size)
    _check_pixel_types(found, warnings)
    _check_how_it_was_taken(found, warnings)
    for first, second in same_content(list(found)):
        pair = " and ".join(f"{row.place} ({'|'.join(row.labels)})" for row in (first, second))
        if first.plane != second.plane or set(first.labels) == set(second.labels):
            warnings.add("one image under two names", pair)
        else:
            errors.add("one image under two names, with other labels", pair)
    return warnings


def _headers(rows: Sequence[CheckedRow], reading: ImageReading) -> list[_Header | str]:
    """Return what the header of one file says of each of its rows, or why it cannot be read."""
    try:
        with reading.open(rows[0].file) as image:
            return [_header(image, row) for row in rows]
    except ImageError as error:
        return [str(error)] * len(rows)


def _header(image: ImageStack, row: CheckedRow) -> _Header | str:
    try:
        only_planes(image, row.plane)
    except ImageError as error:
        return str(error)
    return _Header(image.channels, image.pixel_size, str(image.dtype), image.plane_shape, image.channels_named,
                   image.is_picture)  # fmt: skip


def _check_channels(found: dict[CheckedRow, _Header], errors: Problems, warnings: Problems) -> None:
    counts = Counter(len(header.channels) for header in found.values())
    names = Counter(header.channels for header in found.values())
    if len(counts) > 1:
        usual = counts.most_common(1)[0][0]
        for row, header in found.items():
            if len(header.channels) != usual:
                errors.add(f"images with another number of channels than the usual {usual}",
                           f"{row.place} has {len(header.channels)} ({', '.join(header.channels)})")  # fmt: skip
    elif len(names) > 1:
        usual_names = names.most_common(1)[0][0]
        for row, header in found.items():
            if header.channels == usual_names:
                continue
            matched = find_channels(
                usual_names, header.channels, named=header.channels_named, picture=header.is_picture
            )
            if matched.question:
                listed = ", ".join(usual_names)
                errors.add(f"images whose channels are not {listed} by name; name them (option channels)",
                           f"{row.place} has {', '.join(header.channels)}")  # fmt: skip
            else:
                warnings.add(f"images whose channels are not named {', '.join(usual_names)}",
                             f"{row.place} has {', '.join(header.channels)}")  # fmt: skip


def _check_pixel_sizes(found: dict[CheckedRow, _Header], warnings: Problems, of_model: float | None) -> None:
    sizes = Counter(header.pixel_size for header in found.values() if header.pixel_size is not None)
    if not sizes and of_model is None:
        return
    usual = of_model or sizes.most_common(1)[0][0]
    for row, header in found.items():
        if header.pixel_size is None:
            warnings.add("images that do not say their pixel size, which are not rescaled", row.place)
        elif abs(header.pixel_size / usual - 1) > _PIXEL_SIZE_TOLERANCE:
            warnings.add(f"images of another pixel size than {usual:.4g} µm, which are rescaled",
                         f"{row.place} has {header.pixel_size:.4g} µm")  # fmt: skip


def _check_pixel_types(found: dict[CheckedRow, _Header], warnings: Problems) -> None:
    """Find tables with several types of pixels, if these do not tell the classes apart."""
    types = Counter(header.pixel_type for header in found.values())
    if len(types) < 2 or _classes_by(found, lambda header: header.pixel_type):
        return
    usual = types.most_common(1)[0][0]
    for row, header in found.items():
        if header.pixel_type != usual:
            warnings.add(f"images whose pixels are not {usual}", f"{row.place} has {header.pixel_type}")


_HOW_IT_WAS_TAKEN: Final[dict[str, tuple[Callable[[_Header], str], str]]] = {
    "the type of the pixels": (lambda it: it.pixel_type, "save the images of all classes in one type"),
    "the pixel size": (
        lambda it: "unknown" if it.pixel_size is None else f"{it.pixel_size:.4g} µm",
        "take or choose images of all classes with one pixel size",
    ),
    "the size of the images": (
        lambda it: f"{it.size[0]} x {it.size[1]} px",
        "if it comes from another camera or day, take all classes in one way",
    ),
}
"""What files say of how images were taken -> what it is in words, and what to do if it tells the classes apart."""


def _check_how_it_was_taken(found: dict[CheckedRow, _Header], warnings: Problems) -> None:
    """Find classes that can be told by a fact that has nothing to do with them, such as 8 bit and 16 bit."""
    for what, (fact, advice) in _HOW_IT_WAS_TAKEN.items():
        for label, (value, count) in _classes_by(found, fact).items():
            warnings.add(f"{what} tells the classes apart, so a model may learn it in place of what the images show; "
                         f"{advice}", f"{label} is {value}, {count} images")  # fmt: skip


def _classes_by(found: dict[CheckedRow, _Header], fact: Callable[[_Header], str]) -> dict[str, tuple[str, int]]:
    """Return the one value of a fact in each class and its number of images; empty if it tells no class apart."""
    of_class: dict[str, Counter[str]] = defaultdict(Counter)
    for row, header in found.items():
        for label in row.labels:
            of_class[label][fact(header)] += 1
    told = {label: next(iter(each.items())) for label, each in sorted(of_class.items()) if len(each) == 1}
    is_told = len(told) == len(of_class) and len({value for value, _ in told.values()}) > 1
    return told if is_told and min(count for _, count in told.values()) > 1 else {}


def same_content(rows: Sequence[CheckedRow]) -> Iterator[tuple[CheckedRow, CheckedRow]]:
    """Find pairs of rows whose files have the very same bytes: rows of the same planes, else the first row of each.

    Whole files are read only where their sizes and both ends agree.
    """
    of_file: dict[Path, list[CheckedRow]] = defaultdict(list)
    for row in rows:
        if os.path.isfile(row.file) and os.access(row.file, os.R_OK):
            of_file[row.file.resolve()].append(row)
    for first, second in _same_bytes([planes[0] for planes in of_file.values()]):
        others = {row.plane: row for row in of_file[second.file.resolve()]}
        pairs = [(row, others[row.plane]) for row in of_file[first.file.resolve()] if row.plane in others]
        yield from pairs or [(first, second)]


def _same_bytes(rows: Sequence[CheckedRow]) -> Iterator[tuple[CheckedRow, CheckedRow]]:
    alike: dict[tuple[int, bytes, bytes], list[CheckedRow]] = defaultdict(list)
    for row in rows:
        alike[_ends(row.file)].append(row)
    for group in alike.values():
        seen: dict[str, CheckedRow] = {}
        for row in group if len(group) > 1 else ():
            with row.file.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            if digest in seen:
                yield seen[digest], row
            seen.setdefault(digest, row)


def _ends(file: Path) -> tuple[int, bytes, bytes]:
    size = file.stat().st_size
    with file.open("rb") as content:
        head = content.read(_END_BYTES)
        content.seek(max(0, size - _END_BYTES))
        return size, hashlib.sha256(head).digest(), hashlib.sha256(content.read(_END_BYTES)).digest()


class Problems:
    """Problems collected by kind, in the order in which the kinds are first met."""

    def __init__(self) -> None:
        self._cases: dict[str, list[str]] = {}

    def add(self, kind: str, case: str = "") -> None:
        """Add a case, such as "line 3 'a.tif'", of a kind of problem; a kind may say all without a case."""
        self._cases.setdefault(kind, []).append(short(case, _LONGEST_CASE))

    def __len__(self) -> int:
        return sum(map(len, self._cases.values()))

    def sentences(self) -> list[str]:
        """Return one line for each kind, with its first cases spelled out."""
        return [_kind_with_cases(kind, cases) for kind, cases in self._cases.items()]

    def message(self, what: str) -> str:
        """Return everything as one text: "WHAT has 3 problems:" and a line for each kind."""
        count = f"{len(self)} problem{'s'[: len(self) > 1]}"
        return "\n- ".join([f"{what} has {count}:", *self.sentences()])


def _kind_with_cases(kind: str, cases: list[str]) -> str:
    named = [case for case in cases if case]
    if not named:
        return kind
    more = [f"and {len(named) - _SPELLED_OUT} more"] if len(named) > _SPELLED_OUT else []
    count = f" ({len(named)})" if len(named) > 1 else ""
    return f"{kind}{count}: {'; '.join([*named[:_SPELLED_OUT], *more])}"
