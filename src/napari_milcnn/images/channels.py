"""Names of channels: what a file calls them, and which of them a model needs.

Decisions:

- Names are compared without regard to case, spaces, hyphens and underscores.
- A name that says no more than a number, such as "Ch1", is kept for display but does not count as a name.
- Where an image has both channels and colour samples, every channel has its samples: "GFP red", "GFP green", ...
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from napari_milcnn.errors import ImageError
from napari_milcnn.images.stack import FoundImage, ImageStack

COLOURS: Final = ("red", "green", "blue")


def match_channels(wanted: Sequence[str], image: ImageStack) -> tuple[tuple[int, ...], str | None]:
    """Find a model's channels in an image.

    Channels are found by their names. If not every name occurs but the counts are equal, the channels are taken by
    their order, unless that would contradict a name that does occur.

    Parameters
    ----------
    wanted
        Names of the channels of the model.
    image
        The image.

    Returns
    -------
    numbers
        For each wanted channel, its number in the image.
    warning
        A sentence that shows which channel was taken for which, if only their order decided; else None.

    Raises
    ------
    ImageError
        The channels do not match.
    """
    plain = [plain_name(name) for name in wanted]
    there = [plain_name(name) for name in image.channels]
    unique = all(count == 1 for count in Counter(plain).values())
    named = image.channels_named or len(plain) == len(there)
    if named and unique and all(there.count(name) == 1 for name in plain):
        return tuple(there.index(name) for name in plain), None
    crossed = any(a != b and a in there for a, b in zip(plain, there, strict=False))
    if len(plain) != len(there) or (unique and crossed):
        raise ImageError(
            f"{image.path or image.name} has the channels {', '.join(image.channels)}, but the model needs "
            f"{', '.join(wanted)}; name the image's channels in their order, with the model's names where they are "
            "the same (option channels)"
        )
    numbers = tuple(range(len(plain)))
    if len(plain) == 1 and not image.channels_named:
        return numbers, None
    mapping = ", ".join(f"{a} = {b}" for a, b in zip(wanted, image.channels, strict=True))
    return numbers, (
        f"{image.path or image.name}: the channels are taken by their order, not by name "
        f"(model = image: {mapping}); name the channels (option channels) if this is wrong."
    )


def channel_names(
    found: FoundImage, sizes: Mapping[str, int], samples: int, axes_given: bool
) -> tuple[tuple[str, ...], bool]:
    """Return one name per channel, and whether these are real names.

    Parameters
    ----------
    found
        What the reader found.
    sizes
        Length of each axis of the image on disk.
    samples
        How many colour samples are used.
    axes_given
        Whether the caller gave the axes: three samples are then taken for red, green and blue.
    """
    count = sizes.get("C", 1)
    total = count * samples
    known = found.channels if len(found.channels) in (count, total) and any(found.channels) else ()
    if "S" in sizes and samples > 1:
        colour = samples == 3 and (found.colour or axes_given)
        parts = COLOURS if colour else tuple(f"sample {i}" for i in range(samples))
        if count > 1 and len(known) == count:
            return tuple(f"{name or f'channel {i}'} {part}" for i, name in enumerate(known) for part in parts), True
        if count > 1 and colour and not known:
            return tuple(f"channel {i} {part}" for i in range(count) for part in parts), False
        if count == 1 and colour:
            return COLOURS, True
    if len(known) == total:
        return tuple(name or f"channel {i}" for i, name in enumerate(known)), any(map(_is_name, known))
    return tuple(f"channel {i}" for i in range(total)), False


def _is_name(name: str) -> bool:
    """Whether a channel name says more than a number; "0", "Ch1" and "Channel:0:1" do not."""
    return bool(name) and re.fullmatch(r"(channel|chan|ch|c)?[ _#:-]*\d+([ _:/-]\d+)*", name.casefold()) is None


def as_names(channels: Sequence[str]) -> tuple[str, ...]:
    """Return channel names as a tuple; a single text is one name."""
    return (channels,) if isinstance(channels, str) else tuple(str(name) for name in channels)


def given_names(channels: Sequence[str], count: int, name: str) -> tuple[str, ...]:
    """Check that the caller gave one name for each channel of `name`.

    Raises
    ------
    ImageError
        There are more or fewer names than channels.
    """
    names = as_names(channels)
    if len(names) != count:
        plural = "channel" if count == 1 else "channels"
        raise ImageError(
            f"{name} has {count} {plural}, but channels= names {len(names)}: {', '.join(names)}; name each"
        )
    return names


def plain_name(name: str) -> str:
    """Return a name without case, spaces, hyphens and underscores, for comparison."""
    return re.sub(r"[\s_-]", "", name.casefold())
