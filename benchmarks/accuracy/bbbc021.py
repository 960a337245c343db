"""BBBC021: mechanisms of action of whole fields, and of treatments by the median of their fields.

    python -m benchmarks.accuracy.bbbc021 --images IMAGES.csv --moa MOA.csv --data FOLDER [--split compound] [--record]

The tables are the collection's own (Broad Bioimage Benchmark Collection, BBBC021v1: MCF-7 cells with DNA, tubulin and
actin stained): one row a site with Image_FileName_ and Image_PathName_ of DAPI, Tubulin and Actin, plate, well,
Replicate, Image_Metadata_Compound and Image_Metadata_Concentration; and compound, concentration, moa. FOLDER holds the
plates' folders, under the path that the table gives or under its last part. The three files of a site are composed
into one image of three channels in --work, about 8 MB each. Whatever is missing is counted and said, and left out.

Protocols
* `--split paper`: a share of each treatment's images, 15 % (recalled: some 300 images in all), is learned from, a fifth
  of that chooses the checkpoint, and all others are reported. A treatment is thus on both sides, its images are not.
* `--split compound`: each compound in turn is left out with all its images and doses; a network learns from the same
  share of the images of the others, its checkpoint is the last epoch, and all images of the compound are reported.

Reported: accuracy of images, and of treatments (compound and concentration) with the median of each score over their
images. DMSO and what has no mechanism in the table is left out. Network and training are the paper's: preset `paper`,
patches of 900 px, and as recalled Adam with 1e-3 and batches of 16. Recalled figures for the split of the paper, images
and treatments, which we could not check: Noisy-AND, a = 10, .958 and .971; average .924 and .943; max .452 and .429.

Departures: where learning starts is measured on the images, and illumination is not corrected.

Budget: a run is for a GPU; a compound left out is one of some 38 runs. What is finished is kept in --work, and the same
call goes on from there. `--quick` takes two images of each of a dozen treatments and a small network, under a minute.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, get_args

import numpy as np
import pandas as pd
import tifffile

import napari_milcnn as mil
from benchmarks.record import report, table
from benchmarks.runs import Finished, run_all, scores
from napari_milcnn.atomic_write import replacing
from napari_milcnn.labels.table import LabelledImage, LabelTable
from napari_milcnn.network.pooling import PoolingName

STAINS = ("DAPI", "Tubulin", "Actin")
COLUMNS = {"Image_Metadata_Plate_DAPI": "plate", "Image_Metadata_Well_DAPI": "well", "Replicate": "replicate",
           "Image_Metadata_Compound": "compound", "Image_Metadata_Concentration": "concentration"}  # fmt: skip
FILE_COLUMNS = [f"Image_{what}_{stain}" for stain in STAINS for what in ("PathName", "FileName")]
TREATMENT = ["compound", "concentration"]
SELECTION = 0.2
"""Share of the images learned from that chooses the checkpoint."""


@dataclass(frozen=True)
class Plan:
    """How every network is trained."""

    share: float = 0.15
    preset: str = "paper"
    widths: tuple[int, ...] | None = None
    epochs: int = 100
    patch: int = 900
    batch_size: int = 16
    learning_rate: float = 1e-3


QUICK = Plan(share=0.5, preset="compact", widths=(8, 8, 8, 16, 16, 16), epochs=1, patch=96, batch_size=4)


def main() -> None:
    """Read the tables, compose what is there, train what is not done, print and record."""
    args = arguments()
    plan = replace(QUICK if args.quick else Plan(), **({"epochs": args.epochs} if args.epochs else {}))
    sites = read_sites(args.images, args.moa)
    if args.quick:
        sites = few(sites)
    sites, said = with_files(sites, args.data)
    sys.stderr.write("\n".join(said) + "\n")
    work = args.work / ("quick" if args.quick else "full")
    finished = Finished(work / args.split, {**asdict(plan), "sites": len(sites)})
    compose(sites, work / "images")
    network = {"pooling": args.pooling, "a": args.a, "r": args.r, "seed": args.seed}
    wanted = [{"left_out": name, **network} for name in runs_of(sites, args.split)]
    rows = run_all(finished, wanted, one_run, args.workers, sites=sites, images=work / "images", plan=plan,
                   device=args.device)  # fmt: skip
    report(f"BBBC021, split by {args.split}", [*said, "", *lines(of(rows, network))], keep=args.record)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="BBBC021_v1_image.csv")
    parser.add_argument("--moa", type=Path, required=True, help="BBBC021_v1_moa.csv")
    parser.add_argument("--data", type=Path, required=True, help="folder of the plates' folders")
    parser.add_argument("--work", type=Path, default=Path("build/bbbc021"), help="for composed images, finished runs")
    parser.add_argument("--split", choices=("paper", "compound"), default="paper")
    parser.add_argument("--pooling", choices=get_args(PoolingName), default="noisy_and")
    parser.add_argument("--a", type=float, default=10.0, help="slope of Noisy-AND")
    parser.add_argument("--r", type=float, default=2.5, help="sharpness of LSE and the generalised mean")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="under a minute, to see that it runs")
    parser.add_argument("--record", action="store_true", help="keep in RESULTS.md")
    return parser.parse_args()


def read_sites(images: Path, moa: Path) -> pd.DataFrame:
    """Sites whose treatment has a mechanism, DMSO left out: plate, well, treatment, moa, files and a name of each."""
    sites, mechanisms = read_table(images, [*FILE_COLUMNS, *COLUMNS]), read_table(moa, [*TREATMENT, "moa"])
    sites = sites.rename(columns=COLUMNS)
    for one in (sites, mechanisms):
        one["compound"] = one["compound"].str.strip()
        one["concentration"] = one["concentration"].astype(float).round(6)
    known = mechanisms[mechanisms["compound"] != "DMSO"].drop_duplicates()
    sites = sites.merge(known, on=TREATMENT, validate="many_to_one")
    stems = sites["Image_FileName_DAPI"].map(lambda name: PurePosixPath(name).stem)
    return sites.assign(name=sites["plate"] + "_" + sites["well"] + "_" + stems)


def read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    """Read some columns of a CSV as text; the program ends with a sentence where one is lacking."""
    found = pd.read_csv(path, dtype=str)
    lacking = [name for name in columns if name not in found]
    if lacking:
        sys.exit(
            f"{path} lacks the column {', '.join(lacking)}; expected a table of BBBC021v1 with {', '.join(columns)}"
        )
    return found[columns]


def few(sites: pd.DataFrame) -> pd.DataFrame:
    """Two sites of one treatment of each of two compounds, for at most six mechanisms."""
    compounds = sites.drop_duplicates("compound")
    pairs = compounds[compounds.groupby("moa")["compound"].transform("size") > 1].groupby("moa").head(2)
    chosen = pairs.sort_values("moa", kind="stable")[TREATMENT].head(12)
    return sites.merge(chosen, on=TREATMENT).groupby(TREATMENT, as_index=False).head(2)


def with_files(sites: pd.DataFrame, data: Path) -> tuple[pd.DataFrame, list[str]]:
    """Keep the sites all of whose files are there, with columns DAPI, Tubulin and Actin; and say what is missing.

    The program ends with a sentence where fewer than two mechanisms are left.
    """
    for stain in STAINS:
        sites = sites.assign(**{stain: [find_file(data, path, name) for path, name in zip(
            sites[f"Image_PathName_{stain}"], sites[f"Image_FileName_{stain}"], strict=True)]})  # fmt: skip
    there = sites[sites[list(STAINS)].notna().all(axis=1)].reset_index(drop=True)
    said = [
        f"{len(there)} of {len(sites)} images with a mechanism are in {data.name}: {treatments(there)} of "
        f"{treatments(sites)} treatments, {there['moa'].nunique()} of {sites['moa'].nunique()} mechanisms."
    ]
    absent = sites[~sites["name"].isin(there["name"])].groupby("plate").size()
    if len(absent):
        counts = ", ".join(f"{plate} ({count})" for plate, count in absent.head(8).items())
        said.append(f"Missing, by plate: {counts}{f' and {len(absent) - 8} more' if len(absent) > 8 else ''}.")
    if there["moa"].nunique() < 2:
        sys.exit("\n".join([*said, f"Two mechanisms at least are needed; expected folders such as "
                                   f"{sites['Image_PathName_DAPI'].iloc[0]} in {data}."]))  # fmt: skip
    return there, said


def find_file(data: Path, path: str, name: str) -> Path | None:
    """Find a file under the table's path, or under the last part of it; None where it is in neither."""
    parts = PurePosixPath(path.replace("\\", "/"))
    places = (data / parts / name, data / parts.name / name)
    return next((place for place in places if place.exists()), None)


