"""Versions of OME-Zarr, their transformations, levels, zip files, and damaged chunks."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_milcnn import read_labels
from napari_milcnn.errors import ImageError, MilcnnError
from napari_milcnn.images.ome_zarr import plate_wells
from napari_milcnn.images.open import open_image
from napari_milcnn.images.paths import image_name, is_image

PIXELS = np.random.default_rng(0).integers(1, 2**16, (64, 64)).astype(np.uint16)
TO_PHYSICAL = {"input": {"path": "0"}, "output": {"name": "physical"}}
Step = dict[str, Any]


def scale(*sides: float, **more: object) -> Step:
    return {"type": "scale", "scale": list(sides), **more}


def axes(unit: str | None = "micrometer", names: str = "yx") -> list[Step]:
    return [{"name": name, "type": "space"} | ({"unit": unit} if unit else {}) for name in names]


def written(
    path: Path, image: dict[str, Any], version: str = "0.5", arrays: dict[str, np.ndarray] | None = None
) -> Path:
    """Write an OME-Zarr group with the given description of its one image."""
    zarr_format = 2 if version < "0.5" else 3
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    for key, pixels in (arrays or {"0": PIXELS}).items():
        group.create_array(key, shape=pixels.shape, chunks=(32, 32), dtype=pixels.dtype)[:] = pixels
    if zarr_format == 2:
        group.attrs.update({"multiscales": [{"version": version, **image}]})
    else:
        group.attrs.update({"ome": {"version": version, "multiscales": [image]}})
    return path


def image_of(
    version: str, *steps: Step, common: tuple[Step, ...] = (), unit: str | None = "micrometer"
) -> dict[str, Any]:
    """Describe an image of one level by its transformations, as a version does."""
    if version < "0.6":
        found: dict[str, Any] = {
            "axes": axes(unit),
            "datasets": [{"path": "0", "coordinateTransformations": list(steps)}],
        }
    else:
        (step,) = steps
        systems = [{"name": "physical", "axes": axes(unit)}, {"name": "world", "axes": axes()}]
        found = {"coordinateSystems": systems,
                 "datasets": [{"path": "0", "coordinateTransformations": [{**step, **TO_PHYSICAL}]}]}  # fmt: skip
    ways = {} if version < "0.6" else {"input": {"name": "physical"}, "output": {"name": "world"}}
    return found | ({"coordinateTransformations": [{**step, **ways} for step in common]} if common else {})


TRANSLATION = {"type": "translation", "translation": [5, 5]}


@pytest.mark.parametrize(("version", "image", "size"), [
    ("0.4", image_of("0.4", scale(0.5, 0.5), common=(scale(0.65, 0.65),)), 0.325),
    ("0.5", image_of("0.5", scale(0.5, 0.5), TRANSLATION, unit="nanometer"), 0.0005),
    ("0.5", image_of("0.5", {"type": "sequence", "transformations": [scale(2, 2), TRANSLATION, scale(3, 3)]}), 6),
    ("0.6", image_of("0.6", {"type": "sequence", "transformations": [scale(0.65, 0.65), TRANSLATION]}), 0.65),
    ("0.6rc0", image_of("0.6", scale(0.65, 0.65), common=(TRANSLATION,)), 0.65),
    ("0.6.dev4", image_of("0.6", scale(2, 2), common=(scale(0.25, 0.25),), unit=None), 0.5),
    ("0.6", image_of("0.6", scale(1, 1), common=(scale(0.65, 0.65),)), 0.65),
])  # fmt: skip
def test_scales_are_multiplied(tmp_path: Path, version: str, image: dict[str, Any], size: float) -> None:
    """Of a level and of the whole image, in sequences and in coordinate systems."""
    opened = open_image(written(tmp_path / "a.zarr", image, version))
    assert opened.axes == "YX"
    assert opened.pixel_size == pytest.approx(size)
    assert not [text for text in opened.warnings if "not known" in text]


STRANGE: tuple[tuple[Step, str], ...] = (
    ({"type": "affine", "affine": [[0.5, 0, 0], [0, 0.5, 0]]}, "of the type 'affine'"),
    ({"type": "rotation", "rotation": [[0, 1], [1, 0]]}, "of the type 'rotation'"),
    ({"type": "mapAxis", "mapAxis": [1, 0]}, "of the type 'mapAxis'"),
    ({"type": "displacements", "path": "d"}, "of the type 'displacements'"),
    ({"type": "bijection", "forward": scale(2, 2), "inverse": scale(0.5, 0.5)}, "of the type 'bijection'"),
    ({"type": "byDimension", "transformations": []}, "of the type 'byDimension'"),
    ({"type": "sequence", "transformations": [scale(2, 2), {"type": "affine"}]}, "of the type 'affine'"),
    ({"type": "scale", "path": "somewhere"}, "stored in the array 'somewhere'"),
    (scale(0.5), r"scale is \[0.5\]; expected 2 numbers"),
    ({"type": "scale", "scale": ["0,5", "0,5"]}, "expected numbers"),
    (scale(0, 0.5), "the scale along Y and X is 0, 0.5"),
    ({}, "of the type None"),
)


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
@pytest.mark.parametrize(("step", "said"), STRANGE)
def test_what_is_not_understood_gives_no_pixel_size(tmp_path: Path, version: str, step: Step, said: str) -> None:
    """And says why, at the level and, where it counts, of the whole image."""
    image = open_image(written(tmp_path / "a.zarr", image_of(version, step), version))
    assert image.pixel_size is None
    assert np.any([said.replace("\\", "") in text for text in image.warnings])
    whole = open_image(written(tmp_path / "b.zarr", image_of(version, scale(0.5, 0.5), common=(step,)), version))
    assert whole.pixel_size == (0.5 if version == "0.6" else None)  # from 0.6 on it leads to another coordinate system
    assert whole.warnings


def test_coordinate_systems_lead_to_each_other(tmp_path: Path) -> None:
    """A numbered system leads to one with names; a scale may be given backwards; a strange step hides the size."""
    numbered = [{"name": f"dim_{i}", "type": "array"} for i in range(2)]
    backwards = {"input": {"name": "world"}, "output": {"name": "physical"}}
    affine = {"type": "affine", "affine": [[1, 0, 0], [0, 1, 0]]}
    for systems, own, common, size, said in (
        ((numbered, axes()), scale(1, 1), scale(0.5, 0.5), 0.5, ""),
        ((axes(None), axes()), scale(1, 1), scale(4, 4, **backwards), 0.25, "that of the coordinate system 'world'"),
        ((axes(), axes()), scale(1, 1), affine, None, "of the type 'affine' to the coordinate system 'world'"),
        ((axes(), axes()), scale(0.5, 0.5), affine, 0.5, "no pixel size is taken of it"),
        ((axes(), axes()), {"type": "identity"}, {**affine, **backwards}, None, "the inverse of affine"),
    ):
        ways = {"input": {"name": "physical"}, "output": {"name": "world"}}
        named = [{"name": name, "axes": each} for name, each in zip(("physical", "world"), systems, strict=True)]
        image = {"coordinateSystems": named, "coordinateTransformations": [{**ways, **common}],
                 "datasets": [{"path": "0", "coordinateTransformations": [{**own, **TO_PHYSICAL}]}]}  # fmt: skip
        opened = open_image(written(tmp_path / "a.zarr", image, "0.6"))
        assert (opened.axes, opened.pixel_size) == ("YX", size)
        assert said in " ".join(opened.warnings)
    image["coordinateSystems"][0]["axes"] = numbered
    with pytest.raises(ImageError, match="does not tell which axis is which"):
        open_image(written(tmp_path / "a.zarr", image, "0.6"))


def test_drafts_name_coordinate_systems_as_text(tmp_path: Path) -> None:
    """As the examples of RFC 5 do."""
    image = image_of("0.6", scale(0.5, 0.5))
    image["datasets"][0]["coordinateTransformations"][0] |= {"input": "0", "output": "physical"}
    assert open_image(written(tmp_path / "a.zarr", image, "0.6.dev3")).pixel_size == 0.5


def test_units_that_say_no_length_are_said(tmp_path: Path) -> None:
    """A unit that is no length, a unit on one side only, a scale of 1, and two systems that disagree."""
    one = {"axes": [*axes()[:1], {"name": "x"}],
           "datasets": [{"path": "0", "coordinateTransformations": [scale(2, 2)]}]}  # fmt: skip
    two = image_of("0.6", scale(0.5, 0.5), common=(scale(3, 3),))
    for image, size, said in (
        (image_of("0.5", scale(2, 2), unit="pixel"), None, "the unit 'pixel' is no length"),
        (one, None, "only one of Y and X has a unit"),
        (image_of("0.5", scale(1, 1)), 1.0, "also write where they do not know its size"),
        (two, 0.5, "that of 'physical', 0.5 µm; in the coordinate system 'world' it is 1.5 µm"),
        ({"axes": axes(names="zyx"), "datasets": [{"path": "0"}]}, None, "names 3 axes, but the image has 2"),
    ):
        opened = open_image(written(tmp_path / "a.zarr", image, "0.6" if "coordinateSystems" in image else "0.5"))
        assert opened.pixel_size == size
        assert said in " ".join(opened.warnings)


@pytest.mark.parametrize("version", ["0.7", "1.0", "latest"])
def test_a_version_that_is_not_known_is_said(tmp_path: Path, version: str) -> None:
    """Its pixels are read; what its scales mean is not guessed."""
    opened = open_image(written(tmp_path / "a.zarr", image_of("0.5", scale(0.5, 0.5)), version))
    np.testing.assert_array_equal(opened.plane(0)[0], PIXELS)
    assert opened.pixel_size is None
    assert f"of the version {version!r}, which is not known here" in " ".join(opened.warnings)


def level(path: str, *sides: float) -> dict[str, Any]:
    return {"path": path, "coordinateTransformations": [scale(*sides)]}


def test_the_largest_level_is_opened_wherever_it_stands(tmp_path: Path) -> None:
    """One that is not there is named; only one that is known to be smaller may be missing."""
    arrays = {"small": PIXELS[::2, ::2], "large": PIXELS}
    described = {"axes": axes(), "datasets": [level("small", 1, 1), level("large", 0.5, 0.5)]}
    path = written(tmp_path / "a.zarr", described, arrays=arrays)
    assert (open_image(path).shape, open_image(path).pixel_size) == ((64, 64), 0.5)
    assert (open_image(path / "small").shape, open_image(path / "small").pixel_size) == ((32, 32), 1.0)
    described["datasets"].append(level("tiny", 2, 2))
    found = open_image(written(path, described, arrays=arrays))
    assert "The smaller level 'tiny' of the image is not there" in " ".join(found.warnings)
    described["datasets"].append(level("full", 0.25, 0.25))
    with pytest.raises(ImageError, match="the level 'full' of the image cannot be opened: there is no such array"):
        open_image(written(path, described, arrays=arrays))
    (path / "full" / "inner").mkdir(parents=True)
    with pytest.raises(ImageError, match="the level 'full' of the image cannot be opened"):
        open_image(path)


def damaged(how: str, chunk: Path) -> None:
    """Damage the file of a chunk."""
    content = chunk.read_bytes()
    chunk.unlink()
    if how in ("folder", "pipe"):
        chunk.mkdir() if how == "folder" else os.mkfifo(chunk)
    elif how == "link":
        chunk.symlink_to("gone")
    else:
        chunk.write_bytes(content[: {"half": len(content) // 2, "empty": 0, "one byte": len(content) - 1}[how]])


CODECS: dict[str, dict[str, Any]] = {
    "none": {"compressors": None}, "blosc": {"compressors": zarr.codecs.BloscCodec()},
    "gzip": {"compressors": zarr.codecs.GzipCodec()}, "zstd": {"compressors": zarr.codecs.ZstdCodec()},
    "shards": {"shards": (32, 32), "chunks": (16, 16)},
}  # fmt: skip


@pytest.mark.parametrize("how", ["half", "one byte", "empty", "folder", "pipe", "link"])
@pytest.mark.parametrize("codec", CODECS)
def test_a_damaged_chunk_is_an_error(tmp_path: Path, codec: str, how: str) -> None:
    """Never zeros, nor what happens to lie in memory; other chunks are read."""
    path = tmp_path / "a.zarr"
    options = {"chunks": (32, 32), **CODECS[codec]}
    zarr.create_array(path, shape=(64, 64), dtype="u2", dimension_names=["y", "x"], **options)[:] = PIXELS
    damaged(how, path / "c" / "0" / "0")
    image = open_image(path)
    for window in (None, (0, 10, 0, 10)):
        with pytest.raises(ImageError, match="the pixels cannot be read"):
            image.plane(0, window=window)
    np.testing.assert_array_equal(image.plane(0, window=(32, 64, 0, 64))[0], PIXELS[32:])


def test_chunks_that_are_missing_are_counted(tmp_path: Path) -> None:
    """They may be empty, or a copy was broken off; a label image often has empty ones."""
    path = written(tmp_path / "a.zarr", image_of("0.5", scale(0.5, 0.5)))
    (path / "0" / "c" / "0" / "0").unlink()
    assert "1 of the 4 chunks of the image are not stored and read as 0" in " ".join(open_image(path).warnings)
    shutil.rmtree(path / "0" / "c")
    assert "None of the 4 chunks of the image is stored" in " ".join(open_image(path).warnings)
    zarr.create_array(tmp_path / "b.zarr", shape=(8, 8), chunks=(8, 8), dtype="u2", dimension_names=["y", "x"])
    assert open_image(tmp_path / "b.zarr").warnings == ("No chunk of the image is stored: all pixels read as 0.",)


@pytest.mark.parametrize(("key", "value"), [
    ("shape", [2**40, 2**40]), ("shape", [2**30] * 4), ("shape", [-1, 5]), ("shape", "large"), ("data_type", "parrot"),
    ("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [2**20, 2**20]}}), ("codecs", []),
    ("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [0, 0]}}), ("node_type", "parrot"),
])  # fmt: skip
def test_what_an_array_cannot_be_is_refused(tmp_path: Path, key: str, value: object) -> None:
    """Sizes that no image has, and metadata that say nothing that zarr knows."""
    path = written(tmp_path / "a.zarr", image_of("0.5", scale(0.5, 0.5)))
    document = json.loads((path / "0" / "zarr.json").read_text())
    (path / "0" / "zarr.json").write_text(json.dumps(document | {key: value}))
    with pytest.raises(ImageError, match=r"the level '0' of the image cannot be opened|no image is as large"):
        open_image(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"\xff\xfe", b"[" * 100_000])
@pytest.mark.parametrize("document", ["zarr.json", "0/zarr.json"])
def test_metadata_that_is_no_json_names_its_file(tmp_path: Path, document: str, content: bytes) -> None:
    """At the top and in a level."""
    path = written(tmp_path / "a.zarr", image_of("0.5", scale(0.5, 0.5)))
    (path / document).write_bytes(content)
    with pytest.raises(
        ImageError, match=rf"a\.zarr.* cannot be opened.*: {document} is (not JSON|not a JSON obj|empty)"
    ):
        open_image(path)


def zipped(folder: Path, path: Path, top: str = "", compression: int = zipfile.ZIP_STORED) -> Path:
    """Pack a folder."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, f"{top}{file.relative_to(folder).as_posix()}")
    return path


