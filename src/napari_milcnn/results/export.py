"""Results of one image, written to a folder with the same files, tables and record as `classify_files` writes.

Several images can be written to one folder one after another: the tables keep the rows of the other images, and the
records say how each image was classified (`results.record`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from napari_milcnn.options import EXPORTED
from napari_milcnn.output_lock import locked_folder
from napari_milcnn.results.findings import Findings
from napari_milcnn.results.record import image_facts, write_record
from napari_milcnn.results.unfinished import DoneImage, RunInProgress, check_tables, fingerprint, settle


def export_image(
    out: Path, found: Findings, record: Mapping[str, object], parts: Collection[str] = EXPORTED
) -> Iterator[Path]:
    """Write the results of an image; planes that were not classified are empty, and rows of other images stay.

    Parameters
    ----------
    out : Path
        Folder for the files.
    found : Findings
        Results of the image.
    record : mapping
        The record of this image alone, from `classification_record`.
    parts : collection of str
        Parts from `EXPORTED`.

    Yields
    ------
    Path
        Each file that was written; run.json, or the record of other images that this one was added to, comes last.

    Raises
    ------
    OutputError
        If the folder cannot be written, or another run writes to it.
    """
    with locked_folder(out):
        settle(out)
        check_tables(out)
        written = []
        for path in found.write(out, parts):
            written.append(path)
            yield path
        rows, objects = found.rows(), found.objects()
        path = found.image.path or Path(found.file)
        shown = int(objects["shown"].sum())
        facts = image_facts(path.absolute(), found.name, found.prediction, shown, written)
        if found.image.path is not None:
            facts |= {"sha256": fingerprint(path)}
        record = {**record, "images": [facts], "unfinished": [], "finished": True}
        if "tables" not in parts:
            yield write_record(out, record, done={found.name: True}, merge=True)
            return
        progress = RunInProgress(out, {**record, "images": []}, [found.file], masks=True)
        done = DoneImage(name=found.name, file=found.file, rows=len(rows), objects=len(objects), classified=True,
                         image=facts)  # fmt: skip
        progress.add(done, rows, objects)
        home = progress.end()
        yield from (out / "predictions.csv", out / "objects.csv", home)
