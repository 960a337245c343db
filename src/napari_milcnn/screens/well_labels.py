"""Labels of the wells of opened results, written to a table of labels that a training reads.

Decisions:

- Each image of a well gets the label, as a row of its own; the well is their group, so that they stay on one side of a
  split. In a table whose images have splits, images of new wells go to `train`.
- Images that failed are left out: nothing could be learned from them.
- A label that an image has already is replaced only where that is asked for (`LabelsOfWells.in_the_way`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from napari_milcnn.errors import LabelsError
from napari_milcnn.images.instruments import well_name
from napari_milcnn.labels.labelling import Labelling, open_table
from napari_milcnn.labels.table import LabelledImage
from napari_milcnn.results.opened import WRITTEN_FILES, OpenedResults
from napari_milcnn.schema import PLATE, WELL
from napari_milcnn.screens.opened_wells import places_of_rows
from napari_milcnn.screens.outputs.crate import FILES_OF_SCREEN

LABELS: Final = "corrected_labels.csv"
"""Name of the table of labels in the folder of results.

It is not labels.csv, which is joined to results by itself: an accuracy over wells that were corrected, since the model
was wrong on them, would be no accuracy.
"""


@dataclass(frozen=True, eq=False)
class LabelsOfWells:
    """Labels of wells before they are written.

    Attributes
    ----------
    labelling : Labelling
        The table, with the images of the wells in it.
    rows : tuple of int
        The images of the wells, as rows of the labelling.
    labels : tuple of str
        What they are to get.
    failed : int
        Images of the wells that failed and are left out.
    notes : tuple of str
        Sentences on what the table cannot say of the images.
    """

    labelling: Labelling
    rows: tuple[int, ...]
    labels: tuple[str, ...]
    failed: int = 0
    notes: tuple[str, ...] = ()

    @property
    def in_the_way(self) -> dict[str, str]:
        """Images of the wells that have other labels now -> these labels."""
        images = self.labelling.images
        return {images[row].name: "|".join(images[row].labels) for row in self.rows
                if images[row].labels and set(images[row].labels) != set(self.labels)}  # fmt: skip

    def write(self) -> str:
        """Write the labels, in place of others that are in the way, and say what was done.

        Raises
        ------
        LabelsError
            If a label cannot be the name of a class, or the table cannot hold an image.
        OutputError
            If the table cannot be written.
        """
        labelling = self.labelling
        there = {one.name for one in labelling.classes}
        new = [row for row in self.rows if not labelling.images[row].labels]
        has_split = labelling.has_split
        for name in self.labels:
            if name not in there:
                labelling.add_class(name)
        labelling.label(self.rows, self.labels[0])
        for name in self.labels[1:]:
            labelling.label(self.rows, name, add=True)
        if has_split and new:
            labelling.set_split(new, "train")
        counts = ", ".join(f"{name} {count}" for name, count in labelling.counts().items() if count)
        done = f"{len(self.rows)} image{'s'[: len(self.rows) != 1]} labelled {'|'.join(self.labels)}"
        left = f" {self.failed} that failed {'is' if self.failed == 1 else 'are'} left out." if self.failed else ""
        return " ".join([f"{done} in {labelling.path}, which has now: {counts}.{left}", *self.notes])


def labels_of_wells(
    found: OpenedResults, wells: Sequence[tuple[str, str]], labels: Sequence[str], table: Path | None = None
) -> LabelsOfWells:
    """Open a table of labels and find the images of some wells in it, or add them; nothing is written yet.

    Parameters
    ----------
    found : OpenedResults
        The results.
    wells : sequence of tuple
        Plate and name of each well.
    labels : sequence of str
        One label, or several where the images show several classes.
    table : Path, optional
        The table; by default corrected_labels.csv in the folder of the results.

    Raises
    ------
    LabelsError
        If no label is given, an image is not there, a file holds several fields, or the table has problems or is one
        of the results.
    """
    names = tuple(dict.fromkeys(" ".join(name.split()) for name in labels if name.strip()))
    if not names:
        raise LabelsError("no label is given; expected the name of a class")
    table = labels_table(found) if table is None else table
    _check_is_no_result(found, table)
    images, failed = _images_of_wells(found, wells)
    labelling, rows = open_table(table, images, found.reading)
    return LabelsOfWells(labelling, rows, names, failed, tuple(_not_in_table(found, labelling)))


def label_wells(
    found: OpenedResults, wells: Sequence[tuple[str, str]], labels: Sequence[str], table: Path | None = None, *,
    replace: bool = False,
) -> str:  # fmt: skip
    """Give the images of some wells labels in a table of labels, and say what was done.

    Parameters
    ----------
    found, wells, labels, table
        As `labels_of_wells`.
    replace : bool
        Whether labels that the images have already are replaced; otherwise they are refused.

    Raises
    ------
    LabelsError
        If images have other labels already; and as `labels_of_wells` and `LabelsOfWells.write`.
    OutputError
        If the table cannot be written.
    """
    plan = labels_of_wells(found, wells, labels, table)
    other = plan.in_the_way
    if other and not replace:
        raise LabelsError(
            f"{in_the_way_in_words(plan)}; nothing was changed: replace them with replace (command line: --replace)"
        )
    return plan.write()


def in_the_way_in_words(plan: LabelsOfWells) -> str:
    """Say which images of wells have other labels."""
    other = plan.in_the_way
    name, label = next(iter(other.items()))
    count = f"{len(other)} image{'s have' if len(other) > 1 else ' has'}"
    return f"{count} another label in {plan.labelling.path}, such as {name}: {label}"


def labels_table(found: OpenedResults) -> Path:
    """Return where labels of the wells of results are written if nothing else is said.

    Raises
    ------
    LabelsError
        If the results have no folder.
    """
    if found.path is None:
        raise LabelsError("these results are not saved yet; say to which table the labels go")
    return found.path.parent / LABELS


def well_named(found: OpenedResults, well: str, plate: str | None = None) -> tuple[str, str]:
    """Return plate and name of a well of results, as their tables write them.

    Parameters
    ----------
    found : OpenedResults
        The results.
    well : str
        The well, such as B03, B3 or r02c03.
    plate : str, optional
        Its plate, where several plates have such a well.

    Raises
    ------
    LabelsError
        If no plate has it, or several do and the plate is not said.
    """
    places = places_of_rows(found)
    wells = places[places[WELL] != ""].drop_duplicates()
    own = wells[wells[WELL].isin([well, well_name(well)])]
    own = own if plate is None else own[own[PLATE] == plate]
    where = "" if plate is None else f" on the plate {plate!r}"
    if own.empty:
        known = f"the first is {' '.join(wells.iloc[0]).strip()}" if len(wells) else "no image is named by a well"
        raise LabelsError(f"there are no results of the well {well!r}{where}; {known}")
    if len(own) > 1:
        names = ", ".join(own[PLATE].head(5))
        raise LabelsError(
            f"{len(own)} plates have a well {well!r}: {names}; say which by plate (command line: --plate)"
        )
    return str(own[PLATE].iloc[0]), str(own[WELL].iloc[0])


def _check_is_no_result(found: OpenedResults, table: Path) -> None:
    """Refuse to write labels to a table of the results themselves, some of which have the columns file and label."""
    beside = found.path is not None and found.path.parent.resolve() == table.parent.resolve()
    if table.name in WRITTEN_FILES or (beside and table.stem in FILES_OF_SCREEN):
        raise LabelsError(f"{table} is a table of results; choose another one for the labels")


def _images_of_wells(found: OpenedResults, wells: Sequence[tuple[str, str]]) -> tuple[list[LabelledImage], int]:
    """Return the images of wells, in the order of the results, and the number of those that failed."""
    places = places_of_rows(found)
    wanted = set(wells)
    own = [key in wanted for key in zip(places[PLATE], places[WELL], strict=True)]
    table = found.table.assign(_plate=places[PLATE], _well=places[WELL])[own]
    failed = set(table.loc[table["error"] != "", "file"])
    rows = table[~table["file"].isin(failed)].drop_duplicates("file")
    if rows.empty:
        raise LabelsError("the wells have no image without an error; choose others")
    images = []
    for one in rows.to_dict("records"):
        path, series = found.files[str(one["file"])], _series_of(found, str(one["file"]))
        if path is None:
            raise LabelsError(f"{one['file']} was not found; put it back, or choose the folder of the images")
        group = str(one.get("group") or f"{one['_plate']} {one['_well']}".strip())
        plane = "" if series is None else _plane_of_series(found, path, series)
        images.append(LabelledImage(path, (), group, plane=plane))
    return images, len(failed)


def _series_of(found: OpenedResults, file: str) -> int | None:
    """Return the number of a field in its file; None if it is alone there."""
    recorded = found.recorded_path(file)
    return None if recorded == file else int(file.removeprefix(recorded).split()[-1])


def _plane_of_series(found: OpenedResults, path: Path, series: int) -> str:
    """Name the position of a series in a file of which all series are the positions of one image.

    Raises
    ------
    LabelsError
        If they are not: a table of labels can then not say which of them is meant.
    """
    with found.reading.open(path) as image:
        if max(place.position for place in image.planes) < series:
            raise LabelsError(
                f"{path} holds images of several sizes, and a table of labels cannot say which of them has a label; "
                "write each to a file of its own"
            )
    return f"P{series}"


def _not_in_table(found: OpenedResults, labelling: Labelling) -> list[str]:
    """Say how the images were opened that a table of labels cannot say."""
    reading = found.reading
    said: dict[str, object] = {"pixel_size": reading.pixel_size, "z": None if reading.z == "planes" else reading.z}
    if reading.channels is not None and labelling.reading.channels != reading.channels:
        said["channels"] = ",".join(reading.channels)
    options = [f"{name} {value}" for name, value in said.items() if value is not None]
    return [f"These images were opened with {', '.join(options)}: give that to the training, too."] if options else []
