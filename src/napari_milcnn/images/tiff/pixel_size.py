"""The pixel size that a TIFF states, in the metadata of the program that wrote it or in its resolution tags.

Decisions:

- What a program states in its own metadata counts before the resolution tags, which many programs fill with a default.
- A program's statement that the image is not calibrated counts too: the resolution tags are then not asked.
- The metadata of a program describe its first image, so they count for images of the same height and width only, not
  for a label or thumbnail beside it.
- A statement that is not understood is said in a sentence, and gives no size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from xml.etree import ElementTree

from napari_milcnn.images.stack import foreign_errors, reason
from napari_milcnn.images.units import (
    PLAUSIBLE,
    is_default_resolution,
    is_no_unit,
    number_or_none,
    pixel_size_from_resolution,
    pixel_size_from_sides,
    says_nothing,
    strange_resolution,
)

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries

_RESOLUTION_UNITS: Final = {2: "inch", 3: "cm", 4: "mm", 5: "µm"}
_PATTERNS: Final = (
    ((270,), r"^Aperio [^\0]*?\|\s*MPP\s*=\s*(?P<x>[^|\s]+)", "µm"),
    ((270,), r'"DICOM_PIXEL_SPACING"[^>]*>\s*(?:"|&quot;)(?P<y>[^"&]+)(?:"|&quot;)\s+(?:"|&quot;)(?P<x>[^"&]+)', "mm"),
    ((270,), r"<PixelSizeMicrons>\s*(?P<x>[^<\s]+)", "µm"),
    ((270,), r"XCalibrationMicrons=(?P<x>\S+)(?:[^\0]*?YCalibrationMicrons=(?P<y>\S+))?", "µm"),
    ((700,), r'\bScanRes="(?P<x>[^"]+)"', "µm"),
    ((65332, 65333), r'<dCalibration\b[^>]*\bvalue="(?P<x>[^"]+)"', "µm"),
    (
        (65200,),
        r"<ImageResolutionX\b[^>]*>\s*(?P<x>[^<\s]+)(?:[^\0]*?<ImageResolutionY\b[^>]*>\s*(?P<y>[^<\s]+))?",
        "m",
    ),
)
"""Tags, what to look for in their text, and the unit: Aperio, Philips, PerkinElmer, Improvision, Ventana, NIS-Elements
and Opera."""


class _Stated(NamedTuple):
    """What a program states: the sides of a pixel along Y and X, None where it says that they are not known."""

    y: object
    x: object
    unit: str
    x_unit: str | None = None

    def size(self) -> tuple[float | None, str | None]:
        """Return the size in µm, and a sentence where something is unusual."""
        return pixel_size_from_sides([self.y, self.x], [self.unit, self.x_unit or self.unit])


_NOT_CALIBRATED: Final = _Stated(None, None, "")


def tiff_pixel_size(
    tif: TiffFile, series: TiffPageSeries, every: Sequence[TiffPageSeries]
) -> tuple[float | None, list[str]]:
    """Return the pixel size of an image in µm, None where it is not known, and sentences for `warnings`."""
    notes: list[str] = []
    alike = series is every[0] or _plane_shape(series) == _plane_shape(every[0])
    for name, statement in _PROGRAMS.items() if alike else ():
        try:
            stated = statement(tif, tif.pages.first)
        except foreign_errors() as exc:
            notes.append(f"What {name} wrote about the size of a pixel cannot be read ({reason(exc)}).")
            continue
        if stated is not None:
            size, note = (None, stated) if isinstance(stated, str) else stated.size()
            return size, [*notes, *([note] if note else [])]
    size, note = _from_resolution(series.keyframe)
    return size, [*notes, *([note] if note else [])]


def _plane_shape(series: TiffPageSeries) -> tuple[int, int]:
    page = series.keyframe
    return page.imagelength, page.imagewidth


def _micro_manager(_tif: TiffFile, page: TiffPage) -> _Stated | None:
    facts = page.tags.valueof(51123)
    if not isinstance(facts, Mapping) or "PixelSizeUm" not in facts:
        return None
    return _Stated(facts["PixelSizeUm"], facts["PixelSizeUm"], "µm")


def _metamorph(tif: TiffFile, _page: TiffPage) -> _Stated | str | None:
    facts = tif.stk_metadata or {}
    if not {"XCalibration", "YCalibration"} & facts.keys():
        return None
    stated = _Stated(facts.get("YCalibration"), facts.get("XCalibration"), str(facts.get("CalibrationUnits", "")))
    return _switched_off(stated) if facts.get("SpatialCalibration") == 0 else stated


def _metaseries(_tif: TiffFile, page: TiffPage) -> _Stated | str | None:
    if not page.description.startswith("<MetaData>"):
        return None
    root = ElementTree.fromstring(page.description.rstrip("\0 \r\n"))
    facts = {str(each.get("id")): each.get("value") for each in root.iter("prop")}
    start = "spatial-calibration-"
    if not {f"{start}x", f"{start}y"} & facts.keys():
        return None
    stated = _Stated(facts.get(f"{start}y"), facts.get(f"{start}x"), facts.get(f"{start}units") or "")
    is_off = str(facts.get(f"{start}state", "on")).lower() in ("off", "0", "false")
    return _switched_off(stated) if is_off else stated


def _switched_off(stated: _Stated) -> _Stated | str:
    """Say that a size is there and does not count; nothing where it is no length either."""
    size, _ = stated.size()
    return _NOT_CALIBRATED if size is None else (
        f"The file holds a pixel size of {size:g} µm, but its calibration is switched off, so the size is not used; if "
        "it is right, give it in µm."
    )  # fmt: skip


def _zeiss_lsm(tif: TiffFile, _page: TiffPage) -> _Stated | None:
    facts = tif.lsm_metadata
    return _Stated(facts.get("VoxelSizeY"), facts.get("VoxelSizeX"), "m") if isinstance(facts, Mapping) else None


def _zeiss_sem(_tif: TiffFile, page: TiffPage) -> _Stated | None:
    facts = page.tags.valueof(34118)
    for name in ("ap_image_pixel_size", "ap_pixel_size") if isinstance(facts, Mapping) else ():
        if len(found := facts.get(name, ())) == 3:
            return _Stated(found[1], found[1], str(found[2]))
    return None


def _fei(tif: TiffFile, _page: TiffPage) -> _Stated | None:
    facts = tif.fei_metadata or {}
    for section in ("Scan", "EScan", "IScan"):
        if isinstance(found := facts.get(section), Mapping) and "PixelWidth" in found:
            return _Stated(found.get("PixelHeight"), found["PixelWidth"], "m")
    return None


def _fluoview(tif: TiffFile, _page: TiffPage) -> _Stated | None:
    dimensions = (tif.fluoview_metadata or {}).get("Dimensions", ())
    found = {str(each[0]).strip().upper(): (each[3], str(each[4])) for each in dimensions}
    if "X" not in found:
        return None
    (x, x_unit), (y, y_unit) = found["X"], found.get("Y", found["X"])
    return _Stated(y, x, y_unit, x_unit)


def _olympus_sis(tif: TiffFile, _page: TiffPage) -> _Stated | None:
    facts = tif.sis_metadata or {}
    return _Stated(facts.get("pixelsizey"), facts["pixelsizex"], "m") if facts.get("pixelsizex") else None


def _tvips(tif: TiffFile, _page: TiffPage) -> _Stated | None:
    facts = tif.tvips_metadata or {}
    return _Stated(facts.get("PixelSizeY"), facts["PixelSizeX"], "nm") if "PixelSizeX" in facts else None


def _gatan(_tif: TiffFile, page: TiffPage) -> _Stated | None:
    y, x, y_unit, x_unit = (page.tags.valueof(code) for code in (65009, 65010, 65003, 65004))
    if not all(isinstance(each, float) for each in (y, x)) or not all(
        isinstance(each, str) for each in (y_unit, x_unit)
    ):
        return None
    return _Stated(y, x, str(y_unit), str(x_unit))


def _nih_image(tif: TiffFile, _page: TiffPage) -> _Stated | None:
    facts = tif.nih_metadata or {}
    scale, unit = number_or_none(facts.get("XScale")), facts.get("XUnit") or facts.get("UM") or ""
    unit = unit.decode("latin-1") if isinstance(unit, bytes) else str(unit)
    return None if not scale or is_no_unit(unit) else _Stated(1 / scale, 1 / scale, unit)


def _scanimage(tif: TiffFile, _page: TiffPage) -> _Stated | None:
    facts = (tif.scanimage_metadata or {}).get("FrameData") or {}
    corners = facts.get("SI.hRoiManager.imagingFovUm")
    width, height = facts.get("SI.hRoiManager.pixelsPerLine"), facts.get("SI.hRoiManager.linesPerFrame")
    if not corners or not width or not height or facts.get("SI.hRoiManager.mroiEnable"):
        return None
    sides = [max(each) - min(each) for each in zip(*corners, strict=True)]
    return _Stated(sides[1] / height, sides[0] / width, "µm")


def _leica_scn(tif: TiffFile, page: TiffPage) -> _Stated | None:
    if not tif.is_scn:
        return None
    for image in ElementTree.fromstring(page.description).iter():
        if not image.tag.endswith("}image"):
            continue
        view, sizes = image.find("{*}view"), image.findall("{*}pixels/{*}dimension")
        if view is not None and any(size.get("ifd") == "0" for size in sizes):
            wide = max(sizes, key=lambda size: int(size.get("sizeX", 0)))
            y, x = (int(view.get(side, 0)) / int(wide.get(side, 1)) for side in ("sizeY", "sizeX"))
            return _Stated(y, x, "nm")
    return None


def _slide_scanners(_tif: TiffFile, page: TiffPage) -> _Stated | None:
    for tags, pattern, unit in _PATTERNS:
        text = "\n".join(_text(page.tags.valueof(tag)) for tag in tags)
        if found := re.search(pattern, text):
            sides = found.groupdict()
            return _Stated(sides.get("y") or sides["x"], sides["x"], unit)
    return None


def _text(value: object) -> str:
    return value.replace(b"\0", b"").decode("latin-1") if isinstance(value, bytes) else str(value or "")


def _imagej(tif: TiffFile, page: TiffPage) -> _Stated | str | None:
    """ImageJ writes pixels per unit into the resolution tags, and the unit into its description.

    Micro-Manager and others write pixels per centimetre into the tags, say so there, and name another unit in the
    description; so the unit of the tags counts where it alone gives a plausible size.
    """
    facts = tif.imagej_metadata or {}
    if "unit" not in facts:
        return None
    unit = str(facts["unit"])
    y, x = (_per_unit(page, code) for code in (283, 282))
    if is_no_unit(unit) or says_nothing([y, x], unit):
        return _NOT_CALIBRATED
    own = _Stated(y and 1 / y, x and 1 / x, str(facts.get("yunit", unit)), unit)
    of_tags = _RESOLUTION_UNITS.get(page.tags.valueof(296))
    if of_tags and not _is_plausible(own) and _is_plausible(other := _Stated(own.y, own.x, of_tags)):
        return other
    return strange_resolution([y, x], unit) or own


def _is_plausible(stated: _Stated) -> bool:
    size = stated.size()[0]
    return size is not None and PLAUSIBLE[0] < size < PLAUSIBLE[1]


_PROGRAMS: Final[Mapping[str, Callable[[Any, Any], _Stated | str | None]]] = {
    "Micro-Manager": _micro_manager, "MetaMorph": _metamorph, "MetaSeries": _metaseries, "Zeiss LSM": _zeiss_lsm,
    "Zeiss SEM": _zeiss_sem, "FEI": _fei, "FluoView": _fluoview, "Olympus": _olympus_sis, "TVIPS": _tvips,
    "Gatan": _gatan, "NIH Image": _nih_image, "ScanImage": _scanimage, "Leica": _leica_scn,
    "the scanner": _slide_scanners, "ImageJ": _imagej,
}  # fmt: skip


def _from_resolution(page: TiffPage) -> tuple[float | None, str | None]:
    """Return the size that the resolution tags give, and a sentence if they give one that is not understood."""
    per_unit = [_per_unit(page, code) for code in (283, 282)]
    unit = _RESOLUTION_UNITS.get(page.tags.valueof(296))
    if unit is None:
        known = [each for each in per_unit if each]
        return None, None if is_default_resolution(known) else _without_unit(known[-1])
    return pixel_size_from_resolution(per_unit, unit)


def _without_unit(per_unit: float) -> str:
    return (
        f"The file gives a resolution of {per_unit:g} pixels per unit of length, but not the unit; if you know the "
        "pixel size, give it in µm."
    )


def _per_unit(page: TiffPage, code: int) -> float | None:
    """Return pixels per unit from a tag, which is a rational (numerator, denominator); None if unknown or 0."""
    value = page.tags.valueof(code)
    if isinstance(value, tuple) and len(value) == 2:
        value = value[0] / value[1] if all(value) else None
    number = number_or_none(value)
    return number if number and number > 0 else None
