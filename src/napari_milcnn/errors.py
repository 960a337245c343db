"""The one error tree.

Every error a user can cause or mend is a `MilcnnError`, and its message says what was found, what was expected and
what to do. None is a child of `RuntimeError`: torch raises that for its own failures, and generator workers of
Qt helper libraries swallow it without a word.
"""

from __future__ import annotations


class MilcnnError(Exception):
    """Anything napari-milcnn refuses or fails to do, said in one sentence."""


class ImageError(MilcnnError):
    """An image cannot be opened, read, or understood (axes, channels, size, values)."""


class LabelsError(MilcnnError):
    """A table of image-level labels, or a label image, cannot be used."""


class ModelError(MilcnnError):
    """A model file is refused, or a model does not fit what is asked of it."""


class OptionsError(MilcnnError):
    """An option has a value that it cannot have."""


class ResumeError(OptionsError):
    """A checkpoint is that of another training: the labels, the model to start from or an option differs."""


class ComputeError(MilcnnError):
    """The device failed or ran out of memory where no smaller step was left to try."""


class OutputError(MilcnnError):
    """A result cannot be written (no space, no permission, a folder in the way)."""


class ResultsError(MilcnnError):
    """Results on disk cannot be read back: not ours, half-written, or without what is asked of them."""
