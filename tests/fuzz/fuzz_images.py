"""Images made to hurt: TIFF tag by tag, OME-XML, PNG chunk by chunk, zarr arrays with their chunks."""

from __future__ import annotations

import gzip
import struct
import zlib
from typing import Any

from fuzz_parts import NUMBERS, TEXTS, Case, Files, changed, damaged, json_files, rarely
from hypothesis import strategies as st

_TYPES = {1: ("B", 1), 2: ("s", 1), 3: ("H", 2), 4: ("I", 4), 6: ("b", 1), 7: ("B", 1), 8: ("h", 2), 9: ("i", 4),
          11: ("f", 4), 12: ("d", 8), 16: ("Q", 8), 17: ("q", 8)}  # fmt: skip
_SIDES = rarely(st.sampled_from([0, 1, 65535, 65536, 2**20, 2**31 - 1, 2**32 - 1]), st.integers(1, 40))
_TAGS = st.sampled_from([
    254, 256, 257, 258, 259, 262, 266, 269, 270, 272, 273, 274, 277, 278, 279, 282, 283, 284, 296, 305, 306, 317, 320,
    322, 323, 324, 325, 330, 338, 339, 347, 529, 530, 532, 33628, 33629, 33630, 33631, 34118, 34361, 34362, 34412,
    34665, 34735, 37706, 37707, 37710, 39680, 42112, 42113, 50838, 50839, 51023, 51123, 65000, 65420, 65421, 65426,
    65449,
]) | st.integers(0, 65535)  # fmt: skip
_DESCRIPTIONS = st.sampled_from([
    "ImageJ=1.53t\nimages=3\nslices=3\nunit=micron\nspacing=0.5\nloop=false\n",
    "ImageJ=1.53t\nimages=99999999\nchannels=9999\nframes=9999\nhyperstack=true\n",
    "ImageJ=1.11a\nunit=\\u00B5m\nimages=2\nfinterval=nan\nmin=1e999\nmax=x\n",
    "ImageJ=1.53t\nunit=nm\nc0=\nc1=1e999\ncf=0\nvunit=%\n",
    '{"axes": "TZCYX", "shape": [1, 1, 1, 8, 8]}', '{"shape": [99999999, 99999999]}', '{"axes": "' + "T" * 5000 + '"}',
    '<MetaData><prop id="spatial-calibration-x" type="float" value="-1"/></MetaData>', "<MetaData><prop/></MetaData>",
    "Exposure: 10 ms\r\nXCalibration: nan\r\n", "[Section]\nkey=value", "SCANIMAGE.SI.a = 1", "{}", "[]",
]) | TEXTS  # fmt: skip
_OME_TYPES = st.sampled_from(["uint8", "uint16", "float", "complex", "bit", "double-complex", "int64", "x"])


@st.composite
def ome_xml(draw: st.DrawFn) -> str:
    """Return OME-XML whose attributes are wrong here and there, or XML that grows or is nested deeply."""

    def number() -> Any:
        odd = st.sampled_from([2, 3, 0, -1, "x", "", 10**6, 2**31, 10**20, "1,5", "nan", "1e400"])
        return draw(rarely(odd, st.just(1)))

    whole = draw(st.sampled_from(["usual"] * 9 + ["laughs", "deep", "external"]))
    if whole == "laughs":
        entities = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
        return f'<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a0 "ha">{entities}]><OME>&a11;</OME>'
    if whole == "external":
        return (
            '<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY x SYSTEM "file:///etc/passwd">]><OME><Image ID="&x;"/></OME>'
        )
    if whole == "deep":
        return "<OME>" + "<Image>" * 20_000
    order = draw(rarely(st.sampled_from(["YXZCT", "", "XYZCTA"]), st.sampled_from(["XYZCT", "XYCZT"])))
    sizes = " ".join(f'Size{axis}="{number()}"' for axis in "ZCT")
    side = draw(st.sampled_from(['SizeX="8" SizeY="8"'] * 3 + ['SizeX="9999999" SizeY="1"', 'SizeX="-1"', ""]))
    unit = draw(st.sampled_from(["µm", "um", "nm", "pixel", "", "cm", "Å", "reference frame", "\u0003b"]))
    channels = "".join(
        f'<Channel ID="Channel:0:{i}" Name="{_attribute(draw(TEXTS))}" SamplesPerPixel="{number()}"/>'
        for i in range(draw(st.integers(0, 3)))
    )
    file = _attribute(draw(st.sampled_from(["image.ome.tif", "other.tif", "../../etc/passwd", "/dev/zero", "\x01"])))
    uuid = draw(st.sampled_from(["", "", f'<UUID FileName="{file}">urn:uuid:1</UUID>', '<UUID FileName="">x</UUID>']))
    data = "".join(
        f'<TiffData IFD="{number()}" FirstC="{number()}" FirstT="{number()}" PlaneCount="{number()}">{uuid}</TiffData>'
        for _ in range(draw(st.integers(0, 3)))
    )
    kind = draw(rarely(_OME_TYPES, st.just("uint8")))
    pixels = (
        f'<Pixels ID="Pixels:0" DimensionOrder="{order}" Type="{kind}" {side} {sizes} '
        f'PhysicalSizeX="{number()}" PhysicalSizeXUnit="{unit}" PhysicalSizeY="{number()}">{channels}{data}</Pixels>'
    )
    image = f'<Image ID="Image:0" Name="{_attribute(draw(TEXTS))}">{pixels}</Image>' * draw(
        st.sampled_from([1, 1, 2, 300])
    )
    tail = draw(st.sampled_from(["</OME>"] * 4 + ["", "</OME><OME/>", "\0", "<!--"]))
    return f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{image}{tail}'


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


