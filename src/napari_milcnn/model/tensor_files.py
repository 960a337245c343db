"""Read what `torch.save` wrote: tensors and plain values, without running anything in the file.

`torch.load(weights_only=True)` runs no code, but it unpacks whatever is packed and builds whatever is described. What
torch itself writes is never packed, so a file that is packed is refused: otherwise a megabyte could become a gigabyte.
So is the format of before torch 1.6, which states sizes that nothing checks. No file of ours has it.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import torch

from napari_milcnn.untrusted import check_regular

_LARGEST_PICKLE = 16 << 20
"""Bytes of the part that describes the tensors."""
_MOST_PARTS = 65_000


def read_tensors(source: Path | bytes, most: int) -> object:
    """Read a file of tensors and plain values.

    Parameters
    ----------
    source : Path or bytes
        The file, or its content.
    most : int
        Largest size of the file in bytes.

    Raises
    ------
    OSError
        If it cannot be read, is larger, or is a pipe or a device.
    ValueError
        If it is damaged, packed, or holds anything but tensors and plain values.
    """
    if isinstance(source, Path):
        check_regular(source, most)
    try:
        _check_parts(source if isinstance(source, Path) else io.BytesIO(source))
        file = str(source) if isinstance(source, Path) else io.BytesIO(source)
        found: object = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        if error.errno is not None:  # of the disk, not of the bytes
            raise
        raise ValueError(str(error)) from error
    except MemoryError as error:
        raise ValueError("it does not fit into memory") from error
    except Exception as error:  # bytes made to deceive draw any error out of torch's reader
        raise ValueError(f"{type(error).__name__}: {str(error).split('.')[0][:200]}") from error
    return found


def _check_parts(file: Path | io.BytesIO) -> None:
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        if len(parts) > _MOST_PARTS:
            raise ValueError(f"it has {len(parts)} parts")
        if any(part.compress_type != zipfile.ZIP_STORED or part.file_size != part.compress_size for part in parts):
            raise ValueError("its parts are packed, which torch never does")
        for part in parts:
            if part.filename.endswith("data.pkl"):
                if part.file_size > _LARGEST_PICKLE:
                    raise ValueError("the part that describes its tensors is too large")
                if b"bytearray" in archive.read(part):  # torch makes one of any length that the file names
                    raise ValueError("it holds other things than tensors and plain values")
