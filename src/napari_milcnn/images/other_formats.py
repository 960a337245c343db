"""PNG, JPEG, BMP and GIF, and every format that an installed bioio reader knows.

Decisions:

- PNG, JPEG, BMP and GIF cannot be read in part: the whole image is decoded when it is opened.
- Frames of an animation are not dropped in silence: a file with several frames is refused.
- The size that a header declares is compared with the bytes of the file before anything is decoded.
- Scenes of a file that bioio reads are positions. A reader of bioio is advised only for formats that it reads.
"""

from __future__ import annotations

import re
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

from napari_milcnn.errors import ImageError
from napari_milcnn.images.declared_size import check_declared, stored_size
from napari_milcnn.images.lazy_array import Array
from napari_milcnn.images.paths import BIOIO_READERS, NDTIFF_INDEX, ZARR_METADATA
from napari_milcnn.images.stack import FoundImage
from napari_milcnn.images.units import number_or_none, pixel_size_from_resolution, pixel_size_from_sides

RASTER_MAGIC: Final = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8")
"""First bytes of PNG, JPEG and GIF."""
_ZARR_DOCUMENTS: Final = (*ZARR_METADATA, ".zattrs", ".zmetadata")
_ARRAY_SUFFIXES: Final = (".h5", ".hdf5", ".mat", ".npy", ".npz")
_TEXT_SUFFIXES: Final = (".csv", ".htd", ".htm", ".html", ".json", ".md", ".mlf", ".mrf", ".tsv", ".txt", ".xml",
                         ".yaml", ".yml")  # fmt: skip
