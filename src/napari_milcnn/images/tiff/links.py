"""The links from page to page of a TIFF, which tifffile would follow in a circle for ever."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

from napari_milcnn.errors import ImageError

if TYPE_CHECKING:
    from tifffile import TiffFile


def check_links(path: Path, tif: TiffFile) -> None:
    """Check that the pages do not lead back to an earlier page; a link that leads out of the file ends them.

    Raises
    ------
    ImageError
        If they do.
    """
    kind, file = tif.tiff, tif.filehandle
    file.seek(8 if kind.version == 43 else 4)  # the place of the first page; 43 is BigTIFF
    seen: set[int] = set()
    try:
        (here,) = struct.unpack(kind.offsetformat, file.read(kind.offsetsize))
        while here and here not in seen:
            seen.add(here)
            file.seek(here)
            (tags,) = struct.unpack(kind.tagnoformat, file.read(kind.tagnosize))
            file.seek(tags * kind.tagsize, 1)
            (here,) = struct.unpack(kind.offsetformat, file.read(kind.offsetsize))
    except (struct.error, OSError, OverflowError, ValueError):
        return  # what is missing is found where it is read
    if here:
        raise ImageError(f"{path} is damaged: after {len(seen)} pages it leads back to an earlier one; copy it again")
