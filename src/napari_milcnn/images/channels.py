"""Names of channels: what a file calls them, and which of them a model needs.

Decisions:

- A channel of a model is found by its name. Names are compared without regard to case, spaces, hyphens and underscores.
- Two names of one stain or protein (`SYNONYMS`) stand for each other where only one channel can be meant; a sentence
  says so. No other name stands for another.
- What the names do not say is asked for, never taken by the order of the channels. Two things are certain all the same:
  the only channel of an image without names is the only channel of a model, and an array in Python, which cannot have
  names, is taken to have the model's channels in the model's order; a sentence says so.
- A name that says no more than a number, such as "Ch1", is kept for display but does not count as a name.
- A colour picture has no channels of a microscope: which of red, green and blue, or their mean, is meant is asked for.
- Where an image has both channels and colour samples, every channel has its samples: "GFP red", "GFP green", ...
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from napari_milcnn.errors import ImageError
from napari_milcnn.images.stack import FoundImage, ImageStack

COLOURS: Final = ("red", "green", "blue")
GREY: Final = ("grey", "gray")
"""What stands for the mean of red, green and blue of a colour picture where channels are named: DNA=grey."""
SYNONYMS: Final = (
    frozenset({"dna", "dapi", "hoechst", "hoechst33342", "hoechst33258", "hoechst3342"}),
    frozenset({"gfp", "egfp"}),
    frozenset({"rfp", "mrfp"}),
    frozenset({"brightfield", "bf"}),
    frozenset({"phase", "phasecontrast"}),
)
"""Plain names of one and the same stain, protein or contrast."""


@dataclass(frozen=True)
class ChannelMatch:
    """Which channels of an image are those of a model.

    Attributes
    ----------
    numbers : tuple
        For each channel of the model, its number in the image; None where it is not known.
    note : str
        A sentence about what was taken for what, where no name says it outright; empty if nothing has to be said.
    question : str
        What is not known, and has to be asked for; empty if everything is known.
    """

    numbers: tuple[int | None, ...]
    note: str = ""
    question: str = ""


def find_channels(
    wanted: Sequence[str], there: Sequence[str], *, named: bool, picture: bool = False, array: bool = False
) -> ChannelMatch:
    """Find the channels of a model among those of an image.

    Parameters
    ----------
    wanted
        Names of the channels of the model.
    there
        Names of the channels of the image.
    named
        Whether these are real names rather than numbers.
    picture
        Whether the image is a colour picture.
    array
        Whether it is an array in Python without names, whose order is then that of the model.
    """
    plain, found = [plain_name(name) for name in wanted], [plain_name(name) for name in there]
    if plain == found:
        return ChannelMatch(tuple(range(len(found))))
    if not named and len(found) == len(plain) and (array or len(found) == 1):
        pairs = ", ".join(f"{a} = {b}" for a, b in zip(wanted, there, strict=True))
        order = f"the channels are taken by their order, as they have no names (model = image: {pairs}); name the "
        return ChannelMatch(tuple(range(len(found))), "" if len(found) == 1 else f"{order}channels if this is wrong")
    by_name = named or len(found) == len(plain)
    numbers = [_only(name, plain, found) if by_name else None for name in plain]
    alike = [_synonym(name, found, numbers) if n is None else n for name, n in zip(plain, numbers, strict=True)]
    taken = [
        f"{there[i]} was taken for {name}"
        for name, number, i in zip(wanted, numbers, alike, strict=True)
        if number is None and i is not None
    ]
    note = f"the channel {' and '.join(taken)}: both are names of one stain, protein or contrast" if taken else ""
    return ChannelMatch(tuple(alike), note, _question(wanted, there, alike, named, picture))


def _only(name: str, wanted: Sequence[str], there: Sequence[str]) -> int | None:
    """Return the number of the one channel of a name; None where there is none, or several on either side."""
    return there.index(name) if there.count(name) == 1 and wanted.count(name) == 1 else None


def _synonym(name: str, there: Sequence[str], taken: Sequence[int | None]) -> int | None:
    """Return the number of the one channel, not taken by its own name, that is called by a synonym of a name."""
    alike = next((names for names in SYNONYMS if name in names), frozenset())
    found = [i for i, one in enumerate(there) if one in alike and one != name and i not in taken]
    return found[0] if len(found) == 1 and name not in there else None


def _question(
    wanted: Sequence[str], there: Sequence[str], numbers: Sequence[int | None], named: bool, picture: bool
) -> str:
    """Say which channels of the model are not known; empty if all are."""
    unknown = [name for name, number in zip(wanted, numbers, strict=True) if number is None]
    if not unknown:
        return ""
    needs = f"has the channels {', '.join(there)}, but the model needs {', '.join(wanted)}"
    if picture:
        return (
            f"is a colour picture with the channels {', '.join(there)}, but the model needs {', '.join(wanted)}; which "
            f"of red, green and blue, or grey (their mean), is {_either(unknown)} is not known"
        )
    if len(there) < len(wanted):
        return f"{needs}; {', '.join(unknown)} {'is' if len(unknown) == 1 else 'are'} missing"
    why = "" if named else "; the channels have no names"
    return f"{needs}{why}; which of them is {_either(unknown)} is not known"


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]


def match_channels(wanted: Sequence[str], image: ImageStack) -> tuple[tuple[int, ...], str | None]:
    """Find a model's channels in an image.

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
        A sentence about what was taken for what, where no name says it outright; else None.

    Raises
    ------
    ImageError
        Which channel of the image is which of the model is not known.
    """
    found = find_channels(
        wanted, image.channels, named=image.channels_named, picture=image.is_picture, array=image.path is None
    )
    name = str(image.path or image.name)
    numbers = tuple(number for number in found.numbers if number is not None)
    if len(numbers) < len(wanted):
        raise ImageError(f"{name} {found.question}; {_way_out(wanted, image, found)}")
    return numbers, f"{name}: {found.note}" if found.note else None


def _way_out(wanted: Sequence[str], image: ImageStack, found: ChannelMatch) -> str:
    """Say how the channels of an image are named."""
    if len(image.channels) < len(wanted):
        return "open the file that has all channels, or give one file per channel (option pattern)"
    left = [name for i, name in enumerate(image.channels) if i not in found.numbers]
    example = f"{wanted[found.numbers.index(None)]}={GREY[0] if image.is_picture else left[0]}"
    order = "" if image.is_picture else "name the channels in their order, or "
    return f"{order}say which is which, such as {example} (option channels)"


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
    return bool(name) and re.fullmatch(r"(channel|chan|ch|c|w|d)?[ _#:-]*\d+([ _:/-]\d+)*", name.casefold()) is None


def as_names(channels: Sequence[str]) -> tuple[str, ...]:
    """Return channel names as a tuple; a single text is one name."""
    return (channels,) if isinstance(channels, str) else tuple(str(name) for name in channels)


def given_names(channels: Sequence[str], found: Sequence[str], name: str) -> tuple[str, ...]:
    """Return the names of the channels of an image as the caller gave them.

    Parameters
    ----------
    channels
        One name for each channel in their order, or texts such as "DNA=DAPI": the channel DAPI is called DNA, and those
        that are not mentioned keep their names.
    found
        The names in the image.
    name
        The image, for messages.

    Raises
    ------
    ImageError
        There are more or fewer names than channels, or a channel is not there or is mentioned twice.
    """
    names = as_names(channels)
    if is_mapping(names):
        return _renamed(names, found, name)
    if len(names) != len(found):
        plural = "channel" if len(found) == 1 else "channels"
        raise ImageError(
            f"{name} has {len(found)} {plural}, but channels= names {len(names)}: {', '.join(names)}; name each of "
            f"{', '.join(found)}, or say which is which, such as {names[0] if names else 'GFP'}={found[-1]}"
        )
    return names


def is_mapping(channels: Sequence[str]) -> bool:
    """Whether all of some names of channels are texts such as "DNA=DAPI"."""
    return bool(channels) and all(re.fullmatch(r"[^=]+=[^=]+", name) for name in channels)


def is_grey(channels: Sequence[str]) -> bool:
    """Whether the names of channels ask for the mean of red, green and blue: "DNA=grey"."""
    return len(channels) == 1 and is_mapping(channels) and channels[0].partition("=")[2].strip().casefold() in GREY


def _renamed(pairs: Sequence[str], found: Sequence[str], name: str) -> tuple[str, ...]:
    """Return the names of an image after texts "NEW=OLD"; a channel that has a new name already becomes "(other)"."""
    plain, new = [plain_name(one) for one in found], {}
    for wanted, _, old in (pair.partition("=") for pair in pairs):
        at = [i for i, one in enumerate(plain) if one == plain_name(old)]
        if len(at) != 1 or at[0] in new:
            raise ImageError(
                f"channels= names {wanted.strip()}={old.strip()}, but {name} has the channels {', '.join(found)}; name "
                "one of them, each once"
            )
        new[at[0]] = wanted.strip()
    taken = {plain_name(one) for one in new.values()}
    return tuple(new.get(i, f"{one} (other)" if plain_name(one) in taken else one) for i, one in enumerate(found))


def plain_name(name: str) -> str:
    """Return a name without case, spaces, hyphens and underscores, for comparison."""
    return re.sub(r"[\s_-]", "", name.casefold())
