"""How late a change of a firing rate is seen, and what nobody could better: `python -m tests.bench.delay [TABLE…]`.

Three tables, in requests, of our mixture e-SR (`drift.esr`), one test by itself and one tick a request:
  oracle    fresh start, null rate known, A = 1e6, against the CUSUM that knows the new rate, at our measured run length
  river     null rate known, at A = 1e4 and at a mean run length of 1e4, against river's detectors tuned to that run
            length (not where none of their settings comes near), which learn the null rate from the stream
  interval  the null that ships: what a baseline of 1,500, 10,000 or 100,000 requests leaves open, A = 1e6
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from stream_interp.drift.esr import Direction
from stream_interp.drift.intervals import DELTA, clopper_pearson
from stream_interp.settings import DriftSettings
from tests.bench.delay_classical import ARL, BEFORE, ONE_SIDED, TUNED, delays, is_tuned, mean_run_length, tuned
from tests.bench.delay_cusum import oracle
from tests.bench.delay_mixture import Estimate, MixtureTest, average, delay, fresh, run_length, watch
from tests.bench.measure import Row

NULL_RATES, RATIOS, HIGHEST_RATE = (0.1, 0.01, 0.001), (0.0, 0.5, 1.5, 2.0, 5.0, 10.0), 0.95
A = 1e6
RUNS, FEWER_RUNS, CUT_RUNS = 200_000, 20_000, 1_000
D_SAE, BASELINES = 4_608, (1_500, 10_000, 100_000)


class Cell(NamedTuple):
    """A change of a feature that fires in a share `p` of the requests, by `ratio`."""

    p: float
    ratio: float

    @property
    def rate(self) -> float:
        """After the change."""
        return min(self.p * self.ratio, HIGHEST_RATE)

    @property
    def direction(self) -> Direction:
        """Of the test that is to see it."""
        return "up" if self.ratio > 1 else "down"


CELLS = [Cell(p, ratio) for p in NULL_RATES for ratio in RATIOS]


class AgainstOracle(NamedTuple):
    """One cell: our measured run length and delay, and the oracle's delays, at our run length and at our A."""

    arl: Estimate
    ours: Estimate
    oracle: float
    oracle_at_a: float

    @property
    def ratio(self) -> Estimate:
        """Our delay in units of the oracle's."""
        return Estimate(self.ours.mean / self.oracle, self.ours.error / self.oracle)


