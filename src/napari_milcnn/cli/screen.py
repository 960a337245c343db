"""The commands screen, wells and label."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_milcnn.cli.option_flags import (
    MODEL,
    OUT,
    TABLE_OUT,
    AsJson,
    ClassNames,
    ClassThresholds,
    evidence_of,
    given_options,
    loaded,
    mask_options_of,
    options_of,
    reading_of,
    reading_options,
    table_lock,
)
from napari_milcnn.cli.progress import exit_status, messages, output, print_failure, print_json, say, shown
from napari_milcnn.errors import OptionsError
from napari_milcnn.options import EvidenceOptions, ForegroundOptions, MaskOptions, ScreenOptions, StatisticsOptions

if TYPE_CHECKING:
    from napari_milcnn.progress import Steps
    from napari_milcnn.screens.parts import WellDone


@options_of(ForegroundOptions, prefix="foreground_", optional=True)
@options_of(ScreenOptions, EvidenceOptions, MaskOptions, skip=("foreground", "class_thresholds"))
@partial(reading_options, without=("plates",))  # a screen has plates and controls of its own
def screen_command(
    source: Annotated[
        Path | None,
        typer.Argument(help="Folder of images, table of images, OME-Zarr plate, or OME-TIFF with a series for each "
                            "field.", metavar="SOURCE"),
    ] = None,
    model: Annotated[str | None, MODEL] = None,
    out: Annotated[Path | None, OUT] = None,
    *,
    layout: Annotated[
        Path | None,
        typer.Option(help="Table with a row for each well: well and, if known, plate, treatment, dose, strain, control "
                          "(negative, positive, empty), label, and others; or, for a table of images that says what "
                          "each well was given, with a row for each treatment.", metavar="LAYOUT.csv"),
    ] = None,
    classes: ClassNames = None,
    class_threshold: ClassThresholds = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the screen in the folder, with the same model and options: wells "
                                      "that are done are left as they are. From the start if there is none."),
    ] = False,
    redo_changed: Annotated[
        bool,
        typer.Option("--redo-changed", help="With --resume: classify wells again that have other images now, or were "
                                            "classified with another model or other options; otherwise these are "
                                            "refused."),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="With --resume: classify wells again in which a field failed; otherwise "
                                            "only if its file has changed."),
    ] = False,
    summarise: Annotated[
        bool,
        typer.Option("--summarise", help="Only write the tables of the screen in --out from the wells that are done, "
                                         "as after the last job of a job array."),
    ] = False,
    as_json: AsJson = False,
    **options: object,
) -> None:  # fmt: skip
    """Classify a whole screen, on many processes or computers, into one table.

    SOURCE, --model and --out are needed, or --summarise and --out.
    """
    with exit_status():
        if out is None or (not summarise and (source is None or model is None)):
            raise OptionsError("to classify a screen, give SOURCE, --model and --out; or --summarise and --out")
        if summarise:
            _summarise(out, given_options(StatisticsOptions, options))
            return
        from napari_milcnn.screens.run import screen

        assert source is not None and model is not None  # noqa: PT018
        trained = loaded(model)
        steps = screen(
            trained, source, out, layout=layout, reading=reading_of(options), classes=classes, resume=resume,
            redo_changed=redo_changed, retry_failed=retry_failed, command=sys.argv, on_warning=say,
            mask_options=mask_options_of(options, class_threshold), **given_options(ScreenOptions, options),
            **evidence_of(options, trained),
        )  # fmt: skip
        _show_screen(steps, out, as_json)


def wells_command(
    folder: Annotated[Path, typer.Argument(help="Folder of a screen, finished or still running.", metavar="FOLDER")],
    *,
    like: Annotated[str | None, typer.Option(help="List the wells that are most like this one, such as B03.")] = None,
    plate: Annotated[str | None, typer.Option(help="The plate of that well, in a screen of several plates.")] = None,
    count: Annotated[int, typer.Option(help="Most wells to list with --like.", min=1, max=100_000)] = 20,
    out: Annotated[Path | None, TABLE_OUT] = None,
    as_json: AsJson = False,
) -> None:
    """List the wells of a screen that no class explains, clusters of them first; with --like, the wells like one."""
    from napari_milcnn.cli.labels import write_and_print
    from napari_milcnn.errors import ResultsError
    from napari_milcnn.screens.likeness import CLUSTER, LIKENESS, UNEXPLAINED, unexplained_wells, wells_like
    from napari_milcnn.screens.outputs.crate import FILES_OF_SCREEN
    from napari_milcnn.screens.read import read_screen
    from napari_milcnn.screens.well_labels import well_named

    with exit_status(), table_lock(out, *(folder / f"{name}.csv" for name in FILES_OF_SCREEN)):
        if plate is not None and like is None:
            raise OptionsError("--plate says on which plate the well of --like is; give --like, too")
        found = read_screen(folder)
        if found.features is None:
            raise ResultsError(f"{folder} holds no features of wells; classify the screen again")
        if like is None:
            table, front = unexplained_wells(found.features), [UNEXPLAINED, CLUSTER]
        else:
            table, front = wells_like(found.features, *well_named(found, like, plate), count), [LIKENESS]
        write_and_print(table, out, as_json, table[["plate", "well", *front]])
        if not found.growth.finished:
            messages.print(f"{found.growth.words}; the others are not listed", style="yellow")


def label_command(
    folder: Annotated[Path, typer.Argument(help="Folder of a screen or of a classification.", metavar="FOLDER")],
    *,
    well: Annotated[list[str], typer.Option("--well", help="Well to label, such as B03; repeatable.")],
    label: Annotated[
        list[str], typer.Option("--label", help="What it shows; repeatable, where images show several classes.")
    ],
    plate: Annotated[str | None, typer.Option(help="The plate of the wells, where there are several.")] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="Table of labels to write to, which may exist already. Default: corrected_labels.csv in "
                          "FOLDER.", metavar="LABELS.csv"),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace other labels that the images have; otherwise they are refused.")
    ] = False,
) -> None:  # fmt: skip
    """Give the images of wells a label in a table of labels, which train and the Train dock read."""
    from napari_milcnn.screens.read import open_results
    from napari_milcnn.screens.well_labels import label_wells, well_named

    with exit_status():
        found = open_results(folder)
        wells = [well_named(found, name, plate) for name in well]
        output.print(label_wells(found, wells, label, table, replace=replace))


def _summarise(out: Path, options: dict[str, object]) -> None:
    from napari_milcnn.output_lock import locked_folder
    from napari_milcnn.screens.summary import summarise

    with locked_folder(out):
        tables = summarise(out, **options)
    done, wells = (len(table[["plate", "well"]].drop_duplicates()) for table in (tables.predictions, tables.fields))
    output.print(f"{len(tables.predictions)} rows in {out / 'predictions.csv'}")
    if done < wells:
        messages.print(f"{done} of {wells} wells are done; the others are not in the tables", style="yellow")


def _show_screen(steps: Steps[WellDone], out: Path, as_json: bool) -> None:
    """Classify a screen, and exit with status 1 if a field failed."""
    from napari_milcnn.inference.devices import keep_freed_memory

    keep_freed_memory()
    wells: list[WellDone] = []
    for step in shown(steps, "screen"):
        if step.result is not None:
            wells.append(step.result)
            for reason in step.result.failures:
                print_failure(reason)
    fields, failed = sum(well.fields for well in wells), sum(len(well.failures) for well in wells)
    before = sum(well.before for well in wells)
    if as_json:
        print_json({"out": out, "wells": len(wells), "before": before, "fields": fields, "failed": failed})
    else:
        output.print(f"{len(wells)} wells, {fields} fields, {failed} of them failed; results in {out}")
    if failed:
        raise typer.Exit(1)
