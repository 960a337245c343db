"""Rows of a benchmark, printed and, where asked for, appended to RESULTS.md with date, device and command."""

from __future__ import annotations

import shlex
import sys
from datetime import date
from pathlib import Path

import torch

from napari_milcnn.inference.devices import choose_device

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"


def table(header: list[str], rows: list[list[object]]) -> list[str]:
    """Lines of a Markdown table; numbers with three digits."""
    lines = [header, ["---"] * len(header), *([cell(value) for value in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def cell(value: object) -> str:
    """Text of one cell."""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def report(title: str, lines: list[str], *, keep: bool) -> None:
    """Print a block; append it to RESULTS.md where it is to be kept."""
    script = Path(sys.argv[0]).resolve().relative_to(ROOT).with_suffix("")
    command = shlex.join(["python", "-m", ".".join(script.parts), *sys.argv[1:]])
    head = [f"\n## {title}, {date.today()}\n", f"`{command}`, {choose_device()}, {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}\n"]  # fmt: skip
    text = "\n".join([*head, *lines]) + "\n"
    sys.stdout.write(text)
    if keep:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(text)