@pytest.mark.parametrize("version", ["0.4", "0.6"])
@pytest.mark.parametrize(("name", "top"), [("a.ozx", ""), ("a.ome.zarr.zip", "a.ome.zarr/"), ("a.ZARR.zip", "")])
def test_an_image_in_one_zip_file(tmp_path: Path, version: str, name: str, top: str) -> None:
    """With the zarr at its top, or in one folder; stored or deflated."""
    folder = written(tmp_path / "f.zarr", image_of(version, scale(0.5, 0.5)), version)
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = zipped(folder, tmp_path / name, top, compression)
        assert is_image(path)
        with open_image(path) as image:
            assert (image.name, image.pixel_size, image.warnings) == ("a", 0.5, ())
            np.testing.assert_array_equal(image.plane(0)[0], PIXELS)
        with pytest.raises(ImageError, match="closed"):
            image.plane(0)


def test_zip_files_that_are_no_image(tmp_path: Path) -> None:
    """Cut short, of something else, with a damaged chunk, or a plate."""
    folder = written(tmp_path / "f.zarr", image_of("0.5", scale(0.5, 0.5)))
    whole = zipped(folder, tmp_path / "a.ozx").read_bytes()
    for content in (b"PK\3\4", whole[:-200], b"nothing of this kind"):
        (tmp_path / "b.ozx").write_bytes(content)
        with pytest.raises(ImageError, match=r"b\.ozx is not a whole zip file .*; copy or export it again"):
            open_image(tmp_path / "b.ozx")
    with pytest.raises(ImageError, match=r"is a zip file, but not a zipped OME-Zarr image: .*; unpack it"):
        open_image(zipped(folder / "0" / "c", tmp_path / "c.zip"))
    chunk = (folder / "0" / "c" / "0" / "0").read_bytes()
    (tmp_path / "d.ozx").write_bytes(whole.replace(chunk, bytes(len(chunk))))
    with pytest.raises(ImageError, match="the pixels cannot be read: Bad CRC-32"):
        open_image(tmp_path / "d.ozx").plane(0)
    plate = zarr.open_group(tmp_path / "p.zarr", mode="w")
    plate.attrs["ome"] = {"version": "0.5", "plate": {"wells": [{"path": "A/1"}]}}
    packed = zipped(tmp_path / "p.zarr", tmp_path / "p.ozx")
    for tried in (open_image, plate_wells, read_labels):
        with pytest.raises(MilcnnError, match="OME-Zarr plate in one zip file; unpack it"):
            tried(packed)