def against_oracle(cell: Cell, runs: int = RUNS, seed: int = 0) -> AgainstOracle:
    """Both from a fresh start, with the change before the first request: the worst case of either."""
    test, rng = MixtureTest(cell.p, cell.direction, A), np.random.default_rng((seed, round(1 / cell.p)))
    arl = run_length(test, runs // 10, rng)  # the oracle's delay moves by a tenth of its error
    ours = delay(test, cell.rate, runs, rng)
    return AgainstOracle(arl, ours, oracle(cell.p, cell.rate, arl.mean).delay, oracle(cell.p, cell.rate, A).delay)


def oracle_table() -> Iterator[str]:
    """As markdown."""
    yield "| p0 | ratio | our run length | our delay | CUSUM's delay | ratio of delays | at equal A |"
    yield "|---|---|---|---|---|---|---|"
    for cell in CELLS:
        row = against_oracle(cell)
        ratio = f"{row.ratio.mean:.3f} ± {row.ratio.error:.3f}"
        equal = row.ours.mean / row.oracle_at_a
        yield f"| {cell.p:g} | {cell.ratio:g} | {row.arl} | {row.ours} | {row.oracle:,.1f} | {ratio} | {equal:.2f} |"


def ours_after_null(test: MixtureTest, rates: list[float]) -> list[Estimate]:
    """Mean requests until the alarm after a change to each rate, of streams that did not alarm in BEFORE requests."""
    rng = np.random.default_rng(0)
    calm = watch(test, fresh(test, FEWER_RUNS), np.full(FEWER_RUNS, test.p), rng, BEFORE)
    m = calm.m[:, ~calm.alarmed]
    return [average(watch(test, m, np.full(m.shape[1], rate), rng).requests) for rate in rates]


def with_run_length(p: float, direction: Direction) -> MixtureTest:
    """Our test with a measured run length of ARL; A = ARL would promise it, and gives more."""
    test = MixtureTest(p, direction, ARL)
    for _ in range(4):  # the run length is nearly proportional to A
        test = MixtureTest(p, direction, test.a * ARL / run_length(test, FEWER_RUNS, np.random.default_rng(0)).mean)
    return test


def beside_river(p: float, direction: Direction, cells: list[Cell]) -> Iterator[str]:
    """Settings and run lengths of all, then the delays of each cell; the change comes after BEFORE null requests."""
    rates, told = [c.rate for c in cells], []
    columns: list[list[Estimate | None]] = []
    for test in (MixtureTest(p, direction, ARL), with_run_length(p, direction)):
        columns.append([*ours_after_null(test, rates)])
        told.append(f"A = {test.a:,.0f}: {run_length(test, FEWER_RUNS, np.random.default_rng(0))}")
    for name, (field, *_) in TUNED.items():
        rival, arl = tuned(name, p, direction == "down" and name in ONE_SIDED)
        columns.append(delays(rival, p, rates, round(1 / p)) if is_tuned(arl) else [None] * len(cells))
        told.append(f"{field} = {getattr(rival.config, field):.3g}: {arl}")
    yield f"| {p:g} | {direction}: run length | " + " | ".join(told) + " |"
    for cell, row in zip(cells, zip(*columns, strict=True), strict=True):
        seen = ["cannot be tuned" if e is None else str(e) if e.mean < ARL else "ARL or more" for e in row]
        yield f"| {p:g} | {cell.ratio:g} | " + " | ".join(seen) + " |"


def river_table() -> Iterator[str]:
    """As markdown."""
    yield "| p0 | ratio | ours | ours, tuned | " + " | ".join(TUNED) + " |"
    yield "|---|---|---|---|" + "---|" * len(TUNED)
    for p in NULL_RATES:
        for direction in ("down", "up"):
            yield from beside_river(p, direction, [c for c in CELLS if c.p == p and c.direction == direction])


def with_interval_null(cell: Cell, baseline_requests: int) -> MixtureTest | None:
    """The test that a typical baseline of that many requests arms; None where its null covers the change."""
    settings, fired = DriftSettings(), np.array([round(cell.p * baseline_requests)])
    low, high = clopper_pearson(fired, baseline_requests, DELTA / 2 / (2 * D_SAE))
    lower, upper = float(low[0]) / settings.tolerance, float(high[0]) * settings.tolerance
    armed = cell.direction == "up" or lower > 1 / settings.sla_requests
    if lower <= cell.rate <= upper or not armed:
        return None
    return MixtureTest(upper if cell.direction == "up" else lower, cell.direction, A)


def _told(test: MixtureTest | None, rate: float) -> str:
    if test is None:
        return "not covered"
    watched = watch(test, fresh(test, CUT_RUNS), np.full(CUT_RUNS, rate), np.random.default_rng(0), 2 * A)
    found = mean_run_length(np.where(watched.alarmed, watched.requests, np.inf), 2 * A)
    return str(found) if found.mean < A else "A or more"


def interval_table() -> Iterator[str]:
    """As markdown."""
    yield "| p0 | ratio | " + " | ".join(f"{n:,} requests" for n in BASELINES) + " |"
    yield "|---|---|" + "---|" * len(BASELINES)
    for cell in CELLS:
        told = [_told(with_interval_null(cell, n), cell.rate) for n in BASELINES]
        yield f"| {cell.p:g} | {cell.ratio:g} | " + " | ".join(told) + " |"


def rows() -> Iterator[Row]:
    """The oracle's table; quartiles of the ratio are those of its error."""
    for cell in CELLS:
        row, quartile = against_oracle(cell), 0.674
        low, high = (row.ratio.mean + sign * quartile * row.ratio.error for sign in (-1, 1))
        name = f"delay of rate {cell.p:g} x {cell.ratio:g}"
        yield Row(name, row.ours.mean, "requests", row.ratio.mean, low, high, "the CUSUM that knows the new rate")


TABLES = {"oracle": oracle_table, "river": river_table, "interval": interval_table}


def main() -> None:
    """Prints the tables that are named; without names all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; none: all")
    names = parser.parse_args().tables or list(TABLES)
    if unknown := set(names) - set(TABLES):
        parser.error(f"no table {', '.join(sorted(unknown))}")
    for name in names:
        print(f"\n{name}\n")
        for line in TABLES[name]():
            print(line, flush=True)


if __name__ == "__main__":
    main()
