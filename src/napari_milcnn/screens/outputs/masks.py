"""The masks of a screen, as OME-Zarr label images: beside the tables of their well, or inside the OME-Zarr plate.

Beside is the default: the source is left as it is. A part of a screen is written whole or not at all, and so are the
masks in it. Inside the plate they are the labels `milcnn` of each field, in the version of the plate, with the colours
of their classes and a table of the objects; other labels of the plate stay. They are written before the part, so that a
run that was killed writes them again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from napari_milcnn.errors import OptionsError
from napari_milcnn.images.stack import ImageStack
from napari_milcnn.images.write import labels_version, write_labels_into
from napari_milcnn.inference.masks import PlaneMasks
from napari_milcnn.options import MasksAs, MasksGo
from napari_milcnn.results.write import image_files, labels_of_masks, write_labels, write_labels_zarr

LABELS_IN_PLATE: Final = "milcnn"
"""Name of the labels of a field in an OME-Zarr plate."""


@dataclass(frozen=True, eq=False)
class FieldMasks:
    """The masks of one field.

    Attributes
    ----------
    image : ImageStack
        The image; it may be closed, since only its axes are looked at.
    classes : tuple of str
        The classes of the model.
    masks : mapping
        Masks by number of the plane.
    """

    image: ImageStack
    classes: Sequence[str]
    masks: Mapping[int, PlaneMasks]

    def write(self, where: MasksGo, folder: Path, field: Path, name: str) -> None:
        """Write the masks.

        Parameters
        ----------
        where : str
            As `ScreenOptions.masks` says.
        folder : Path
            The folder of the part, for masks beside it.
        field : Path
            The OME-Zarr image, for masks inside it.
        name : str
            With which the file begins. An image of several positions, for which OME-Zarr has no axis, gets an OME-TIFF.

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        if where == "inside":
            write_labels_into(field, labels_of_masks(LABELS_IN_PLATE, self.image, self.classes, self.masks))
            return
        form: MasksAs = "tiff" if "P" in self.image.axes else "zarr"
        path = image_files(folder, name, form).labels
        assert path is not None
        (write_labels if form == "tiff" else write_labels_zarr)(path, self.image, self.classes, self.masks)


def check_takes_masks(files: Sequence[str]) -> None:
    """Refuse to write masks into images that take no labels, before the first one is classified.

    Raises
    ------
    OptionsError
        Naming the first of them.
    """
    for file in files:
        path = Path(file)
        if labels_version(path) is None:
            raise OptionsError(
                f"masks cannot be written into {file}: expected the fields of an OME-Zarr plate of version 0.4 or 0.5 "
                "in a folder; choose masks=beside (command line: --masks beside)"
            )
        if not os.access(path, os.W_OK):
            raise OptionsError(f"masks cannot be written into {file}, which is read-only; choose masks=beside "
                               "(command line: --masks beside), or ask for the permission to write there")  # fmt: skip
