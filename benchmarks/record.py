"""Rows of a benchmark, printed and, where asked for, kept in RESULTS.md with date, device and command.

RESULTS.md holds the latest block of each title. A block that is replaced moves to HISTORY.md, the latest at its end.
"""

from __future__ import annotations

import re
import shlex
import sys
from datetime import date
from pathlib import Path

import torch

from napari_milcnn.inference.devices import choose_device

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
HISTORY = RESULTS.with_name("HISTORY.md")


def table(header: list[str], rows: list[list[object]]) -> list[str]:
    """Lines of a Markdown table; numbers with three digits."""
    lines = [header, ["---"] * len(header), *([cell(value) for value in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def cell(value: object) -> str:
    """Text of one cell."""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def report(title: str, lines: list[str], *, keep: bool) -> None:
    """Print a block; where it is to be kept, it takes the place of the block of the same title in RESULTS.md."""
    script = Path(sys.argv[0]).resolve().relative_to(ROOT).with_suffix("")
    command = shlex.join(["python", "-m", ".".join(script.parts), *sys.argv[1:]])
    head = [f"\n## {title}, {date.today()}\n", f"`{command}`, {choose_device()}, {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}\n"]  # fmt: skip
    text = "\n".join([*head, *lines]) + "\n"
    sys.stdout.write(text)
    if keep:
        keep_block(title, text)


def keep_block(title: str, text: str) -> None:
    """Put a block into RESULTS.md; the one of the same title and another day or run moves to HISTORY.md."""
    blocks = re.split(r"(?=\n## )", RESULTS.read_text(encoding="utf-8"))
    same = [n for n, block in enumerate(blocks) if re.match(rf"\n## {re.escape(title)}, \d{{4}}-\d\d-\d\d\n", block)]
    if same:
        with HISTORY.open("a", encoding="utf-8") as file:
            file.writelines(blocks[n] for n in same)
        blocks[same[-1]] = text
        blocks = [block for n, block in enumerate(blocks) if n not in same[:-1]]
    else:
        blocks.append(text)
    RESULTS.write_text("".join(blocks), encoding="utf-8")
