"""The commands info and simulate."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from napari_milcnn.cli.interrupt import interrupt_between_steps
from napari_milcnn.cli.option_flags import AsJson, given_options, loaded, options_of
from napari_milcnn.cli.progress import exit_status, output, print_json, progress_bar
from napari_milcnn.options import make_options
from napari_milcnn.simulation.options import PLATES_ALIKE, SIDES, PlateOptions, SimulationOptions, square_field

BY_SIDE_OR_IN_PAIRS = ("size", "cells", "penetrance", "weak")
"""Options of a simulation without a flag of the same name: --size sets the first two, the others are pairs."""


def info(
    model: Annotated[str | None, typer.Argument(help="Model .zip, or a shipped model.", metavar="[M.zip]")] = None,
    as_json: AsJson = False,
) -> None:
    """Show devices and versions, or a model's card."""
    from napari_milcnn.model.trained_model import card_json, card_text

    with exit_status():
        if model is None:
            _system(as_json)
        else:
            trained = loaded(model)
            if as_json:
                print_json(card_json(trained))
            else:
                output.print(card_text(trained))


def _system(as_json: bool) -> None:
    import torch

    from napari_milcnn.inference.devices import choose_device, free_memory
    from napari_milcnn.model.shipped import shipped_models
    from napari_milcnn.results.record import versions

    choice = choose_device()
    facts = {
        "device": str(choice), "free memory": f"{free_memory(choice.device) / 1e9:.1f} GB",
        "threads": str(torch.get_num_threads()), "shipped models": ", ".join(shipped_models()), **versions(),
    }  # fmt: skip
    print(json.dumps(facts) if as_json else "\n".join(f"{key:<16}{value}" for key, value in facts.items()))  # noqa: T201


@options_of(SimulationOptions, PlateOptions, skip=BY_SIDE_OR_IN_PAIRS)
def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write the screen to.", metavar="OUT")],
    *,
    fields: Annotated[int, typer.Option(min=1, max=100_000, help="Fields of view for each localisation.")] = 10,
    size: Annotated[int, typer.Option(min=SIDES[0], max=SIDES[1], help="Side of a field, in px.")] = 512,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Random seed: the same seed gives the same screen.")
    ] = 0,
    plates_alike: Annotated[
        bool, typer.Option("--plates-alike", help="Take all plates in the same way: 0 for every --plate option.")
    ] = False,
    plate: Annotated[
        bool, typer.Option("--plate", help="Simulate plates of wells with controls, compounds and doses, and their "
                                           "layout, in place of fields of strains.")
    ] = False,
    **options: object,
) -> None:  # fmt: skip
    """Simulate a yeast localisation screen: two-channel fields, image-level labels, and the truth for each cell.

    With --plate: plates of wells with controls and doses, layout.csv, and the truth for each well.
    """
    from napari_milcnn.simulation.localisations import LOCALISATIONS
    from napari_milcnn.simulation.screen import simulate_screen

    with exit_status():
        wells, looks = given_options(PlateOptions, options), given_options(SimulationOptions, options)
    looks |= PLATES_ALIKE if plates_alike else {}
    if plate:
        _simulate_plates(out, wells, size, seed, looks)
        return
    with exit_status(), progress_bar() as progress, interrupt_between_steps() as stop_if_interrupted:
        steps = simulate_screen(out, fields_per_class=fields, seed=seed, options=square_field(size, **looks))
        task = progress.add_task("simulate", total=fields * len(LOCALISATIONS))
        with closing(steps):
            for _ in steps:
                progress.advance(task)
                stop_if_interrupted()
    output.print(f"images, truth and labels.csv in {out}")


def _simulate_plates(out: Path, wells: dict[str, object], size: int, seed: int, options: dict[str, object]) -> None:
    from napari_milcnn.simulation.plate import LAYOUT, simulate_plates

    with exit_status(), progress_bar() as progress, interrupt_between_steps() as stop_if_interrupted:
        plate = make_options(PlateOptions, wells)
        steps = simulate_plates(out, plate=plate, seed=seed, options=square_field(size, **options))
        task = progress.add_task("simulate", total=plate.plates * plate.wells * plate.sites)
        with closing(steps):
            for _ in steps:
                progress.advance(task)
                stop_if_interrupted()
    output.print(f"images, truth and {LAYOUT} in {out}; napari-milcnn screen {out} --model yeast-sim --layout "
                 f"{out / LAYOUT} --channels GFP,RFP --out RESULTS", soft_wrap=True)  # fmt: skip
