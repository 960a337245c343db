"""Label images: one rule for those from files, arrays and layers; and each of their cells classified by itself.

A label image has one whole number for each object, 0 for background, and the pixels of its image. Decisions:

- A whole number may be stored as a float, as Fiji and CLIJ do: nothing is lost up to `LARGEST_LABEL` (2048 in 16-bit
  floats). NaN, infinite, negative and fractional numbers are refused.
- A mask with a single number for many separate pieces (0 and 255, 0 and 1, true and false) is no label image yet: each
  connected piece becomes an object, and a sentence says so. Where most of several numbers have separate pieces, as in a
  map of classes, the numbers stay and a sentence says so.
- The image itself, or another picture of intensities, is refused: its numbers lie in more pieces than objects do.
- A file of another shape is resampled where its pixel size says that it shows the same field, and refused otherwise.
- The label image of an image in a folder has the name of the image, alone or with one of `LABEL_ENDS`.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import torch

from napari_milcnn.errors import ImageError, LabelsError
from napari_milcnn.images.lazy_array import in_memory
from napari_milcnn.images.open import open_image
from napari_milcnn.images.paths import LABEL_ENDS, TIFF_SUFFIXES, ZARR_SUFFIXES, files_of, image_name, is_plain_folder
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.inference.model_input import ModelInput
from napari_milcnn.inference.predict import Classifier, ImageSource
from napari_milcnn.model.trained_model import TrainedModel
from napari_milcnn.schema import instance_column

_CELLS_AT_ONCE = 64
LARGEST_LABEL = 2**24
"""Largest number in a label image: some arrays need one place for every number up to the largest."""
_LARGEST_IN_HALF = 2**11
"""Largest number up to which 16-bit floats hold every whole number."""
_LABEL_SUFFIXES = (*(f"{ome}{end}" for ome in (".ome", "") for end in (*TIFF_SUFFIXES, *ZARR_SUFFIXES)), ".png")
_PICTURE_NUMBERS = 12
"""Numbers, at least, of which most have separate pieces for an array to be a picture of intensities."""
_SCATTERED, _SPECK = 4, 6
"""Pieces of a number, and px of a piece: in a picture there are more of them, or they are smaller."""
_FRAGMENT = 0.1
"""Share of the largest piece of a number below which another piece is a fragment."""
_LIKE_BACKGROUND = 0.5
"""Share of a plane above which an object may be the background."""
_SAME_FIELD = 0.02
"""Relative difference up to which two sizes of a field, in µm, are the same; a row of pixels may be missing, too."""
_SAME_SIZE = 0.1
"""Relative difference of pixel sizes that is said."""


@dataclass(frozen=True, eq=False)
class LabelImage:
    """A label image that fits its image.

    Attributes
    ----------
    numbers : ndarray
        The number of the object at each pixel, int32 (planes, Y, X); 0 is background.
    warnings : tuple of str
        Sentences about what was done to it, or may be wrong with it.
    """

    numbers: np.ndarray
    warnings: tuple[str, ...] = ()


LabelSource: TypeAlias = np.ndarray | str | Path | LabelImage


def _warn(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=3)


def classify_cells(
    model: TrainedModel,
    image: ImageSource | ModelInput,
    labels: LabelSource,
    *,
    on_warning: Callable[[str], None] = _warn,
    **options: object,
) -> pd.DataFrame:
    """Classify each object of a label image by itself (the paper's single-cell mode, section 3.3).

    The network looks at one receptive field centred on the object, so its class map has a single instance.

    Parameters
    ----------
    model : TrainedModel
        The model to apply.
    image : path, array or ImageStack
        Anything `open_image` takes.
    labels : ndarray, path or LabelImage
        Objects as whole numbers, (planes, Y, X) or, for one plane, (Y, X), 0 for background; or the file of them.
    on_warning : callable
        Called with each sentence about what is not known of the image, and about what was done to it and to the label
        image; by default a Python warning is given.
    **options
        Fields of `ComputeOptions`.

    Returns
    -------
    DataFrame
        One row per object: plane, label, y, x (centroid, px), area_px, top class, and p of each class.

    Raises
    ------
    ImageError
        If the image cannot be read or does not have the model's channels.
    OptionsError
        If an option is unknown or has an impossible value.
    LabelsError
        If the label image does not fit the image.
    """
    classifier = Classifier(model, **options)
    model_input = classifier.model_input(image)
    found = as_label_image(labels, model_input.image)
    for sentence in (*model_input.warnings, *found.warnings):
        on_warning(sentence)
    rows = _centroids_and_areas(found.numbers)
    parts = [_cells_of_plane(classifier, model_input, part) for _, part in rows.groupby("plane")]
    p = np.concatenate(parts) if parts else np.empty((0, len(model.classes)), np.float32)  # (objects, classes)
    table = rows.assign(top=pd.Series([model.classes[i] for i in p.argmax(1)], dtype="str"))
    return table.join(pd.DataFrame(p, columns=[instance_column(name) for name in model.classes]))


def as_label_image(labels: LabelSource, image: ImageStack, name: str = "the label image") -> LabelImage:
    """Make the label image of an image from an array or a file.

    Parameters
    ----------
    labels : ndarray, path or LabelImage
        Whole numbers, (planes, Y, X) or, for one plane, (Y, X); or a file of them. A `LabelImage` is returned as it is.
    image : ImageStack
        The image.
    name : str
        What an array is called in messages.

    Raises
    ------
    ImageError
        If a file cannot be read.
    LabelsError
        If it is not a label image, or does not fit the image.
    """
    if isinstance(labels, LabelImage):
        return labels
    if isinstance(labels, str | Path):
        return read_label_image(Path(labels), image)
    numbers = checked_numbers(labels, image, name)
    pieces = _pieces(numbers)
    if pieces.are_intensities:
        raise LabelsError(
            f"{name} is a picture of intensities and no label image: it has {len(pieces.of)} numbers, and "
            f"{pieces.count} separate pieces; choose the file or layer in which each cell has a number of its own"
        )
    _refuse_the_image(numbers, image, name)
    if len(pieces.of) == 1 and max(pieces.of.values()) > 1:
        return _each_piece(numbers, name)
    return LabelImage(numbers, tuple(_doubts(pieces, name)))


def _doubts(pieces: _Pieces, name: str) -> Iterator[str]:
    """Say what looks like classes of pixels, or like a background that has a number."""
    number, share = pieces.widest
    if share > _LIKE_BACKGROUND:
        yield (
            f"in {name} the object {number} covers {share:.0%} of the image; if that is the background, give it the "
            "number 0"
        )
    if pieces.most_are_split:
        few = ", ".join(map(str, sorted(pieces.of)[:5])) + ", …" * (len(pieces.of) > 5)
        yield (
            f"{name} has {len(pieces.of)} numbers ({few}) in {pieces.count} separate pieces, and the pieces of one "
            "number are one object; if the numbers are classes, number each piece, for example with "
            "skimage.measure.label"
        )


def checked_numbers(labels: np.ndarray, image: ImageStack, name: str) -> np.ndarray:
    """Check that an array has the shape of an image and whole numbers that objects can have.

    Returns
    -------
    ndarray
        The numbers as they are, int32 (planes, Y, X).

    Raises
    ------
    LabelsError
        If the shape, the type or the numbers do not fit.
    """
    labels = in_memory(labels)
    labels = labels[None] if labels.ndim == 2 else labels
    wanted = (len(image.planes), *image.plane_shape)
    if labels.shape != wanted:
        raise LabelsError(
            f"{_as_subject(name)} {_size_in_words(labels.shape)}, but the image is {_size_in_words(wanted)}; choose "
            "labels that were made from this image"
        )
    if labels.dtype.kind not in "buif":
        raise LabelsError(f"{name} has the type {labels.dtype}; expected whole numbers, 0 for background")
    if labels.dtype.kind == "f":
        _check_whole(labels, name)
    least, most = float(labels.min()), float(labels.max())
    if least < 0 or most > LARGEST_LABEL:
        raise LabelsError(
            f"{name} has numbers from {least:.12g} to {most:.12g}; expected 0 for background and "
            f"objects from 1 to at most {LARGEST_LABEL}; renumber them, for example with skimage's relabel_sequential"
        )
    return labels.astype(np.int32)


def _check_whole(labels: np.ndarray, name: str) -> None:
    """Refuse floats that are no whole numbers, and 16-bit floats that cannot tell their neighbours apart."""
    way_out = "save the label image with whole numbers, such as 16 or 32 bit unsigned"
    bad = labels.size - np.count_nonzero(np.isfinite(labels))
    if bad:
        raise LabelsError(f"{name} has {bad} pixels that are NaN or infinite; expected 0 for background; {way_out}")
    broken = labels[labels != np.rint(labels)]
    if broken.size:
        raise LabelsError(
            f"{name} has {broken.size} pixels with fractions, such as {broken.flat[0]:.6g}; it may be a picture or a "
            f"map of probabilities, or labels that were resampled with interpolation; {way_out}"
        )
    if labels.dtype.itemsize < 4 and labels.max(initial=0) > _LARGEST_IN_HALF:
        raise LabelsError(
            f"{name} has 16-bit floats up to {labels.max():.0f}, in which numbers above {_LARGEST_IN_HALF} are "
            f"rounded, so that cells have merged; {way_out}"
        )


@dataclass(frozen=True)
class _Pieces:
    """How the numbers of a label image lie in connected pieces.

    Attributes
    ----------
    of : dict
        Number -> the most pieces that it has in a plane.
    large : dict
        The same without fragments, which are much smaller than the largest piece of their number.
    widest : tuple
        The number that covers the largest share of a plane, and that share.
    count : int
        Pieces, of all numbers and planes.
    pixels : int
        Pixels of all pieces.
    size : int
        Pixels of the label image.
    """

    of: dict[int, int]
    large: dict[int, int]
    widest: tuple[int, float]
    count: int
    pixels: int
    size: int

    @property
    def most_are_split(self) -> bool:
        """Whether half of the numbers, or more, have several separate pieces in a plane, beside fragments."""
        return bool(self.of) and sum(pieces > 1 for pieces in self.large.values()) >= len(self.of) / 2

    @property
    def are_intensities(self) -> bool:
        """Whether the numbers lie as in a picture: many of them, each scattered, or specks that leave no background."""
        scattered = self.most_are_split and (
            self.count >= _SCATTERED * len(self.of) or self.pixels < _SPECK * self.count
        )
        noise = self.pixels > self.size / 2 and self.pixels < _SPECK * self.count
        return len(self.of) >= _PICTURE_NUMBERS and (scattered or noise)


def _pieces(numbers: np.ndarray) -> _Pieces:
    """Find the connected pieces, of pixels that touch by a side or a corner, of each number (planes, Y, X)."""
    from skimage.measure import label

    most: dict[int, int] = {}
    large: dict[int, int] = {}
    count, widest = 0, (0, 0.0)
    for plane in numbers:
        pieces, there = label(plane, background=0, return_num=True, connectivity=2)
        areas = np.bincount(pieces.ravel(), minlength=there + 1)[1:]
        number_of = np.zeros(there + 1, np.int64)
        number_of[pieces.ravel()] = plane.ravel()
        own, place, many = np.unique(number_of[1:], return_inverse=True, return_counts=True)
        largest, total = np.zeros(len(own)), np.bincount(place, areas, len(own))
        np.maximum.at(largest, place, areas)
        counted = np.bincount(place, areas >= _FRAGMENT * largest[place], len(own)).astype(int)
        for found, counts in ((most, many), (large, counted)):
            found |= {n: max(m, found.get(n, 0)) for n, m in zip(own.tolist(), counts.tolist(), strict=True)}
        if len(own):
            widest = max(widest, (int(own[total.argmax()]), float(total.max() / plane.size)), key=lambda one: one[1])
        count += there
    return _Pieces(most, large, widest, count, int(np.count_nonzero(numbers)), numbers.size)


def _each_piece(mask: np.ndarray, name: str) -> LabelImage:
    """Give each connected piece of a mask (planes, Y, X) a number, plane by plane."""
    from skimage.measure import label

    numbers = np.stack([label(plane > 0, connectivity=2) for plane in mask]).astype(np.int32)
    pieces = int(sum(plane.max() for plane in numbers))
    return LabelImage(numbers, (
        f"{name} is a mask: all its pixels are 0 or {mask.max()}. Each of its {pieces} separate pieces was taken for "
        "one object, so cells that touch each other count as one; give a label image with one number for each cell "
        "if that is wrong",
    ))  # fmt: skip


def _refuse_the_image(numbers: np.ndarray, image: ImageStack, name: str) -> None:
    """Refuse a label image that has the pixels of one channel of the image, in the first plane that has objects."""
    plane = next((i for i, one in enumerate(numbers) if one.any()), None)
    if plane is not None and any(np.array_equal(channel, numbers[plane]) for channel in image.plane(plane)):
        raise LabelsError(
            f"{name} has the same pixels as {image.name}: it is the image itself and no label image; choose the file "
            "or layer in which each cell has a number of its own"
        )


def _as_subject(name: str) -> str:
    return "the labels are" if name == "the label image" else f"the labels of {name} are"


def _size_in_words(shape: tuple[int, ...]) -> str:
    if len(shape) != 3:
        return f"an array of the shape {shape}"
    planes, height, width = shape
    return f"{height} x {width} px" if planes == 1 else f"{planes} planes of {height} x {width} px"


def read_label_image(path: Path, image: ImageStack) -> LabelImage:
    """Read the label image of an image.

    A file that does not name its axes has those of the image. From a file with several channels, such as a label image
    that `classify` wrote, the channel `objects` is read. From a folder that is no zarr, the file of the image is read.

    Parameters
    ----------
    path : Path
        File of the label image, or a folder of label images.
    image : ImageStack
        The image.

    Raises
    ------
    ImageError
        If the file cannot be read.
    LabelsError
        If the file is not a label image, or does not fit this image.
    """
    path = label_file(path, image.path)
    with _open_labels(path, image.axes.replace("C", "")) as opened:
        _check_one_channel(path, opened)
        every = len(opened.planes) > len(image.planes) and opened.axes == image.axes.replace("C", "")
        labels = replace(opened, only=image.only) if every else opened
        numbers = np.stack([labels.plane(i, (0,))[0] for i in range(len(labels.planes))])
        numbers, notes = _on_pixels_of(image, numbers, labels, path.name)
    found = as_label_image(numbers, image, path.name)
    return replace(found, warnings=(*notes, *found.warnings))


def _open_labels(path: Path, axes: str) -> ImageStack:
    try:
        return open_image(path)
    except ImageError:
        return open_image(path, axes=axes)


def _check_one_channel(path: Path, labels: ImageStack) -> None:
    if labels.is_picture:
        raise LabelsError(
            f"{path} is a colour picture, in which the numbers of the cells are lost; expected a label image with one "
            "channel; save the labels themselves, such as 16 bit TIFF, and not what the screen shows"
        )
    if len(labels.channels) > 1 and labels.channels[0] != "objects":
        raise LabelsError(f"{path} has {len(labels.channels)} channels; expected a label image with one channel")


def _on_pixels_of(
    image: ImageStack, numbers: np.ndarray, labels: ImageStack, name: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the numbers (planes, Y, X) at the pixels of an image, and what has to be said about it.

    Where the shapes differ, pixel sizes have to say that both show the same field; else the numbers are as they were.
    """
    own, other = image.pixel_size, labels.pixel_size
    here, there = np.array(image.plane_shape), np.array(labels.plane_shape)
    if own is None or other is None:
        return numbers, ()
    if (here == there).all():
        if abs(other / own - 1) <= _SAME_SIZE:
            return numbers, ()
        return numbers, (
            f"{name} says {other:.4g} µm per pixel, and the image has {own:.4g}; both have {here[0]} x {here[1]} px "
            "and are compared pixel by pixel; check that the labels were made from this image",
        )
    if (np.abs(here * own - there * other) > np.maximum(_SAME_FIELD * here * own, max(own, other))).any():
        return numbers, ()
    rows, columns = (
        np.clip(((np.arange(n) + 0.5) * m / n).astype(int), 0, m - 1) for n, m in zip(here, there, strict=True)
    )
    return numbers[:, rows][:, :, columns], (
        f"{name} has {there[0]} x {there[1]} px of {other:.4g} µm and was resampled to the {here[0]} x {here[1]} px of "
        "the image",
    )


def label_file(place: Path, image: Path | None) -> Path:
    """Return the file of the label image of an image: `place` itself, or the one in it, if it is a folder.

    Raises
    ------
    LabelsError
        If there is none, if there are several, or if it is the image itself.
    """
    found = [place]
    if is_plain_folder(place):
        if image is None:
            raise LabelsError(f"{place} is a folder, and the image is no file; give the label image itself")
        found = _label_files(place, image)
    others = [path for path in found if image is None or not _is_same(path, image)]
    if found and not others:
        raise LabelsError(
            f"{found[0]} is the image itself and no label image; choose the file in which each cell has a number of "
            "its own"
        )
    if len(others) != 1:
        name = "the image" if image is None else image_name(image)
        many = f"has several label images of {name}: {', '.join(path.name for path in others)}; keep one of them there"
        none = (
            f"has no label image of {name}; expected a file such as {name}.tif, {name}_labels.tif or {name}_masks.png"
        )
        raise LabelsError(f"{place} {many if others else none}")
    return others[0]


def _label_files(folder: Path, image: Path) -> list[Path]:
    """List the files of a folder that are called like label images of an image."""
    names = _files_by_name(folder, folder.stat().st_mtime_ns)
    called = dict.fromkeys(map(image_name, (image, *files_of(image))))
    wanted = (f"{name}{end}{suffix}" for name in called for end in LABEL_ENDS for suffix in _LABEL_SUFFIXES)
    return [folder / name for one in wanted for name in names.get(_comparable(one), ())]


@lru_cache(maxsize=4)
def _files_by_name(folder: Path, _changed: int) -> dict[str, tuple[str, ...]]:
    """List what lies in a folder, by the form in which names are compared; listed again when the folder changed."""
    names: dict[str, tuple[str, ...]] = {}
    for path in sorted(folder.iterdir()):
        key = _comparable(path.name)
        names[key] = (*names.get(key, ()), path.name)
    return names


def _comparable(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _is_same(path: Path, image: Path) -> bool:
    return path.exists() and any(file.exists() and path.samefile(file) for file in files_of(image))


def _centroids_and_areas(labels: np.ndarray) -> pd.DataFrame:
    """List the objects of a label image (planes, Y, X): plane, label, y and x of the centroid, area_px."""
    from skimage.measure import regionprops_table

    tables = [
        pd.DataFrame(regionprops_table(plane, properties=("label", "centroid", "area"))).assign(plane=i)
        for i, plane in enumerate(labels)
    ]
    rows = pd.concat(tables, ignore_index=True).rename(
        columns={"centroid-0": "y", "centroid-1": "x", "area": "area_px"}
    )
    return rows[["plane", "label", "y", "x", "area_px"]]


def _cells_of_plane(classifier: Classifier, model_input: ModelInput, rows: pd.DataFrame) -> np.ndarray:
    """Return p of each class for the objects of one plane, float32 (objects, classes)."""
    field = classifier.model.network.placement.receptive_field
    pixels = model_input.read(int(rows["plane"].iloc[0]))  # scaled by the whole plane, not by single cells
    padded = np.pad(pixels, ((0, 0), *[(field // 2, field // 2)] * 2), "reflect")
    scaled = (rows[["y", "x"]].to_numpy() + 0.5) * model_input.zoom - 0.5  # centroids in px of the model
    centres = (scaled + np.asarray(model_input.margin)).round().astype(int)
    corners = np.clip(centres, 0, np.asarray(model_input.shape) - 1)
    parts = []
    for start in range(0, len(corners), _CELLS_AT_ONCE):
        crops = [padded[:, y : y + field, x : x + field] for y, x in corners[start : start + _CELLS_AT_ONCE]]
        parts.append(classifier.inference.instances(np.stack(crops)))  # (objects, classes)
    return torch.from_numpy(np.concatenate(parts)).sigmoid().numpy()