_HEADER: Final = 4 << 20
"""Bytes in which JPEG declares its size, behind colour profiles and thumbnails."""
_PNG_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Kind of colour of a PNG -> samples of a pixel."""


def open_raster(path: Path, series: int | None) -> FoundImage:
    """Decode a PNG, JPEG, BMP or GIF; `series` may be 0 or None, since such a file holds one image."""
    if series not in (None, 0):
        raise ImageError(f"{path}: series={series} was asked for, but such a file is one image; leave series= out")
    from PIL.Image import DecompressionBombWarning

    _check_size(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DecompressionBombWarning)  # the size has just been checked
        size, note = _raster_pixel_size(path)
        pixels, alpha = _decoded(path)
    axes = "YX" if pixels.ndim == 2 else "YXS"
    return FoundImage((pixels,), axes, pixel_size=size, warnings=(note,) if note else (), alpha=alpha)


def _check_size(path: Path) -> None:
    """Refuse a picture whose header declares more pixels than its bytes can hold, or than are decoded at once."""
    from PIL import Image

    with path.open("rb") as file:
        head, stored = file.read(_HEADER), path.stat().st_size
    size = stored_size(head)
    if head.startswith(b"GIF8") and len(head) >= 10:
        size = (int.from_bytes(head[8:10], "little"), int.from_bytes(head[6:8], "little"))
    elif head.startswith(b"BM") and len(head) >= 26:
        size = (abs(int.from_bytes(head[22:26], "little", signed=True)), int.from_bytes(head[18:22], "little"))
    if size is None:
        return  # the decoder says what is wrong
    pixels = size[0] * size[1]
    if head.startswith(b"\x89PNG") and len(head) >= 26:
        decoded, codec = pixels * _PNG_SAMPLES.get(head[25], 1) * head[24] // 8, "deflate"
    else:
        decoded, codec = pixels, {b"GI": "lzw", b"\xff\xd8": "jpeg"}.get(head[:2], "")
    check_declared(str(path), decoded, stored, codec)
    most = 2 * (Image.MAX_IMAGE_PIXELS or pixels)  # from there on Pillow refuses
    if pixels > most:
        raise ImageError(
            f"{path} has {size[0]} x {size[1]} px, at most {most} px are decoded at once; save it as a tiled TIFF or "
            "OME-Zarr"
        )


def _raster_pixel_size(path: Path) -> tuple[float | None, str | None]:
    """Return the size in µm that a resolution states, which is seldom more than a default for printing."""
    from PIL import Image

    with Image.open(path) as picture:
        x, y = (number_or_none(each) for each in picture.info.get("dpi", (None, None)))
    return pixel_size_from_resolution([y, x], "inch")


def _decoded(path: Path) -> tuple[Array, bool]:
    """Return the pixels (Y, X) or (Y, X, samples), and whether the last sample is alpha."""
    if _is_deep_png(path):  # Pillow would reduce colours of 16 bits to 8
        from imagecodecs import png_decode

        pixels = np.asarray(png_decode(path.read_bytes()))
        return pixels, pixels.ndim == 3 and pixels.shape[-1] in (2, 4)
    import imageio.v3 as iio

    with iio.imopen(path, "r", plugin="pillow") as file:
        frames = sum(1 for _ in file.iter()) if path.suffix.lower() == ".gif" else 1
        if frames > 1:
            raise ImageError(f"{path} holds {frames} frames; only single images are read: save them as TIFF")
        mode = file.metadata(index=0).get("mode", "")
        pixels = np.asarray(file.read(index=0, **({"mode": "RGB"} if mode in ("CMYK", "YCCK") else {})))
    alpha = pixels.ndim == 3 and pixels.shape[-1] in (2, 4)
    if mode == "P" and pixels.ndim == 3 and all(np.array_equal(pixels[..., 0], pixels[..., i]) for i in (1, 2)):
        return pixels[..., 0], False  # a palette of greys
    return pixels, alpha


def _is_deep_png(path: Path) -> bool:
    """Whether a file is a PNG with several samples of 16 bits, as bytes 24 and 25 of its header say."""
    with path.open("rb") as file:
        head = file.read(26)
    return head.startswith(b"\x89PNG") and len(head) == 26 and head[24] == 16 and head[25] != 0


def open_other(path: Path, series: int | None) -> FoundImage:
    """Open a file through an installed bioio reader; `series` is the number of one scene, or None for all."""
    other = _what_else(path)
    if other:
        raise ImageError(f"{path} is {other}")
    reader = BIOIO_READERS.get(path.suffix.lower())
    advice = "export the image as OME-TIFF or OME-Zarr"
    if reader is not None:
        java = ", which needs Java" if reader == "bioio-bioformats" else ""
        more = "" if reader == "bioio-nd2" else f", and pip install {reader}{java}"  # bioio-nd2 comes with the extra
        advice = f'for {path.suffix} run: pip install "napari-milcnn[bioio]"{more}; or {advice}'
    try:
        bioio, errors = import_module("bioio"), import_module("bioio_base.exceptions")
    except ImportError as exc:
        raise ImageError(f"{path} is not a TIFF, OME-Zarr, PNG, JPEG, BMP or GIF image; {advice}") from exc
    try:
        image = bioio.BioImage(path)
    except errors.UnsupportedFileFormatError as exc:
        if reader is not None and find_spec(reader.replace("-", "_")) is not None:
            raise ImageError(f"{path}: {reader} is installed and does not know it, so it may be damaged; copy the file "
                             "again, or export the image as OME-TIFF or OME-Zarr") from exc  # fmt: skip
        raise ImageError(f"{path}: no installed bioio reader knows it; {advice}") from exc
    return _from_bioio(path, image, series)


def _what_else(path: Path) -> str | None:
    """Say what a file is that belongs to an image, or holds arrays, and what to open; None for any other file."""
    name = path.name.lower()
    if name in _ZARR_DOCUMENTS:
        return f"the metadata of a zarr; open its folder, {path.parent}"
    if name == NDTIFF_INDEX.lower():
        return f"the index of an acquisition of Micro-Manager; open its folder, {path.parent}"
    if name.endswith((".ome", ".ome.xml")):
        with path.open("rb") as file:
            head = file.read(_HEADER)
        if b"BinData" in head and b"TiffData" not in head:
            return "OME-XML that holds its pixels as text, which is not read; save it as OME-TIFF"
        named = re.search(rb'FileName="([^"<>]{1,200}\.tiff?)"', head, re.IGNORECASE)
        example = f", for example {named[1].decode('utf-8', 'replace')}" if named else ""
        return f"the companion file of a set of TIFFs, and has no pixels; open one of its TIFFs{example}"
    if path.suffix.lower() in _ARRAY_SUFFIXES:
        return "a file of arrays, of which it is not known which is the image; read it in Python and pass the array"
    if path.suffix.lower() in _TEXT_SUFFIXES:
        return "a text and no image; open the TIFF, OME-Zarr, PNG, JPEG, BMP or GIF image that it belongs to"
    return None


def _from_bioio(path: Path, image: Any, series: int | None) -> FoundImage:
    scenes = tuple(str(scene) for scene in image.scenes)
    if series is not None and not 0 <= series < len(scenes):
        raise ImageError(f"{path}: series={series} does not exist; there are {len(scenes)}: {', '.join(scenes)}")
    numbers = range(len(scenes)) if series is None else [series]
    parts = []
    for number in numbers:
        image.set_scene(number)
        parts.append(image.dask_data)
    if len({(part.shape, part.dtype) for part in parts}) > 1:
        listed = "; ".join(f"{i}: {scenes[i]!r} {part.shape}" for i, part in zip(numbers, parts, strict=True))
        raise ImageError(f"{path} holds {len(parts)} images that differ; choose one by series=0, ...: {listed}")
    size, note = pixel_size_from_sides([image.physical_pixel_sizes.Y, image.physical_pixel_sizes.X], ["µm", "µm"])
    names = tuple(str(name) for name in image.channel_names or ())
    notes = (note,) if note else ()
    positions = tuple(scenes[i] for i in numbers)
    return FoundImage(tuple(parts), str(image.dims.order), names, size, positions, notes)
