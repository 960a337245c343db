"""How the plates of a simulated screen were taken: what differs between them although the biology does not.

Decisions:

- What varies is what varies between real plates and microscopes: the exposure of each channel, the light of the medium
  and the camera's dark counts, read noise, focus, size, how uneven the light is, and how the file stores the counts.
- A plate is one draw from the seed of the screen and the number of the plate, so that a plate does not depend on how
  many others there are.
- The pixel size in the files of a plate is the true one. A model that matches pixel sizes undoes the difference in
  size, and one that does not meets it.
- The neutral acquisition changes nothing: a field that is taken with it is the same, byte for byte, as one without.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.transform import resize

from napari_milcnn.simulation.cell import CHANNELS, PIXEL_SIZE, Floats
from napari_milcnn.simulation.options import SimulationOptions

Storage: TypeAlias = Literal["counts", "eighth", "stretched"]
"""`counts`: uint16, as the camera counts. `eighth`: uint8, an eighth of them. `stretched`: uint16, 16 times as much."""
_OTHER_STORAGE: tuple[Storage, ...] = ("eighth", "stretched")
_STORED: dict[Storage, tuple[float, type[np.uint8 | np.uint16]]] = {
    "counts": (1.0, np.uint16), "eighth": (1 / 8, np.uint8), "stretched": (16.0, np.uint16),
}  # fmt: skip


@dataclass(frozen=True)
class Acquisition:
    """How one plate was taken, as factors on the options of the screen where nothing else is said.

    Attributes
    ----------
    gfp_exposure, rfp_exposure : float
        Factor on all light of the channel.
    background : float
        Factor on the light of the medium.
    offset : float
        Factor on the counts of the camera in the dark.
    read_noise : float
        Factor on the read noise.
    defocus : float
        Blur of the whole field beside the focal plane, sd in µm.
    magnification : float
        Size of a cell in pixels, relative to pixels of 0.16 µm.
    vignetting : float
        Factor on the loss of light towards the corners.
    storage : {"counts", "eighth", "stretched"}
        How the file stores the counts; see `Storage`.
    """

    gfp_exposure: float = 1.0
    rfp_exposure: float = 1.0
    background: float = 1.0
    offset: float = 1.0
    read_noise: float = 1.0
    defocus: float = 0.0
    magnification: float = 1.0
    vignetting: float = 1.0
    storage: Storage = "counts"

    @property
    def pixel_size(self) -> float:
        """Side of a pixel in µm."""
        return PIXEL_SIZE / self.magnification

    def row(self) -> dict[str, float | str]:
        """Return the facts of the plate as a row of truth/plates.csv."""
        return {**asdict(self), "pixel_size": self.pixel_size}


NEUTRAL = Acquisition()


def draw_acquisition(options: SimulationOptions, rng: np.random.Generator) -> Acquisition:
    """Draw how a plate was taken, within the spreads of the options that begin with `plate_`."""
    stored = rng.uniform() < options.plate_storage
    return Acquisition(
        gfp_exposure=rng.lognormal(0, options.plate_exposure),
        rfp_exposure=rng.lognormal(0, options.plate_exposure),
        background=rng.lognormal(0, options.plate_background),
        offset=rng.lognormal(0, options.plate_background / 2),
        read_noise=rng.lognormal(0, options.plate_noise),
        defocus=rng.uniform(0, options.plate_defocus),
        magnification=float(np.exp(rng.uniform(-1, 1) * np.log1p(options.plate_size))),
        vignetting=rng.uniform(1 - options.plate_vignetting, 1 + options.plate_vignetting),
        storage=_OTHER_STORAGE[int(rng.integers(len(_OTHER_STORAGE)))] if stored else "counts",
    )


def drawn_at_usual_size(options: SimulationOptions, acquisition: Acquisition) -> SimulationOptions:
    """Return the options of the part of the plate that the camera sees, in pixels of the usual size.

    A larger magnification sees a smaller part, with fewer cells.
    """
    if acquisition.magnification == 1:
        return options
    height, width = (max(1, round(side / acquisition.magnification)) for side in options.size)
    area = acquisition.magnification**2
    cells = tuple(max(1, round(count / area)) for count in options.cells)
    return options.model_copy(update={"size": (height, width), "cells": cells})


def taken(
    light: Floats, illumination: Floats, acquisition: Acquisition, options: SimulationOptions,
    rng: np.random.Generator,
) -> NDArray[np.uint8 | np.uint16]:  # fmt: skip
    """Take an image with shot and read noise.

    Parameters
    ----------
    light : ndarray
        Photons (C, Y, X) that reach the camera from an evenly lit field, in pixels of the usual size.
    illumination : ndarray
        Relative illumination (Y, X), of the size of the light.

    Returns
    -------
    ndarray
        (C, Y, X) of `options.size`, uint8 or uint16, as the plate is stored.
    """
    exposure = np.array([acquisition.gfp_exposure, acquisition.rfp_exposure], np.float32)
    seen = light * illumination * exposure[:, None, None]
    if acquisition.defocus > 0:
        sigma = acquisition.defocus / PIXEL_SIZE
        seen = gaussian_filter(seen, (0, sigma, sigma))
    if acquisition.magnification != 1:  # the light of a field spreads over more pixels: photons a pixel are kept
        seen = resize(seen, (len(CHANNELS), *options.size), order=1, anti_aliasing=acquisition.magnification < 1)
    photons = rng.poisson(seen)
    dark = options.offset * acquisition.offset
    counts = options.gain * photons + dark + rng.normal(0, options.read_noise * acquisition.read_noise, photons.shape)
    factor, dtype = _STORED[acquisition.storage]
    stored: NDArray[np.uint8 | np.uint16] = (counts * factor).round().clip(0, np.iinfo(dtype).max).astype(dtype)
    return stored


def resized_labels(
    labels: NDArray[np.uint16], acquisition: Acquisition, options: SimulationOptions
) -> NDArray[np.uint16]:
    """Return a label image (Y, X) in the pixels of the plate."""
    if acquisition.magnification == 1:
        return labels
    resized: NDArray[np.uint16] = resize(labels, options.size, order=0, preserve_range=True, anti_aliasing=False)
    return resized.astype(np.uint16)
