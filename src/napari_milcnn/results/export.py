"""The results of one image written to a folder, in the form that `classify_files` gives them.

Several images go to one folder one after another: the tables keep the rows of the others, and the records tell how each
was made (`results.record`). An image whose name or file is that of another image there has a folder of its own inside.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from napari_milcnn.options import EXPORTED
from napari_milcnn.results.findings import Findings
from napari_milcnn.results.write import ResultTables


def export_image(out: Path, found: Findings, parts: Collection[str] = EXPORTED) -> Iterator[Path]:
    """Write what was found in an image; planes that were not classified are empty, rows of other images are kept.

    Parameters
    ----------
    out : Path
        Folder.
    found : Findings
        What was found.
    parts : collection of str
        Out of `EXPORTED`.

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
