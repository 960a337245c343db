"""How long screens of 10^4, 10^6 and 10^8 fields take on many workers: python -m benchmarks.speed.screen_schedule.

The schedule is simulated, task by task, with measured costs (benchmarks.speed.screen_workers): tasks are cut as a
screen cuts them; each worker takes the next one when it is free; the scheduler hands out one after another; the time of
a task varies; and the storage gives all workers together no more than its bandwidth. The result says how many hours a
screen takes, how busy the workers are, and what they wait for.
"""

from __future__ import annotations

import argparse
import heapq
from dataclasses import dataclass

import numpy as np

from benchmarks.record import report, table
from napari_milcnn.screens.parts import FieldOfWell, WellTask, tasks_of

WORKERS = (1, 16, 256, 4096)
FIELDS = (10**4, 10**6, 10**8)
SITES = 4
MOST_TASKS = 400_000
"""Tasks that are simulated one by one; a longer screen repeats the middle of a shorter one."""


@dataclass(frozen=True)
class Costs:
    """Measured costs: seconds a field and their variation, MB a field, seconds of the scheduler a task, MB a second."""

    field: float
    variation: float
    megabytes: float
    task: float
    bandwidth: float


def fields_of_a_task(fields: int, workers: int) -> int:
    """Return how many fields a task of a screen has, by the function that cuts the tasks of one."""
    one = FieldOfWell("1", "", "", "f", "", "n")
    wells = [WellTask("p", str(number), (one,) * SITES) for number in range(min(fields, 2_000_000) // SITES)]
    return max(sum(len(well.fields) for well in task) for task in tasks_of(wells, max(32, workers))[:3])


def simulate(fields: int, workers: int, costs: Costs, seed: int = 0) -> tuple[float, float, str]:
    """Simulate a screen -> its seconds, the share of them in which workers compute, and what they wait for."""
    size = fields_of_a_task(fields, workers)
    tasks = -(-fields // size)
    simulated = min(tasks, max(MOST_TASKS, 20 * workers))
    rng = np.random.default_rng(seed)
    reading = workers * costs.megabytes / costs.bandwidth  # seconds a field, if all workers read at once
    field = max(costs.field, reading)
    seconds = rng.gamma(1 / costs.variation**2, costs.variation**2, simulated) * field * size
    free, handed_out, end = [0.0] * workers, 0.0, 0.0
    for length in seconds.tolist():
        handed_out = max(handed_out, free[0]) + costs.task
        end = max(end, handed_out + length)
        heapq.heapreplace(free, handed_out + length)
    end *= tasks / simulated
    busy = fields * costs.field / (workers * end)
    limit = "storage" if reading > costs.field else "scheduler" if workers * costs.task > field * size else "-"
    if limit == "-" and busy < 0.9:
        limit = "too few tasks"
    return end, busy, limit


def main() -> None:
    """Simulate all sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--field", type=float, default=0.22, help="seconds a field and worker")
    parser.add_argument("--variation", type=float, default=0.15, help="of the time of a task")
    parser.add_argument("--megabytes", type=float, default=0.79, help="read and written a field")
    parser.add_argument("--task", type=float, default=0.002, help="seconds of the scheduler a task")
    parser.add_argument("--bandwidth", type=float, default=1000.0, help="MB a second of the storage, for all")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    costs = Costs(options.field, options.variation, options.megabytes, options.task, options.bandwidth)
    rows = []
    for fields in FIELDS:
        for workers in WORKERS:
            seconds, busy, limit = simulate(fields, workers, costs)
            rows.append([f"10^{round(np.log10(fields))}", workers, seconds / 3600, busy, limit])
    header = ["fields", "workers", "hours", "workers busy", "wait for"]
    storage = costs.bandwidth * costs.field / costs.megabytes
    scheduler = costs.field * fields_of_a_task(10**8, 1000) / costs.task
    limits = f"Saturated above {storage:.0f} workers by the storage, above {scheduler:.0f} by the scheduler."
    lines = [f"{costs}", "", *table(header, rows), "", limits]
    report("Schedules of screens, simulated", lines, keep=options.record)


if __name__ == "__main__":
    main()