@st.composite
def tiff_bytes(draw: st.DrawFn) -> bytes:
    """Return a TIFF or BigTIFF of up to three pages, with tags of wrong types, counts and values, then damage."""
    order, big = draw(st.sampled_from("<>")), draw(st.sampled_from([False, False, True]))
    out = bytearray(b"II" if order == "<" else b"MM")
    out += struct.pack(f"{order}HHHQ", 43, 8, 0, 16) if big else struct.pack(f"{order}HI", 42, 8)
    pages = draw(st.sampled_from([1, 1, 2, 3]))
    for page in range(pages):
        description = draw(ome_xml() | _DESCRIPTIONS | st.just("")) if page == 0 else ""
        _add_page(draw, out, order, big, description, last=page == pages - 1)
    return bytes(out)


def _add_page(draw: st.DrawFn, out: bytearray, order: str, big: bool, description: str, last: bool) -> None:
    """Add the tags of a page and the place of the next one, then long values and the pixels."""
    width, height = draw(_SIDES), draw(_SIDES)
    bits = draw(rarely(st.sampled_from([1, 12, 64, 0, 65535]), st.sampled_from([8, 16, 32])))
    packings = st.sampled_from([5, 32773, 7, 34712, 50000, 33003, 2, 3, 32946, 0, 65535])
    compression = draw(rarely(packings, st.sampled_from([1, 8])))
    size = min(width * height * max(bits, 8) // 8, 16384)
    noise = (bytes(range(256)) * (size // 256 + 1))[:size]
    pixels = draw(
        rarely(st.sampled_from([b"", noise[: size // 2], b"\xff" * size]), st.sampled_from([bytes(size), noise]))
    )
    data = zlib.compress(pixels) if compression in (8, 32946) else pixels
    number_format = draw(rarely(st.sampled_from([2, 3, 5, 0]), st.just(3 if bits == 32 else 1)))
    tags: dict[int, tuple[int, list[Any] | bytes]] = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [bits]), 259: (3, [compression]), 262: (3, [1]), 273: (4, [0]),
        277: (3, [1]), 278: (4, [height]), 279: (4, [len(data)]), 339: (3, [number_format]),
    }  # fmt: skip
    if description:
        tags[270] = (2, description.encode("utf-8", "surrogatepass") + b"\0")
    for tag in draw(rarely(st.lists(_TAGS, max_size=5), st.lists(_TAGS, max_size=1))):
        kind = draw(st.sampled_from(list(_TYPES)) | st.sampled_from([0, 5, 13, 129]))
        values: list[Any] | bytes = draw(st.lists(NUMBERS, max_size=4)) if kind != 2 else draw(st.binary(max_size=40))
        tags[tag] = (kind, values)
    here, length = len(out), _page_length(tags, big)
    places, extra = _placed(tags, order, big, data, behind=here + length)
    behind = 0 if last else here + length + len(extra)
    out += _page_bytes(tags, places, order, big, draw(rarely(st.sampled_from([here, 8, 2**31, 1]), st.just(behind))))
    out += extra


def _page_length(tags: dict[int, Any], big: bool) -> int:
    return 8 + 20 * len(tags) + 8 if big else 2 + 12 * len(tags) + 4


def _packed_values(kind: int, values: list[Any] | bytes, order: str) -> bytes:
    code, size = _TYPES.get(kind, ("B", 1))
    if isinstance(values, bytes):
        return values
    out = b""
    for value in values:
        try:
            out += struct.pack(order + code, float(value) if code in "fd" else int(value))
        except (struct.error, OverflowError, ValueError):
            out += b"\xff" * size
    return out


def _placed(tags: dict[int, Any], order: str, big: bool, data: bytes, behind: int) -> tuple[dict[int, bytes], bytes]:
    """Return the field of the value of each tag, and the bytes that stand behind the page."""
    room, extra, places = (8 if big else 4), b"", {}
    offset = struct.Struct(order + ("Q" if big else "I"))
    for tag, (kind, values) in sorted(tags.items()):
        packed = _packed_values(kind, values, order)
        if tag == 273 and values == [0]:
            packed = struct.pack(order + "I", behind + len(extra))
            extra += data
        if len(packed) <= room:
            places[tag] = packed.ljust(room, b"\0")
        else:
            places[tag] = offset.pack(behind + len(extra))
            extra += packed
    return places, extra


def _page_bytes(tags: dict[int, Any], places: dict[int, bytes], order: str, big: bool, next_page: int) -> bytes:
    out = struct.pack(order + ("Q" if big else "H"), len(tags))
    for tag, (kind, values) in sorted(tags.items()):
        size = _TYPES.get(kind, ("B", 1))[1]
        count = len(values) if isinstance(values, bytes) else len(_packed_values(kind, values, order)) // size
        out += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, count) + places[tag]
    return out + struct.pack(order + ("Q" if big else "I"), next_page)


@st.composite
def png_bytes(draw: st.DrawFn) -> bytes:
    """Return a PNG with right check sums, whose header, data and text chunks are wrong here and there."""
    width, height = draw(_SIDES), draw(_SIDES)
    depth = draw(rarely(st.sampled_from([1, 4, 0, 255]), st.sampled_from([8, 16])))
    colour = draw(rarely(st.sampled_from([1, 255]), st.sampled_from([0, 2, 4, 6])))
    header = struct.pack(
        ">IIBBBBB", width, height, depth, colour, 0, 0, draw(rarely(st.sampled_from([1, 9]), st.just(0)))
    )
    samples = {0: 1, 2: 3, 4: 2, 6: 4}.get(colour, 1)
    rows = bytes(min((width * samples * depth // 8 + 1) * height, 100_000))
    data = zlib.compress(draw(rarely(st.sampled_from([rows[:10], rows * 3, b""]), st.just(rows))))
    chunks = [(b"IHDR", header), (b"IDAT", data)]
    more = st.tuples(st.sampled_from([b"tEXt", b"zTXt", b"iTXt", b"PLTE", b"tRNS", b"gAMA", b"iCCP", b"IDAT", b"IHDR",
                                      b"acTL", b"fcTL", b"eXIf", b"abcd"]),
                     st.binary(max_size=20) | st.just(b"a\0\0" + zlib.compress(bytes(10**7))))  # fmt: skip
    for chunk in draw(rarely(st.lists(more, max_size=3), st.just([]))):
        chunks.insert(draw(st.integers(0, len(chunks))), chunk)
    chunks += draw(rarely(st.just([]), st.just([(b"IEND", b"")])))
    body = b"".join(struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


_OTHERS = st.sampled_from([b"BM" + bytes(60), b"GIF89a" + bytes(30), b"\xff\xd8\xff\xe0" + bytes(40), b"PK\x03\x04",
                           b"\x89HDF\r\n\x1a\n" + bytes(60), b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
                           b"\x0a\x05\x01\x08"])  # fmt: skip


@st.composite
def image_cases(draw: st.DrawFn) -> Case:
    """Return one image file: a TIFF, a PNG, or the beginning of another format."""
    target = draw(st.sampled_from(["image", "image", "image", "own labels"]))
    kind = draw(st.sampled_from(["tiff"] * 6 + ["png"] * 2 + ["other"]))
    made = {"tiff": tiff_bytes(), "png": png_bytes(), "other": _OTHERS}[kind]
    content = draw(made.flatmap(damaged))
    usual = st.sampled_from(["image.ome.tif", "image.tif"])
    name = {"tiff": rarely(st.sampled_from(["image.stk", "image.lsm"]), usual),
            "png": st.just("image.png"),
            "other": st.sampled_from([f"image.{end}" for end in ("bmp", "gif", "nd2", "czi")])}[kind]  # fmt: skip
    files: Files = {draw(name): content}
    if draw(st.booleans()):
        files["other.tif"] = content[:200]
    return Case(target, files)


_V3_ARRAY: dict[str, Any] = {
    "zarr_format": 3, "node_type": "array", "shape": [2, 8, 8], "data_type": "uint16",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 8, 8]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}}, "fill_value": 0,
    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}},
               {"name": "gzip", "configuration": {"level": 1}}],
    "attributes": {}, "dimension_names": ["c", "y", "x"], "storage_transformers": [],
}  # fmt: skip
_V2_ARRAY: dict[str, Any] = {
    "zarr_format": 2, "shape": [2, 8, 8], "chunks": [1, 8, 8], "dtype": "<u2", "fill_value": 0, "order": "C",
    "compressor": {"id": "gzip", "level": 1}, "filters": None, "dimension_separator": "/",
}  # fmt: skip
_MULTISCALES: dict[str, Any] = {
    "version": "0.5", "multiscales": [{
        "version": "0.4", "name": "image", "axes": [
            {"name": "c", "type": "channel"}, {"name": "y", "type": "space", "unit": "micrometer"},
            {"name": "x", "type": "space", "unit": "micrometer"}],
        "datasets": [{"path": "0", "coordinateTransformations": [
            {"type": "scale", "scale": [1, 0.5, 0.5]}, {"type": "translation", "translation": [0, 1, 1]}]},
            {"path": "1", "coordinateTransformations": [{"type": "scale", "scale": [1, 1.0, 1.0]}]}],
        "coordinateTransformations": [{"type": "identity"}],
    }],
    "omero": {"channels": [{"label": "DNA", "window": {"start": 0, "end": 1}}, {"label": "GFP"}]},
}  # fmt: skip
_V6_IMAGE: dict[str, Any] = {
    "version": "0.6", "multiscales": [{
        "name": "image", "coordinateSystems": [{"name": "physical", "axes": _MULTISCALES["multiscales"][0]["axes"]}],
        "datasets": [{"path": "0", "coordinateTransformations": [
            {"type": "sequence", "input": "0", "output": "physical", "transformations": [
                {"type": "scale", "scale": [1, 0.5, 0.5]}, {"type": "translation", "translation": [0, 1, 1]}]}]}],
    }],
}  # fmt: skip
_PLATE = {"plate": {"wells": [{"path": "A/1", "rowIndex": 0, "columnIndex": 0}], "rows": [{"name": "A"}],
                    "columns": [{"name": "1"}], "version": "0.4", "field_count": 1}}  # fmt: skip
_WELL = {"well": {"images": [{"path": "0"}], "version": "0.4"}}


@st.composite
def zarr_cases(draw: st.DrawFn) -> Case:
    """Return an OME-Zarr image or plate, of zarr 2 or 3, with changed metadata and damaged or missing chunks."""
    v3 = draw(st.booleans())
    facts = draw(st.sampled_from([_MULTISCALES, _MULTISCALES, _V6_IMAGE] if v3 else [_MULTISCALES]))
    files: Files = {}
    plate = draw(st.sampled_from([False, False, False, True]))
    inside = "image.zarr/" + ("A/1/0/" if plate else "")
    for folder, attributes in [("", _PLATE), ("A/1/", _WELL)] if plate else []:
        files |= _group(draw, "image.zarr/" + folder, attributes, v3)
    files |= _group(draw, inside, facts, v3)
    for level in draw(rarely(st.sampled_from(["0", "", "1"]), st.just("01"))):
        whole_array = _V3_ARRAY if v3 else _V2_ARRAY
        array = draw(st.just(whole_array) | changed(whole_array, most=1))
        files[f"{inside}{level}/{'zarr.json' if v3 else '.zarray'}"] = draw(json_files(array))
        whole = gzip.compress(
            draw(rarely(st.sampled_from([bytes(10), bytes(10**7)]), st.just(bytes(range(128))))), mtime=0
        )
        for i in range(2):
            name = f"{inside}{level}/{'c/' if v3 else ''}{i}/0/0"
            state = draw(rarely(st.sampled_from(["missing", "folder"]), st.just("there")))
            if state != "missing":
                files[f"{name}/x" if state == "folder" else name] = draw(damaged(whole))
    if not files:
        files["image.zarr/x"] = b""
    return Case(draw(st.sampled_from(["image", "image", "own labels"])), files)


def _group(draw: st.DrawFn, folder: str, attributes: dict[str, Any], v3: bool) -> Files:
    if v3:
        node = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": attributes}}
        return {f"{folder}zarr.json": draw(json_files(node))}
    return {f"{folder}.zgroup": b'{"zarr_format": 2}', f"{folder}.zattrs": draw(json_files(attributes))}
