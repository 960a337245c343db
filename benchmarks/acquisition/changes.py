"""What another microscope, camera or file format does to the same field: each change as a function of an image.

A field is an image (Y, X) of 8 bits, as `compose_fields.py` writes it. A change returns an image (Y, X) of any type.
Where the result is of 8 bits it is rounded and clipped to 0 to 255, as a camera saturates: at gain x2 what is brighter
than 127 is lost, and this is meant. Gain multiplies everything, the background included. All random numbers come from
the generator that is given, so that the same field changes in the same way in every run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.transform import rescale

Image: TypeAlias = NDArray[np.generic]
Change: TypeAlias = Callable[[Image, np.random.Generator], Image]


def camera(values: NDArray[np.floating]) -> Image:
    """Round values (Y, X) and clip them to 8 bits."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def none(image: Image, _rng: np.random.Generator) -> Image:
    """Leave the image as it is."""
    return image


def gain(image: Image, _rng: np.random.Generator, factor: float) -> Image:
    """Multiply the intensities: another exposure, lamp or camera gain."""
    return camera(image.astype(np.float32) * factor)


def offset(image: Image, _rng: np.random.Generator, grey_levels: float) -> Image:
    """Add grey levels: another background or camera offset; negative ones clip at 0."""
    return camera(image.astype(np.float32) + grey_levels)


def noise(image: Image, rng: np.random.Generator, sigma: float) -> Image:
    """Add Gaussian noise of a standard deviation in grey levels."""
    return camera(image + rng.normal(0, sigma, image.shape))


def blur(image: Image, _rng: np.random.Generator, sigma: float) -> Image:
    """Blur with a Gaussian of a standard deviation in px: another objective, or out of focus."""
    return camera(gaussian_filter(image.astype(np.float32), sigma))


def size(image: Image, _rng: np.random.Generator, factor: float) -> Image:
    """Make the whole field larger or smaller, without a pixel size that says so; shrinking is anti-aliased."""
    resized = rescale(image.astype(np.float32), factor, order=1, anti_aliasing=factor < 1)
    return camera(resized)


def uneven(image: Image, _rng: np.random.Generator, corners: float) -> Image:
    """Let the light fall off from 1 at the centre to `corners`, with the square of the distance."""
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in image.shape)
    return camera(image * (1 - (1 - corners) * (y[:, None] ** 2 + x[None, :] ** 2) / 2))


def sixteen_bit(image: Image, _rng: np.random.Generator) -> Image:
    """Write the same pixels with 16 bits, times 257."""
    return image.astype(np.uint16) * np.uint16(257)


def twelve_bit(image: Image, _rng: np.random.Generator) -> Image:
    """Write the same pixels with the 12 bits of many cameras, 0 to 4095."""
    return np.rint(image.astype(np.float32) * (4095 / 255)).astype(np.uint16)


def unit_float(image: Image, _rng: np.random.Generator) -> Image:
    """Write the same pixels as float32 from 0 to 1."""
    return image.astype(np.float32) / np.float32(255)


def chain(image: Image, rng: np.random.Generator, steps: tuple[Change, ...]) -> Image:
    """Apply several changes, one after the other."""
    return reduce(lambda changed, step: step(changed, rng), steps, image)


def _both(*steps: Change) -> Change:
    return partial(chain, steps=steps)


SINGLE: dict[str, Change] = {
    "none": none,
    "gain x0.5": partial(gain, factor=0.5),
    "gain x2": partial(gain, factor=2.0),
    "+10 grey levels": partial(offset, grey_levels=10),
    "+20 grey levels": partial(offset, grey_levels=20),
    "darker background, -6 grey levels": partial(offset, grey_levels=-6),
    "light falls to 0.6 in the corners": partial(uneven, corners=0.6),
    "16 bit (x257)": sixteen_bit,
    "12 bit": twelve_bit,
    "float 0-1": unit_float,
    "noise, sigma 5": partial(noise, sigma=5.0),
    "noise, sigma 10": partial(noise, sigma=10.0),
    "blur, sigma 0.7 px": partial(blur, sigma=0.7),
    "blur, sigma 1 px": partial(blur, sigma=1.0),
    "size x0.8": partial(size, factor=0.8),
    "size x1.25": partial(size, factor=1.25),
}  # fmt: skip
"""The changes of one thing at a time."""
PAIRS: dict[str, Change] = {
    "gain x0.5, then noise, sigma 5": _both(SINGLE["gain x0.5"], SINGLE["noise, sigma 5"]),
    "+20 grey levels, then 16 bit": _both(SINGLE["+20 grey levels"], sixteen_bit),
    "blur, sigma 0.7 px, then noise, sigma 5": _both(SINGLE["blur, sigma 0.7 px"], SINGLE["noise, sigma 5"]),
    "size x0.8, then gain x2": _both(SINGLE["size x0.8"], SINGLE["gain x2"]),
}
"""Two changes at once, as a real change of microscope has them."""
SIZES: dict[str, Change] = {f"size x{factor:g}": partial(size, factor=factor) for factor in (0.5, 0.65, 1.5, 2.0)}
"""Another magnification than most training patches are shown at."""
CHANGES: dict[str, Change] = SINGLE | PAIRS | SIZES


def changed(image: Image, name: str, number: int) -> Image:
    """Apply the change of a name to the field of a number; the number seeds its random numbers."""
    return CHANGES[name](image, np.random.default_rng([number, list(CHANGES).index(name)]))