def test_images_of_bioformats2raw_are_those_that_it_lists(tmp_path: Path) -> None:
    """In its own order, also in a zip file; a plate in this layout is a plate."""
    path = tmp_path / "a.zarr"
    group = zarr.open_group(path, mode="w")
    group.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    group.create_group("OME").attrs["ome"] = {"version": "0.5", "series": ["second", "first"]}
    for i, key in enumerate(("first", "second")):
        written(path / key, image_of("0.5", scale(0.5, 0.5)), arrays={"0": PIXELS + i})
    for place in (path, zipped(path, tmp_path / "a.ozx")):
        with pytest.raises(
            ImageError, match=r"holds 2 images; choose one by series=0, \.\.\. out of 0: 'second', 1: 'first'"
        ):
            open_image(place)
        np.testing.assert_array_equal(open_image(place, series=1).plane(0)[0], PIXELS)
    group.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3, "plate": {"wells": [{"path": "A/1"}]}}
    with pytest.raises(ImageError, match=r"plate of 1 wells; open one field, for example .*A.1.0"):
        open_image(path)


def test_a_collection_without_images(tmp_path: Path) -> None:
    """The metadata were copied, the images were not."""
    zarr.open_group(tmp_path / "a.zarr", mode="w").attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    with pytest.raises(ImageError, match="a collection of images, but none of them is there"):
        open_image(tmp_path / "a.zarr")


