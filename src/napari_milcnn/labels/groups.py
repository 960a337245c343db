"""Bags of a table: each image by itself, or all images of a group, such as the fields of a well.

Where a label belongs to a well, and only some of its fields show it, a field by itself may contradict its label. With
`bag="group"` a bag is a random patch of each of several fields of a group, whose instances are pooled together; the
network is validated, and its temperature fitted, on whole groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_milcnn.errors import LabelsError
from napari_milcnn.labels.table import LabelTable
from napari_milcnn.options import Bag


def images_of_bags(table: LabelTable, bag: Bag) -> list[list[int]]:
    """Return the numbers of the images of each bag, in the order of the table."""
    if bag == "image":
        return [[number] for number in range(len(table.images))]
    groups: dict[str, list[int]] = {}
    for number, image in enumerate(table.images):
        groups.setdefault(image.group, []).append(number)
    return list(groups.values())


def targets_of_bags(table: LabelTable, bags: Sequence[Sequence[int]], classes: Sequence[str]) -> np.ndarray:
    """Return 1 where any image of a bag shows a class, else 0: float32 (bags, classes)."""
    targets = table.targets(classes)
    return np.array([targets[list(numbers)].max(0) for numbers in bags], np.float32).reshape(len(bags), len(classes))


def check_groups(table: LabelTable) -> None:
    """Refuse groups that cannot be bags.

    Raises
    ------
    LabelsError
        If images have one label each and a group has images of several labels, or if no group has several images.
    """
    groups = images_of_bags(table, "group")
    if all(len(numbers) == 1 for numbers in groups):
        raise LabelsError(
            f"bags are to be groups (option bag), but each of the {len(groups)} groups of {table.source} has one "
            "image; say in a column group which images belong together, such as the fields of a well, or take bags of "
            "images"
        )
    for numbers in groups if table.single_label else ():
        labels = sorted({table.images[number].labels[0] for number in numbers})
        if len(labels) > 1:
            raise LabelsError(
                f"bags are to be groups (option bag), but group {table.images[numbers[0]].group} has images with the "
                f"labels {' and '.join(labels)}; a bag has one label: make groups smaller, such as wells in place of "
                "plates, or take bags of images"
            )
