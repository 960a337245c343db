"""The one error tree.

Every error that a user can cause or correct is a `MilcnnError`. Its message says what was found, what was expected and
what to do. No class here derives from `RuntimeError`: torch raises that for its own failures, and the generator workers
of Qt helper libraries drop it without a message.
"""

from __future__ import annotations


class MilcnnError(Exception):
    """Something that napari-milcnn refuses or fails to do; the message explains it in a sentence."""


class ImageError(MilcnnError):
    """An image cannot be opened, read, or understood (axes, channels, size, values)."""


class LabelsError(MilcnnError):
    """A table of image-level labels, or a label image, cannot be used."""


class ModelError(MilcnnError):
    """A model file is refused, or a model does not fit the image, the labels or the request."""


class OptionsError(MilcnnError):
    """An option is unknown, or has a value that it cannot have."""


class ResumeError(OptionsError):
    """A checkpoint belongs to another training: the labels, the model to start from or an option differs."""


class ComputeError(MilcnnError):
    """The device failed, or ran out of memory when no smaller step was left to try."""


class OutputError(MilcnnError):
    """A result cannot be written (no space, no permission, or a file where a folder should be)."""


class ResultsError(MilcnnError):
    """Results on disk cannot be read: another program wrote them, or a file or column is missing."""
