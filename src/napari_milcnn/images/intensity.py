"""Background and spread of the channels of a plane, measured so that the number of its cells does not matter.

Both are taken from the image's own pixels, before any resampling, on an even grid of about a million of them; a large
plane is read strip by strip. Windows, tiles and whole planes of an image therefore share the same numbers.

- The noise is that of differences between neighbouring pixels (their median, so that edges do not count), and at least
  half of the smallest step between two intensities.
- The background is the commonest intensity: the median of the densest window of intensities as wide as the noise. The
  median of a plane would follow the number of cells.
- The spread is the median distance from the background of what stands out of the noise and reaches half of that
  distance: the brightness of the typical cell, whether there is one cell or a hundred, and whether a speck is ten times
  brighter. A percentile of all pixels would need cells on a known share of the plane.
- The spread is never less than `LEAST_CONTRAST` times the noise. A plane of pure noise is not blown up to the contrast
  of cells, and a plane of one value stays blank. Noise that was smoothed looks like structure and is scaled as such.

Multiplying all intensities, or adding the same to all of them, changes background and spread alike, so the normalised
image stays what it was.

All images of a plate or batch can share one scale, so that differences between them stay: the median, channel by
channel, over the planes of the plate's control images, or of all its images where none is marked as a control. Planes
on which nothing stands out of the noise do not count for the spread, and blank ones not at all; an image that cannot be
read is left out, and an outlier hardly moves a median. Of a large plate at most 256 images are measured, evenly spaced.
Which images share a plate is read from a table with the columns file, plate and control, each of the last two optional.
Without a table, or without the column plate, the images of one folder are a plate, and so are the fields of an OME-Zarr
plate.
"""

from __future__ import annotations

import math
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from napari_milcnn.delimited import column_names, table_of
from napari_milcnn.errors import ImageError, LabelsError, OptionsError
from napari_milcnn.images.channels import match_channels
from napari_milcnn.images.lazy_array import ArrayLike
from napari_milcnn.images.ome_zarr import plate_wells
from napari_milcnn.images.open import AS_THEY_SAY, ImageReading, open_image
from napari_milcnn.images.paths import FILE_OF, ZARR_SUFFIXES, as_on_disk, files_of, images_in, with_file_column
from napari_milcnn.images.stack import ImageStack, Window, only_planes
from napari_milcnn.untrusted import short

LEAST_CONTRAST = 5.0
"""Pixels whose distance from the background is at least this many times the noise stand out of it."""
_LEAST_PIXELS = 16
"""Fewer pixels of a sample that stand out are dust or hot pixels."""
_GRID_PIXELS = 2**20
_STRIP_PIXELS = 2**24
"""Pixels of a plane that are read at a time."""
_TO_SIGMA = 1 / (0.6745 * 2**0.5)
"""Standard deviation of Gaussian noise, for a median absolute difference of two pixels of 1."""
_ROUNDS = 4
_QUANTILES = 2**14
"""Quantiles among which the commonest intensity is looked for."""
_MOST_OF_A_PLATE, _PLANES_OF_AN_IMAGE = 256, 4
"""Images of a plate, at most, that are measured, evenly spaced; of each at most four planes, of a few images more."""
_FEW_PLATES = 4
"""Plates, at most, of which each has a sentence of its own."""
_YES, _NO = frozenset({"yes", "true", "1", "x"}), frozenset({"", "no", "false", "0"})
"""Words of the column control, in lower case."""


