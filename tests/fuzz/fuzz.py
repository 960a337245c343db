"""Try files made to hurt for some minutes: python tests/fuzz/fuzz.py [--minutes 5] [--seed 0] [--keep FOLDER].

Each case is opened by a process of its own (`fuzz_worker`), within limits of memory and time. What is not read, and not
refused with a reason, is a finding: it is printed once for each kind of failure, and its case is kept in a folder, to
be tried again by naming its file. Ends with status 1 if there is any.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

from fuzz_images import image_cases, zarr_cases
from fuzz_models import checkpoint_cases, model_cases, model_parts
from fuzz_parts import Case
from fuzz_screens import screen_cases
from fuzz_tables import label_cases, record_cases, result_cases
from fuzz_worker import Outcome, Worker
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

STRATEGIES: dict[str, st.SearchStrategy[Case]] = {
    "images": image_cases(), "zarr": zarr_cases(), "labels": label_cases(), "results": result_cases(),
    "records": record_cases(), "screens": screen_cases(), "models": model_cases(), "checkpoints": checkpoint_cases(),
}  # fmt: skip
_AT_ONCE = 100
"""Cases that are drawn from one seed."""


def draw_cases(strategy: st.SearchStrategy[Case], number: int, count: int, use: Callable[[Case], None]) -> None:
    """Draw cases from a seed, and use each."""

    @seed(number)
    @settings(max_examples=count, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(strategy)
    def each(case: Case) -> None:
        use(case)

    each()


def try_case(worker: Worker, case: Case, where: Path) -> Outcome:
    """Open one case in a folder, which is emptied before."""
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    case.write(where)
    return worker.run(case.target, where)


def signature(case: Case, outcome: Outcome) -> str:
    """Return what failures of one kind have in common: the exception, and the line of ours that it came through."""
    lines = [line.strip() for line in outcome.text.strip().splitlines()]
    ours = [line for line in lines if "napari_milcnn" in line and line.startswith("File")]
    last = re.sub(r"0x[0-9a-f]+|\d+|'[^']*'", "#", lines[-1] if lines else "")[:100]
    return f"{case.target}: {outcome.kind}: {last} | {ours[-1].split('napari_milcnn/')[-1] if ours else ''}"


class Campaign:
    """Counts what came of many cases, and keeps those that failed."""

    def __init__(self, keep: Path) -> None:
        self.worker, self.keep = Worker(), keep
        self.counts: Counter[tuple[str, str]] = Counter()
        self.findings: Counter[str] = Counter()
        self.slowest = 0.0

    def use(self, case: Case) -> None:
        """Try one case."""
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            outcome = try_case(self.worker, case, Path(folder) / "case")
        self.slowest = max(self.slowest, time.monotonic() - started)
        self.counts[case.target, outcome.kind] += 1
        if outcome.is_good:
            return
        name = signature(case, outcome)
        self.findings[name] += 1
        if self.findings[name] == 1:
            self.keep.mkdir(parents=True, exist_ok=True)
            path = self.keep / f"{re.sub(r'[^a-z]+', '-', name.lower())[:80]}{len(self.findings)}.json"
            path.write_text(case.to_json())
            path.with_suffix(".txt").write_text(f"{name}\n{outcome.text}\n")
            sys.stdout.write(f"FOUND {name}\n      kept as {path}\n")
            sys.stdout.flush()

    def run(self, minutes: float, first: int, only: list[str]) -> int:
        """Try cases of all kinds in turn -> the number of kinds of failures."""
        model_parts()  # made once, and not while hypothesis draws: torch would take its random numbers
        end = time.monotonic() + 60 * minutes
        numbers = random.Random(first)
        try:
            for kind in cycle(only):
                draw_cases(STRATEGIES[kind], numbers.randrange(2**32), _AT_ONCE, self.use)
                if time.monotonic() > end:
                    break
        except KeyboardInterrupt:
            sys.stdout.write("stopped\n")
        self.worker.close()
        self.report()
        return len(self.findings)

    def report(self) -> None:
        """Print the counts."""
        for (target, kind), count in sorted(self.counts.items()):
            sys.stdout.write(f"{target:<12}{kind:<10}{count}\n")
        sys.stdout.write(f"{sum(self.counts.values())} cases, the slowest {self.slowest:.1f} s; "
                         f"{sum(self.findings.values())} failures of {len(self.findings)} kinds\n")  # fmt: skip
        for name, count in self.findings.most_common():
            sys.stdout.write(f"{count:>6}  {name}\n")


def main() -> int:
    """Run the command line -> the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--only", action="append", choices=list(STRATEGIES))
    parser.add_argument("cases", nargs="*", type=Path, help="cases that were kept, to try again")
    given_options = parser.parse_args()
    campaign = Campaign(given_options.keep)
    if not given_options.cases:
        return (
            1 if campaign.run(given_options.minutes, given_options.seed, given_options.only or list(STRATEGIES)) else 0
        )
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for path in given_options.cases:
            outcome = try_case(campaign.worker, Case.from_json(path.read_text()), Path(folder) / "case")
            sys.stdout.write(f"{path.name}: {outcome.kind}: {outcome.text}\n")
            failed += not outcome.is_good
    campaign.worker.close()
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
