"""Results of one image, written to a folder with the same files and tables as `classify_files` writes.

Several images can be written to one folder one after another: the tables keep the rows of the other images, and the
records say how each image was classified (`results.record`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from napari_milcnn.options import EXPORTED
from napari_milcnn.results.findings import Findings
from napari_milcnn.results.write import ResultTables


def export_image(out: Path, found: Findings, parts: Collection[str] = EXPORTED) -> Iterator[Path]:
    """Write the results of an image; planes that were not classified are empty, and rows of other images stay.

    Parameters
    ----------
    out : Path
        Folder for the files.
    found : Findings
        Results of the image.
    parts : collection of str
        Parts from `EXPORTED`.

    Yields
    ------
    Path
        Each file that was written.
    """
    yield from found.write(out, parts)
    if "tables" in parts:
        tables = ResultTables(out, masks=True)
        tables.put(found.file, found.name, found.rows(), found.objects())
        yield from tables.write()
