"""The commands classify and demo."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from napari_milcnn.cli.option_flags import (
    MODEL,
    OUT,
    AsJson,
    ClassNames,
    ClassThresholds,
    device_beside_replay,
    evidence_of,
    loaded,
    mask_options_of,
    options_of,
    reading_of,
    reading_options,
)
from napari_milcnn.cli.progress import exit_status, messages, output, print_failure, print_json, say, shown, warn
from napari_milcnn.errors import OptionsError
from napari_milcnn.images.paths import shown_name
from napari_milcnn.options import EvidenceOptions, ForegroundOptions, MaskOptions, MasksAs
from napari_milcnn.schema import NOTHING, UNLIKE

if TYPE_CHECKING:
    from napari_milcnn.model.trained_model import TrainedModel
    from napari_milcnn.progress import Steps
    from napari_milcnn.results.folder import ImageResult


@options_of(ForegroundOptions, prefix="foreground_", optional=True)
@options_of(EvidenceOptions, MaskOptions, skip=("foreground", "class_thresholds"))
@reading_options
def classify_command(
    ctx: typer.Context,
    images: Annotated[list[Path] | None, typer.Argument(help="Images, or folders of images.", metavar="IMAGE")] = None,
    model: Annotated[str | None, MODEL] = None,
    out: Annotated[Path | None, OUT] = None,
    *,
    replay: Annotated[
        Path | None,
        typer.Option(
            help="Run a classification again, with the same numbers. Images and options are read from its run.json. By "
            "default, --out is the folder of run.json with -replay added to its name.",
            metavar="run.json",
        ),
    ] = None,
    classes: ClassNames = None,
    class_threshold: ClassThresholds = None,
    masks: Annotated[bool, typer.Option(help="Make masks and objects.")] = True,
    masks_as: Annotated[MasksAs, typer.Option(help="Format of the masks: OME-TIFF or OME-Zarr.")] = "tiff",
    save_evidence: Annotated[
        bool, typer.Option("--save-evidence", help="Write the evidence from which masks are made, as OME-TIFF.")
    ] = False,
    objects: Annotated[
        Path | None, typer.Option(help="Your own label image of the cells, or a folder of them.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a run that was stopped or killed, with the same model and options: images that are done "
            "are left as they are. From the start if there is none.",
        ),
    ] = False,
    redo_changed: Annotated[
        bool,
        typer.Option(
            "--redo-changed",
            help="With --resume: classify images again whose files have changed since; otherwise they are refused.",
        ),
    ] = False,
    as_json: AsJson = False,
    **options: object,
) -> None:
    """Classify images and write tables, class maps, masks, overview pictures and the run record.

    IMAGE..., --model and --out are needed, or --replay.
    """
    from napari_milcnn.results.folder import classify_files

    with exit_status():
        if replay is not None:
            _replay(replay, out, model, device_beside_replay(ctx), as_json)
            return
        if not images or model is None or out is None:
            raise OptionsError("to classify, give IMAGE..., --model and --out, or --replay with a run.json")
        trained = loaded(model)
        steps = classify_files(
            trained, images, out, command=sys.argv, classes=classes, masks=masks, masks_as=masks_as,
            save_evidence=save_evidence, objects=objects, resume=resume, redo_changed=redo_changed, on_warning=say,
            mask_options=mask_options_of(options, class_threshold), reading=reading_of(options),
            **evidence_of(options, trained),
        )  # fmt: skip
        _show_classification(steps, trained, out, as_json)


def _replay(record: Path, out: Path | None, model: str | None, device: str | None, as_json: bool) -> None:
    """Run a recorded classification again and print its results."""
    from napari_milcnn.results.replay import recorded_model, replay

    trained = recorded_model(record) if model is None else loaded(model)
    out = out or Path(f"{record.absolute().parent}-replay")
    steps = replay(record, out, trained, device, command=sys.argv, on_warning=warn)
    _show_classification(steps, trained, out, as_json)


def _show_classification(steps: Steps[ImageResult], model: TrainedModel, out: Path, as_json: bool) -> None:
    """Classify images, print the results, and exit with status 1 if an image failed."""
    from napari_milcnn.inference.devices import keep_freed_memory
    from napari_milcnn.inference.unlike import UNKNOWN_LOOK

    keep_freed_memory()
    if model.card.training.look is None:
        warn(UNKNOWN_LOOK)
    results: list[ImageResult] = []
    scaled: set[str] = set()
    for step in shown(steps, "classify"):
        if step.result is not None:
            results.append(step.result)
            _print_plate(step.result, scaled)
            _print_problems(step.result)
    if as_json:
        print_json(_document(model, out, results))
    else:
        output.print(_results_table(results))
        output.print(f"results in {out}")
    if any(result.error for result in results):
        raise typer.Exit(1)


def _print_plate(result: ImageResult, said: set[str]) -> None:
    """Say once for each plate by what its images are scaled, where the model scales them by plate."""
    plate = None if result.prediction is None else result.prediction.plate
    if plate is not None and plate.sentence not in said:
        said.add(plate.sentence)
        messages.print(plate.sentence)


def _print_problems(result: ImageResult) -> None:
    if result.error:
        print_failure(result.error)
    for warning in result.warnings:
        messages.print(f"{shown_name(result.file)}: {warning}", style="yellow")


def _results_table(results: list[ImageResult]) -> Table:
    masks = ["objects"] if any(result.objects is not None for result in results) else []
    table = Table("image", "plane", "top class", "score", "margin", "unlike", *masks, box=None, pad_edge=False)
    for result in results:
        if result.prediction is None:
            table.add_row(shown_name(result.file), "", "failed", style="red")
            continue
        prediction = result.prediction
        for i, (top, score, margin, unlike) in enumerate(
            zip(prediction.top, prediction.scores.max(1), prediction.margin, prediction.unlike, strict=True)
        ):
            objects = [str(result.objects) if i == 0 else ""][: len(masks)]
            table.add_row(
                shown_name(result.file),
                prediction.plane_name(i),
                top or NOTHING,
                f"{score:.3f}" if top else "",
                f"{margin:.3f}" if top else "",
                "" if math.isnan(unlike) else f"{unlike:.2f}",
                *objects,
                style="yellow" if prediction.is_unlike[i] else None,
            )
    return table


def _document(model: TrainedModel, out: Path, results: list[ImageResult]) -> dict[str, object]:
    return {
        "model": {"name": model.card.name, "sha256": model.digest, "classes": model.classes,
                  "knows_training_images": model.card.training.look is not None},
        "out": out,
        "images": [_image_document(result) for result in results],
    }  # fmt: skip


def _image_document(result: ImageResult) -> dict[str, object]:
    prediction = result.prediction
    planes = [] if prediction is None else prediction.table().to_dict("records")
    notes = () if prediction is None else prediction.notes  # the planes say themselves what they are unlike in
    for plane in planes:
        plane[UNLIKE] = None if math.isnan(plane[UNLIKE]) else plane[UNLIKE]
    return {"file": result.file, "error": result.error or None, "warnings": notes, "objects": result.objects,
            "files": result.files, "planes": planes}  # fmt: skip


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("milcnn-demo"),
    as_json: AsJson = False,
) -> None:
    """Classify the shipped sample with the shipped model."""
    from napari_milcnn.model.shipped import sample_folder
    from napari_milcnn.results.folder import classify_files

    with exit_status():
        samples = sorted(sample_folder().glob("*.ome.tif"))
        model = loaded("yeast-sim")
        _show_classification(classify_files(model, samples, out, command=sys.argv), model, out, as_json)