@dataclass(frozen=True)
class IntensityScale:
    """What is subtracted from raw intensities, and what they are divided by; one number for each channel.

    A spread of 0 means one value throughout; such a channel is not divided.
    """

    background: tuple[float, ...]
    spread: tuple[float, ...]

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """Return (raw - background) / spread of intensities (channels, Y, X), float32.

        Values that float32 cannot hold become infinite or NaN.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            background, divisor = self._for_channels()
            return np.asarray((raw.astype(np.float32) - background) / divisor)

    def undo(self, scaled: np.ndarray) -> np.ndarray:
        """Return the raw intensities of scaled ones (channels, Y, X), float32."""
        background, divisor = self._for_channels()
        return np.asarray(scaled * divisor + background)

    def _for_channels(self) -> tuple[np.ndarray, np.ndarray]:
        """Return background and divisor, float32 (channels, 1, 1)."""
        background, spread = (np.asarray(v, np.float32)[:, None, None] for v in (self.background, self.spread))
        return background, np.where(spread > 0, spread, np.float32(1))


class IntensitySample(NamedTuple):
    """Pixels of a plane.

    Attributes
    ----------
    values : ndarray
        Intensities (channels, pixels): uint16 of an image of 8 or 16 bits, which sorts fastest, else float64.
    steps : ndarray
        Absolute difference of each of them from its neighbour along X, of the same type (channels, pixels).
    """

    values: np.ndarray
    steps: np.ndarray


def sample_plane(image: ImageStack, plane: int, channels: Sequence[int], pixels: int = _GRID_PIXELS) -> IntensitySample:
    """Read about `pixels` pixels of a plane on an even grid, strip by strip.

    Raises
    ------
    ImageError
        If the plane cannot be read.
    """
    height, width = image.plane_shape
    step = max(1, round((height * width / pixels) ** 0.5))
    rows = max(1, _STRIP_PIXELS // width // step) * step
    values, steps = [], []
    for top in range(0, height, rows):
        strip = image.plane(plane, channels, Window(top, min(top + rows, height), 0, width))[:, ::step]
        at = np.arange(0, width, step)
        beside = np.where(at + 1 < width, at + 1, np.maximum(at - 1, 0))
        kind = np.uint16 if strip.dtype in (np.uint8, np.uint16) else np.float64
        one, other = (strip[:, :, places].astype(kind).reshape(len(strip), -1) for places in (at, beside))
        values.append(one)
        steps.append(np.maximum(one, other) - np.minimum(one, other))
    return IntensitySample(np.concatenate(values, 1), np.concatenate(steps, 1))


def intensity_scale(samples: Sequence[IntensitySample]) -> IntensityScale:
    """Measure background and spread of each channel over the pixels of one plane, or of several together."""
    values, steps = (np.concatenate(parts, 1) for parts in zip(*samples, strict=True))
    measured = [_scale_of_channel(_sorted_values(v), s) for v, s in zip(values, steps, strict=True)]
    background, spread, _ = zip(*measured, strict=True)
    return IntensityScale(background, spread)


class _ChannelScale(NamedTuple):
    """Background and spread of a channel, and whether anything stands out of its noise."""

    background: float
    spread: float
    stands_out: bool


def _scale_of_channel(ordered: np.ndarray, steps: np.ndarray) -> _ChannelScale:
    """Measure background and spread of sorted intensities (pixels,)."""
    if ordered[0] == ordered[-1]:
        return _ChannelScale(float(ordered[0]), 0.0, False)
    noise = _noise_level(ordered, steps)
    background = _commonest(ordered, noise)
    distance = np.abs(ordered - background)
    least = LEAST_CONTRAST * noise
    spread = least
    for _ in range(_ROUNDS):
        standing_out = distance[distance > max(least, spread / 2)]
        if standing_out.size < _LEAST_PIXELS:
            break
        spread = float(np.median(standing_out))
    return _ChannelScale(background, max(spread, least), spread > least)


def _sorted_values(values: np.ndarray) -> np.ndarray:
    """Sort values, float64; those that are whole numbers of 16 bits as such, by their digits, ten times as quickly."""
    if values.dtype != np.uint16 and 0 <= values.min() and values.max() < 1 << 16:
        whole = values.astype(np.uint16)
        values = whole if np.array_equal(whole, values) else values
    return np.sort(values, kind="stable" if values.dtype == np.uint16 else None).astype(np.float64, copy=False)


def _noise_level(ordered: np.ndarray, steps: np.ndarray) -> float:
    """Estimate the standard deviation of the noise, at least half of the smallest step of the intensities."""
    jumps = np.diff(ordered)
    return max(_median_of_sorted(_sorted_values(steps)) * _TO_SIGMA, float(jumps[jumps > 0].min()) / 2)


def _median_of_sorted(values: np.ndarray) -> float:
    return float((values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2)


def _commonest(ordered: np.ndarray, noise: float) -> float:
    """Return the median of the densest window of sorted intensities that is four standard deviations wide."""
    ordered = ordered[:: max(1, len(ordered) // _QUANTILES)]
    low, high = ordered[len(ordered) // 100], ordered[-1 - len(ordered) // 100]
    ends = np.searchsorted(ordered, ordered + max(4 * noise, (high - low) / 32), side="right")
    first = int((ends - np.arange(len(ordered))).argmax())
    return float(np.median(ordered[first : ends[first]]))


@dataclass(frozen=True)
class PlateScale:
    """What the intensities of every image of a plate or batch are scaled by, and what that was measured on.

    Attributes
    ----------
    name : str
        The plate, or the folder that stands for it.
    scale : IntensityScale
        For each channel of the model, the median of background and spread over the measured planes.
    measured, images : int
        Images that were measured, and images that could have been: some may be unreadable, and of many images only
        some are measured.
    controls : bool
        Whether these are the images that are marked as controls; otherwise they are all images of the plate.
    dark : tuple of str
        Channels in which nothing stands out of the noise on any measured plane; the spread is that of the noise.
    """

    name: str
    scale: IntensityScale
    measured: int
    images: int
    controls: bool
    dark: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """What it was measured on, in a sentence."""
        count = "" if self.measured == self.images else f"{self.measured} of "
        return f"intensities are scaled by {count}{_members_in_words(self.name, self.images, self.controls)}"

    @property
    def doubt(self) -> str:
        """A warning where the scale says little about the plate, with what to do; else empty."""
        kind = "control images" if self.controls else "images"
        dark = (
            f"nothing stands out of the noise in {', '.join(self.dark)} on the {kind} of {self.name}, so brightness "
            "there is given in units of the noise, which does not tell plates apart; mark controls that are stained"
        )
        alone = (
            f"only one image of {self.name} is known, so it is scaled by itself and differences from other images are "
            "lost; give the other images of its plate, too"
        )
        is_alone = self.measured == 1 and not self.controls
        return "; ".join([*([alone] if is_alone else []), *([dark] if self.dark else [])])


def _members_in_words(name: str, images: int, controls: bool) -> str:
    kind = f"the {'one' if images == 1 else images} {'control ' * controls}image{'s'[: images != 1]} of {name}"
    unmarked = "which is not marked as a control" if images == 1 else "none of which is marked as a control"
    return kind if controls else f"{kind}, {unmarked}"


class Plate:
    """The images of a plate or batch by which the intensities of all its images are scaled.

    Parameters
    ----------
    name : str
        Its name in messages.
    members : sequence of callable
        Each opens an image: the control images, or all images where none is known to be a control.
    controls : bool
        Whether the members are control images.
    known : PlateScale, optional
        A scale that was measured before; then nothing is measured.
    """

    def __init__(
        self,
        name: str,
        members: Sequence[Callable[[], ImageStack]] = (),
        *,
        controls: bool = False,
        known: PlateScale | None = None,
    ) -> None:
        self.name, self.members, self.controls = name, tuple(members), controls
        self._known = known
        self._measured: dict[tuple[str, ...], PlateScale] = {}
        self._lock = threading.Lock()

    @property
    def sentence(self) -> str:
        """By which images the plate is scaled, in a sentence."""
        return f"intensities are scaled by {_members_in_words(self.name, len(self.members), self.controls)}"

    def scale(self, channels: Sequence[str]) -> PlateScale:
        """Return the scale of some channels, measured when it is needed first.

        Raises
        ------
        ImageError
            If none of the images can be read, or has these channels.
        """
        if self._known is not None:
            return self._known
        with self._lock:
            for _ in self.measuring(channels):
                pass
            return self._measured[tuple(channels)]

    def measuring(self, channels: Sequence[str]) -> Iterator[None]:
        """Measure the scale of some channels, where it is not known; yields after each image, so that it can stop.

        Raises
        ------
        ImageError
            As `scale`.
        """
        if self._known is not None or tuple(channels) in self._measured:
            return
        chosen = self.members[:: max(1, math.ceil(len(self.members) / _MOST_OF_A_PLATE))]
        most = max(_PLANES_OF_AN_IMAGE, _MOST_OF_A_PLATE // max(1, len(chosen)))
        found: list[list[list[_ChannelScale]]] = []
        problem: ImageError | None = None
        for member in chosen:
            try:
                found.append(_scales_of_planes(member, channels, most))
            except ImageError as error:
                problem = error
            yield
        if not found:
            raise ImageError(
                f"none of the {len(chosen)} images by which {self.name} is scaled can be read: {problem}"
            ) from problem
        backgrounds, spreads, dark = zip(*map(_median_scale, zip(*chain(*found), strict=True)), strict=True)
        self._measured[tuple(channels)] = PlateScale(
            self.name, IntensityScale(backgrounds, spreads), len(found), len(self.members), self.controls,
            tuple(name for name, is_dark in zip(channels, dark, strict=True) if is_dark),
        )  # fmt: skip


def _scales_of_planes(
    member: Callable[[], ImageStack], channels: Sequence[str], most: int
) -> list[list[_ChannelScale]]:
    """Measure the channels of planes of an image, evenly spaced, at most so many."""
    image = member()
    numbers, _ = match_channels(channels, image)
    planes = range(0, len(image.planes), math.ceil(len(image.planes) / most))
    samples = (sample_plane(image, plane, numbers) for plane in planes)
    return [[_scale_of_channel(_sorted_values(v), s) for v, s in zip(*sample, strict=True)] for sample in samples]


def _median_scale(planes: Sequence[_ChannelScale]) -> tuple[float, float, bool]:
    """Return the medians of background and spread of a channel over planes, and whether nothing stands out on any.

    Planes of one value do not count, nor, for the spread, those on which nothing stands out, where there are others.
    """
    filled = [one for one in planes if one.spread > 0] or planes
    bright = [one for one in filled if one.stands_out]
    background = float(np.median([one.background for one in filled]))
    return background, float(np.median([one.spread for one in bright or filled])), not bright


class Plates:
    """Which images share a plate or batch, for models that scale intensities by it (`normalise` is group).

    Give images that are opened with `open` to `classify`, `evidence` and the others:
    ``mil.classify(model, mil.Plates("plates.csv").open("p1/a.tif"))``. A plate is measured once, when it is needed.

    Parameters
    ----------
    table : path, optional
        A table with the columns file (relative to the table) and plate, control (yes, true, 1 or x for a control
        image) or both, such as labels.csv; planes of a file can be rows of their own with the column plane. Without a
        table or the column plate, the images of one folder, or of one OME-Zarr plate, are a plate.
    reading : ImageReading
        How files are opened.
    plate : Plate, optional
        One plate to which every image belongs, whatever the files are called.
    known : mapping, optional
        File -> the scale of its plate that was measured before.

    Raises
    ------
    OptionsError
        If the table is no file, and no scales are known.
    """

    def __init__(
        self,
        table: str | Path | None = None,
        reading: ImageReading = AS_THEY_SAY,
        *,
        plate: Plate | None = None,
        known: Mapping[Path, PlateScale] | None = None,
    ) -> None:
        self.table = None if table is None else Path(table)
        if self.table is not None and known is None and not self.table.is_file():
            raise OptionsError(f"option 'plates' is {self.table}, which is no file; expected a table with the columns "
                               "file, plate and control")  # fmt: skip
        self.reading = reading
        self._one = plate
        self._known = {path.absolute(): Plate(one.name, known=one) for path, one in (known or {}).items()}
        self._of_table: dict[Path, Plate] | None = None
        self._of_folders: dict[Path, Plate] = {}
        self._lock = threading.Lock()

    def open(self, source: str | os.PathLike[str] | ArrayLike | ImageStack) -> ImageStack:
        """Open an image, as `open_image` does, with what is known of its plate.

        Raises
        ------
        ImageError
            If it cannot be opened.
        """
        opened = self.reading.open(Path(source)) if isinstance(source, str | os.PathLike) else open_image(source)
        return replace(opened, plates=self)

    def plate_of(self, path: Path | None) -> Plate:
        """Return the plate of an image file; None for an image that is not a file.

        Raises
        ------
        ImageError
            If it is not known.
        LabelsError
            If the table is not one of plates.
        """
        if self._one is not None:
            return self._one
        if path is None:
            raise ImageError(
                "the model scales intensities by plate, and the image is no file: it is not known which images share "
                "its plate; give them by Plates(plate=Plate(name, members))"
            )
        with self._lock:
            if path.absolute() in self._known:
                return self._known[path.absolute()]
            if self.table is None:
                return self._folder_of(path)
            if self._of_table is None:
                self._of_table = _plates_in(self.table, self.reading)
            if path.resolve() not in self._of_table:
                raise ImageError(
                    f"the model scales intensities by plate, and {path} is not in {self.table}, which lists the images "
                    "of each plate; add a row for it, or give another table (option plates)"
                )
            return self._of_table[path.resolve()]

    def _folder_of(self, path: Path) -> Plate:
        """Return the OME-Zarr plate that a field lies in, else the images of the folder."""
        zarrs = (folder for folder in reversed((path, *path.parents)) if folder.suffix.lower() in ZARR_SUFFIXES)
        wells = next(((folder, found) for folder in zarrs if (found := plate_wells(folder)) is not None), None)
        home = files_of(path)[0].parent if wells is None else wells[0]
        key = home.resolve()
        if key not in self._of_folders:
            files = (
                images_in(home, self.reading.pattern)
                if wells is None
                else [field for fields in wells[1].values() for field in fields]
            )
            name = f"the {'folder' if wells is None else 'plate'} {key.name}"
            self._of_folders[key] = Plate(name, [partial(self.reading.open, file) for file in files])
        return self._of_folders[key]


def with_plate_scale(image: ImageStack, known: PlateScale | None) -> ImageStack:
    """Return an image with a scale of its plate that was measured before; None changes nothing."""
    return image if known is None else replace(image, plates=Plates(plate=Plate(known.name, known=known)))


def table_with_plates(path: Path) -> Path | None:
    """Return the path of a table of labels if it has a column plate or control, by which it is a table of plates."""
    if not path.is_file():
        return None
    return path if _tells_plates([name.lower() for name in column_names(path)]) else None


def _tells_plates(columns: Collection[str]) -> bool:
    """Whether a table with these columns, in lower case, says which images share a plate or are controls."""
    return any(name == "file" or name.startswith(FILE_OF) for name in columns) and (
        "plate" in columns or "control" in columns
    )


def plates_in_words(plates: Collection[Plate]) -> tuple[str, ...]:
    """Say by which images some plates are scaled: a sentence for each of a few plates, or two for many of them."""
    if len(plates) <= _FEW_PLATES:
        return tuple(plate.sentence for plate in plates)
    others = [plate.name for plate in plates if not plate.controls]
    sentences = [f"intensities are scaled by the control images of {len(plates) - len(others)} plates"]
    if others:
        sentences.append(
            f"intensities are scaled by all images of {len(others)} plates on which none is marked as a control, such "
            f"as {others[0]}"
        )
    return tuple(sentences[len(others) == len(plates) :])


class _PlateRow(NamedTuple):
    """A row of a table of plates; `plate` is the name in it, or the folder of the file."""

    file: Path
    plane: str
    plate: str
    name: str
    is_control: bool


def _plates_in(path: Path, reading: ImageReading) -> dict[Path, Plate]:
    """Read a table of plates: resolved path of an image -> its plate."""
    members: dict[str, list[_PlateRow]] = defaultdict(list)
    plates: dict[Path, str] = {}
    for row in _plate_rows(path):
        members[row.plate].append(row)
        if plates.setdefault(row.file, row.plate) != row.plate:
            raise LabelsError(
                f"{path} puts {row.file.name} on two plates, {plates[row.file]} and {row.plate}; expected one plate "
                "for all rows of a file"
            )
    made = {}
    for plate, rows in members.items():
        controls = [row for row in rows if row.is_control]
        opening = [partial(_open_planes, reading, row.file, row.plane) for row in controls or rows]
        made[plate] = Plate(rows[0].name, opening, controls=bool(controls))
    return {file: made[plate] for file, plate in plates.items()}


def _plate_rows(path: Path) -> list[_PlateRow]:
    """Read the rows of a table of plates.

    Raises
    ------
    LabelsError
        If the table cannot be read, has no column file and neither plate nor control, or a cell is not understood.
    """
    table, _ = with_file_column(table_of(path, "a table of plates: a CSV with the columns file, plate and control",
                                         LabelsError))  # fmt: skip
    names = [name.lower() for name in table.columns]
    if not _tells_plates(names):
        raise LabelsError(f"{path} has the columns {short(', '.join(table.columns))}; a table of plates needs file and "
                          "plate or control")  # fmt: skip
    rows = [dict(zip(names, cells, strict=True)) for cells in table.rows]
    gaps = [line for line, row in zip(table.lines, rows, strict=True) if "plate" in row and not row["plate"]]
    if 0 < len(gaps) < len(rows):
        raise LabelsError(f"{path}: the column plate is filled for {len(rows) - len(gaps)} of {len(rows)} rows, and "
                          f"line {gaps[0]} is the first without; fill all rows or none")  # fmt: skip
    return [_plate_row(path, line, row) for line, row in zip(table.lines, rows, strict=True)]


def _plate_row(path: Path, line: int, row: Mapping[str, str]) -> _PlateRow:
    file = as_on_disk(path.parent / row["file"].replace("\\", "/")).resolve()
    plate, control = row.get("plate", ""), row.get("control", "").lower()
    if not row["file"]:
        raise LabelsError(f"{path}: line {line} names no file")
    if control not in _YES | _NO:
        raise LabelsError(f"{path}: line {line} has {row['control']!r} as control; expected yes or no")
    name = f"plate {plate}" if plate else f"the folder {file.parent.name}"
    return _PlateRow(file, row.get("plane", ""), plate or str(file.parent), name, control in _YES)


def _open_planes(reading: ImageReading, file: Path, planes: str) -> ImageStack:
    return only_planes(reading.open(file), planes)
