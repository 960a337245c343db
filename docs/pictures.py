"""Make the pictures of README and docs: python docs/pictures.py [FOLDER]."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

import napari_milcnn as mil
from napari_milcnn.figures.overview import composite
from napari_milcnn.results.folder import classify_files
from napari_milcnn.simulation.localisations import LOCALISATIONS
from napari_milcnn.simulation.microscope import simulate_field
from napari_milcnn.simulation.options import SimulationOptions

IMAGES = Path(__file__).parent / "images"


def main() -> None:
    """Write every picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=IMAGES, help="where to write; docs/images by default")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    overview(folder)
    localisations(folder)
    kinds(folder)


def overview(folder: Path) -> None:
    """Run `classify` on one shipped image and keep its picture."""
    with tempfile.TemporaryDirectory() as made:
        image = mil.sample_folder() / "yeast-mitochondria.ome.tif"
        list(classify_files(mil.load_model("yeast-sim"), [image], Path(made)))
        (folder / "overview.png").write_bytes((Path(made) / "yeast-mitochondria_overview.png").read_bytes())


def localisations(folder: Path) -> None:
    """Draw one simulated field of each localisation."""
    options = SimulationOptions(size=(220, 220), cells=(9, 13), penetrance=(0.7, 0.9))
    figure = Figure(figsize=(12, 6.3), facecolor="#16181d", layout="constrained")
    for seed, (axes, name) in enumerate(zip(figure.subplots(2, 4).flat, LOCALISATIONS, strict=True)):
        axes.imshow(composite(simulate_field([name], options, seed + 20).image.astype("float32")))
        axes.set_title(name, color="white", fontsize=12, loc="left")
        axes.axis("off")
    figure.savefig(folder / "localisations.png", dpi=90)


def kinds(folder: Path) -> None:
    """Draw the three kinds of evidence for one class of one shipped image."""
    model, path = mil.load_model("yeast-sim"), mil.sample_folder() / "yeast-nucleus.ome.tif"
    figure = Figure(figsize=(13, 3.7), facecolor="#16181d", layout="constrained")
    first, *others = figure.subplots(1, 4)
    window = slice(120, 400)
    with mil.open_image(path) as image:
        first.imshow(composite(image.plane(0).astype("float32"))[window, window])
        first.set_title("image: GFP green, RFP magenta", color="white", fontsize=10, loc="left")
        for axes, kind in zip(others, ("object", "class_map", "jacobian"), strict=True):
            found = mil.evidence(model, image, ["nucleus"], kind=kind).maps[0, 0]
            axes.imshow(found[window, window] ** (0.4 if kind == "jacobian" else 1), cmap="inferno")
            axes.set_title(f"nucleus, {kind}", color="white", fontsize=10, loc="left")
    for axes in (first, *others):
        axes.axis("off")
    figure.savefig(folder / "evidence.png", dpi=90)


if __name__ == "__main__":
    main()