@pytest.mark.parametrize(("described", "said"), [
    ({"scene": {}}, "a scene of several OME-Zarr images; open one of them: one"),
    ({}, "a group of OME-Zarr images; open one of them: one"), ({"labels": ["a", "b"]}, "label images: a, b"),
    ({"multiscales": []}, "multiscales is empty"), ({"multiscales": [{}]}, "datasets is empty"),
    ({"multiscales": "no"}, "multiscales is empty"),
])  # fmt: skip
def test_groups_say_what_to_open(tmp_path: Path, described: dict[str, Any], said: str) -> None:
    """A scene, labels, and metadata without any image."""
    path = tmp_path / "a.zarr"
    zarr.open_group(path, mode="w").attrs["ome"] = {"version": "0.6", **described}
    written(path / "one", image_of("0.6", scale(0.5, 0.5)), "0.6")
    with pytest.raises(ImageError, match=said):
        open_image(path)


@pytest.mark.parametrize(("name", "wanted"), [("x/a.ozx", "a"), ("a.ome.zarr.zip", "a"), ("a.b.ozx", "a.b")])
def test_names_of_zipped_images(name: str, wanted: str) -> None:
    """Without their suffixes."""
    assert image_name(Path(name)) == wanted


def test_several_images_in_one_group(tmp_path: Path) -> None:
    """The first is opened and said; series chooses another."""
    path = written(tmp_path / "a.zarr", image_of("0.5", scale(0.5, 0.5)), arrays={"0": PIXELS, "1": PIXELS + 1})
    group = zarr.open_group(path, mode="a")
    (image,) = group.attrs["ome"]["multiscales"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image, {**image, "datasets": [level("1", 2, 2)]}]}
    assert "The metadata describes 2 images" in " ".join(open_image(path).warnings)
    assert open_image(path, series=1).pixel_size == 2
    with pytest.raises(ImageError, match="series=2 was asked for, but this is 2 images"):
        open_image(path, series=2)