def treatments(sites: pd.DataFrame) -> int:
    """Count compounds at their concentrations."""
    return len(sites.drop_duplicates(TREATMENT))


def compose(sites: pd.DataFrame, folder: Path) -> None:
    """Compose each site's three files into NAME.ome.tif, axes CYX, where that is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for site in sites.to_dict("records"):
        file = composed(folder, site["name"])
        if not file.exists():
            with replacing(file) as part:
                tifffile.imwrite(part, np.stack([tifffile.imread(site[stain]) for stain in STAINS]), ome=True,
                                 photometric="minisblack", compression="zlib",
                                 metadata={"axes": "CYX", "Channel": {"Name": list(STAINS)}})  # fmt: skip


def composed(folder: Path, name: str) -> Path:
    """Name the file of a composed site."""
    return folder / f"{name}.ome.tif"


def runs_of(sites: pd.DataFrame, split: str) -> list[str]:
    """List what is left out, one run each: nothing by itself, or each compound whose mechanism has another one."""
    if split == "paper":
        return ["nothing"]
    compounds = sites.drop_duplicates("compound")
    others = compounds.groupby("moa")["compound"].transform("size") > 1
    alone = ", ".join(compounds[~others]["compound"])
    if not others.any():
        sys.exit(f"no mechanism has two compounds, so none can be left out ({alone}); add images, or use --split paper")
    if alone:
        sys.stderr.write(f"Not left out, since their mechanism has no other compound: {alone}\n")
    return sorted(compounds[others]["compound"])


def divided(sites: pd.DataFrame, left_out: str, share: float, seed: int) -> pd.Series:
    """Side of each site: train, validation, test, or '' for what is not used.

    Of each treatment that is learned from a share of the images, and at least one, is drawn; of these, in the split
    of the paper, some choose the checkpoint.
    """
    rng = np.random.default_rng(seed)
    rest = "test" if left_out == "nothing" else ""
    side = pd.Series(rest, index=sites.index)
    for _, rows in sites[sites["compound"] != left_out].groupby(TREATMENT):
        side[rng.permutation(rows.index)[: max(1, round(share * len(rows)))]] = "train"
    if left_out != "nothing":
        return side.where(sites["compound"] != left_out, "test")
    for _, rows in sites[side == "train"].groupby("moa"):
        side[rng.permutation(rows.index)[: round(SELECTION * len(rows))]] = "validation"
    return side


def one_run(
    left_out: str,
    pooling: str,
    a: float,
    r: float,
    seed: int,
    sites: pd.DataFrame,
    images: Path,
    plan: Plan,
    device: str,
) -> list[dict[str, Any]]:
    """Train one network and score the test images: treatment, moa, and the score of each mechanism."""
    side = divided(sites, left_out, plan.share, seed)
    labels = label_table(sites[side.isin(["train", "validation"])], side, images)
    network = {"pooling": pooling, "a": a, "r": r} | ({} if plan.widths is None else {"widths": plan.widths})
    model = mil.new_model(labels.classes, STAINS, plan.preset, seed=seed, **network)
    options = {"epochs": plan.epochs, "patch": plan.patch, "batch_size": plan.batch_size, "cache": 4.0,
               "learning_rate": plan.learning_rate, "schedule": "constant", "head_rate": 1.0,
               "epoch_steps": 1, "average": 0, "balance": "none", "vary_share": 0}  # fmt: skip
    for told in mil.train(model, labels, **options, seed=seed, device=device):
        selection = "" if told.validation is None else f", selection accuracy {told.validation.accuracy:.3f}"
        sys.stderr.write(f"left out {left_out}: epoch {told.epoch}, loss {told.loss:.3f}{selection}\n")
    test = sites[side == "test"].reset_index(drop=True)
    given = scores(told.best, [composed(images, name) for name in test["name"]], device).add_prefix("score ")
    return test[["name", "plate", "well", "replicate", *TREATMENT, "moa"]].join(given).to_dict("records")


def label_table(sites: pd.DataFrame, side: pd.Series, images: Path) -> LabelTable:
    """Sites that are learned from, as a table of labels with its split."""
    return LabelTable(tuple(
        LabelledImage(composed(images, name), (moa,), name, side[row])
        for row, name, moa in zip(sites.index, sites["name"], sites["moa"], strict=True)
    ))  # fmt: skip


def of(rows: pd.DataFrame, network: dict[str, Any]) -> pd.DataFrame:
    """Rows of the runs of one network."""
    return rows[np.logical_and.reduce([rows[name] == value for name, value in network.items()])]


def right(rows: pd.DataFrame) -> pd.Series:
    """Whether the highest score of each row is its mechanism's; a class that a row's network had not scores nothing."""
    given = rows.filter(like="score ")
    return given.fillna(-1).idxmax(axis=1).str.removeprefix("score ") == rows["moa"]


def by_treatment(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each treatment: its mechanism, and the median of its images' scores."""
    given = [name for name in rows if name.startswith("score ")]
    return rows.groupby([*TREATMENT, "moa"], as_index=False)[given].median()


def lines(rows: pd.DataFrame) -> list[str]:
    """Rows of Markdown: accuracy of images and of treatments, over all and for each mechanism."""
    both = (rows, by_treatment(rows))

    def row(name: str, chosen: Callable[[pd.DataFrame], pd.DataFrame]) -> list[object]:
        parts = [right(chosen(one)) for one in both]
        return [name, *(value for part in parts for value in (len(part), float(part.mean())))]

    body = [row("all", lambda one: one)]
    body += [row(name, lambda one, name=name: one[one["moa"] == name]) for name in sorted(rows["moa"].unique())]
    return table(["mechanism", "images", "accuracy", "treatments", "accuracy, median of images"], body)


if __name__ == "__main__":
    main()
