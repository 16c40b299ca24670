"""What the results of bench_finetune say: means over seeds, differences, costs."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.benchmarks.finetune_reference import DEFECTS, standing
from tests.benchmarks.finetune_rows import Case
from tests.benchmarks.processes import elapsed

OURS, PRESET, REFERENCE = "ours", "preset", "reference"
RESCORED = "reference_by_our_scorer"
AS_IT_IS = "reference_as_it_is"

Result = dict[str, Any]


def summarize(scores: Sequence[float | None]) -> dict[str, Any]:
    """Return the scores of all seeds with their mean and sample deviation."""
    found = [score for score in scores if score is not None]
    return {
        "scores": list(scores),
        "mean": statistics.fmean(found) if found else None,
        "deviation": statistics.stdev(found) if len(found) > 1 else None,
    }


def summarize_runs(results: Sequence[Result], slots: int) -> dict[str, Any]:
    """Return the scores, and what all seeds cost where `slots` of them run side by side."""
    seconds = [result["seconds"] for result in results]
    return {
        **summarize([result["score"] for result in results]),
        "seconds": seconds,
        "wall_clock_seconds": round(elapsed(seconds, slots), 1),
        "cpu_seconds": round(sum(result["cpu_seconds"] for result in results), 1),
    }


def compare(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the difference of the means, two standard errors of it, and what that says."""
    if None in ours["scores"] or None in theirs["scores"]:
        return {"verdict": "not comparable"}
    difference = ours["mean"] - theirs["mean"]
    if None in (ours["deviation"], theirs["deviation"]):
        return {"difference": difference, "verdict": "too few seeds"}
    sides = [(side["deviation"], len(side["scores"])) for side in (ours, theirs)]
    bound = 2 * math.sqrt(sum(deviation**2 / count for deviation, count in sides))
    verdict = "agree" if abs(difference) <= bound else "differ"
    return {"difference": difference, "two_standard_errors": bound, "verdict": verdict}


def summarize_sides(
    case: Case, results: Mapping[str, Sequence[Result]], threads: int
) -> dict[str, Any]:
    """Return the figures of each side, and what comparing them says.

    results: side -> results of all seeds; ours is there, preset and reference perhaps.
    """
    sides = {
        side: summarize_runs(found, 1 if side == REFERENCE else threads)
        for side, found in results.items()
    }
    record: dict[str, Any] = {"sides": sides, "comparisons": {}}
    if REFERENCE not in results:
        return record
    theirs = results[REFERENCE]
    for side in (RESCORED, AS_IT_IS):
        if all(result.get(side) is not None for result in theirs):
            sides[side] = summarize([result[side] for result in theirs])
    for first in (OURS, PRESET):
        if first in results:
            record["comparisons"] |= {
                f"{first} - {other}": compare(sides[first], sides[other])
                for other in (REFERENCE, RESCORED, AS_IT_IS)
                if other in sides
            }
    walls = [sides[side]["wall_clock_seconds"] for side in (REFERENCE, OURS)]
    record["wall_clock_ratio"] = round(walls[0] / walls[1], 2)
    mended = {defect for result in theirs for defect in result["defects"]}
    record["mended"] = {defect: DEFECTS[defect] for defect in sorted(mended)}
    record["standing"] = standing(case)
    return record


def show(name: str, record: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Say the figures of one data set."""
    say(f"{name}: {record['metric']} in percent, {record['counts']['scored']} test rows")
    for side, figures in record["sides"].items():
        mean, deviation = figures["mean"], figures["deviation"]
        score = "no score" if mean is None else f"{mean:6.2f}"
        score += "" if deviation is None else f" +- {deviation:.2f}"
        line = f"  {side.replace('_', ' '):<26}{score:<18}"
        if "seconds" in figures:
            wall, cpu = figures["wall_clock_seconds"], figures["cpu_seconds"]
            line += f"wall {wall:,.0f} s, CPU {cpu:,.0f} s"
        say(line.rstrip())
    for pair, figures in record["comparisons"].items():
        told = figures["verdict"]
        if "difference" in figures:
            bound = figures.get("two_standard_errors", math.nan)
            told = f"{figures['difference']:+.2f}, two standard errors {bound:.2f}: {told}"
        say(f"  {pair.replace('_', ' ')}: {told}")
    if "wall_clock_ratio" in record:
        walls = [f"{record['sides'][s]['wall_clock_seconds']:,.0f} s" for s in (REFERENCE, OURS)]
        say(f"  wall-clock ratio {record['wall_clock_ratio']:.2f} ({' / '.join(walls)})")
    for kind, title in (("mended", "mended, else no score"), ("standing", "there in every run")):
        for defect, text in record.get(kind, {}).items():
            say(f"  {defect} {text} ({title})")
