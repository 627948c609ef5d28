"""Bias and coverage of survival curves and of the Cox model with one baseline hazard, as the sites' tables give them.

    python tests/bench/bench_survival_tables.py [repetitions] [--cox]

Each repetition draws patients for five sites, runs the analyses as a campaign does (the sites agree on a common grid,
then tell their tables, minimum count 10) and compares each point with the truth at its own time. Event times are
exponential or Weibull with shape .6 or 2, all with scale 5 years; censoring is uniform over 15 years. The table times
are 1, 2, 3, 5, 8, 10, half years, or months up to ten years.

What a reader sees are the points given; beside them stands how far off the refused ones would have been.
"""

from __future__ import annotations

import sys

import numpy as np

from fedage.common.analyses.base import Again, Analysis, Done, Following, IterateRefused, NotComputable, Outcome
from fedage.common.analyses.survival.cox_pooled import CoxPooled
from fedage.common.analyses.survival.kaplan_meier import KaplanMeier
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import total

SIZES = {
    "five of 80": (80,) * 5,
    "five of 200": (200,) * 5,
    "five of 1000": (1000,) * 5,
    "60 to 600": (60, 120, 200, 350, 600),
}
SHAPES = {"constant": 1.0, "Weibull .6": 0.6, "Weibull 2": 2.0}
GRIDS = {
    "1, 2, 3, 5, 8, 10": (1.0, 2.0, 3.0, 5.0, 8.0, 10.0),
    "half years": tuple(k / 2 for k in range(1, 21)),
    "months": tuple(k / 12 for k in range(1, 121)),
}
PERIODS = ((0.0, 2.0), (2.0, 4.0), (4.0, 5.0))
SCALE_YEARS, LAST_CENSORED_YEARS, BETA, MINIMUM = 5.0, 15.0, 0.7, 10


def hospitals(
    sizes: tuple[int, ...], shape: float, rng: np.random.Generator, *, beta: float = 0.0
) -> dict[str, Cohort]:
    """One cohort a site; x is standard normal with log hazard ratio `beta` a unit."""
    sites = {}
    for number, n in enumerate(sizes):
        x = rng.normal(size=n)
        died = SCALE_YEARS * (rng.exponential(size=n) * np.exp(-beta * x)) ** (1 / shape)
        left = rng.uniform(0, LAST_CENSORED_YEARS, n)
        columns = {"time_years": np.minimum(died, left), "event": (died <= left).astype(float), "x": x}
        sites[f"site-{number}"] = Cohort(columns)
    return sites


def truth(years: float, shape: float) -> float:
    """S(t) = exp(−(t/5)^shape)."""
    return float(np.exp(-((years / SCALE_YEARS) ** shape)))


def run_guarded(analysis: Analysis, sites: dict[str, Cohort], *, minimum: int) -> Outcome:
    """As a campaign does it: a site withholds an answer of which a cell is small, and the others go on."""
    if isinstance(analysis, Following):
        before = run_guarded(analysis.preceding, sites, minimum=minimum)
        if not isinstance(before, Done):
            return before
        iterate = analysis.begin(before.result)
    else:
        iterate = analysis.first()
    while True:
        answers = {}
        for name, cohort in sites.items():
            try:
                answer = analysis.local(cohort, iterate)
            except IterateRefused:
                continue
            if answer.smallest is not None and answer.smallest.count >= minimum:
                answers[name] = answer
        if not answers:
            return NotComputable("every site withheld its contribution")
        outcome = analysis.combine(total(analysis.layout(iterate), answers), iterate)
        if not isinstance(outcome, Again):
            return outcome
        iterate = outcome.iterate


def curve_of(sites: dict[str, Cohort], times: tuple[float, ...], *, minimum: int = MINIMUM) -> Outcome:
    """The curve of all patients."""
    analysis = KaplanMeier("curve", times, gap=None, subset=None, minimum_count=minimum)
    return run_guarded(analysis, sites, minimum=minimum)


def points(outcome: Outcome, shape: float) -> list[tuple[float, float, float, bool]]:
    """Of each point the years, the error, whether the interval covers (NaN if refused), and whether it is given.

    A refused point is worked out again from the counts, so that the bench can say what refusing it spares.
    """
    if not isinstance(outcome, Done):
        return []
    (group,) = outcome.result["groups"]
    n, d, rest = (np.array(group[name], dtype=float) for name in ("at_risk", "events_at", "remaining"))
    survival = np.cumprod(1 - d / np.maximum(n - (n - d - rest) / 2, 1e-9))
    found = []
    for at, years in enumerate(outcome.result["table_times"]):
        true, given = truth(years, shape), group["survival"][at] is not None
        covers = float(group["ci95_low"][at] <= true <= group["ci95_high"][at]) if given else np.nan
        found.append((years, survival[at] - true, covers, given))
    return found


def curves(repetitions: int) -> None:
    """Print the table of curves."""
    print(f"Curves, {repetitions} repetitions, minimum count {MINIMUM}, seed 1")
    print("by follow-up of the points: given a repetition | bias of those (of mean) | coverage | bias of the refused")
    for grid, times in GRIDS.items():
        for hazard, shape in SHAPES.items():
            for name, sizes in SIZES.items():
                rng = np.random.default_rng(1)
                found = []
                for _ in range(repetitions):
                    found += points(curve_of(hospitals(sizes, shape, rng), times), shape)
                years, error, covers, given = np.array(found, dtype=float).reshape(-1, 4).T
                said = []
                for after, up_to in PERIODS:
                    within = (years > after) & (years <= up_to)
                    shown, refused = within & (given == 1), within & (given == 0)
                    spared = f"{error[refused].mean():+.3f}" if refused.any() else "  -   "
                    if shown.sum() < 20:
                        said.append(f"{shown.sum() / repetitions:5.2f} {'-':^22} {spared}")
                        continue
                    bias = f"{error[shown].mean():+.3f} ({error[shown].std() / shown.sum() ** 0.5:.3f})"
                    said.append(f"{shown.sum() / repetitions:5.2f} {bias} {covers[shown].mean():.2f}     {spared}")
                print(f"{grid:18} {hazard:11} {name:13} | {' | '.join(said)}", flush=True)


def models(repetitions: int) -> None:
    """Print the table of Cox models with one baseline hazard."""
    print(f"\nCox, one baseline hazard, β = {BETA}: given | bias (of mean) | SD | SE | coverage")
    for grid in ("1, 2, 3, 5, 8, 10", "half years"):
        for hazard, shape in SHAPES.items():
            for name, sizes in SIZES.items():
                rng, fits = np.random.default_rng(1), []
                for _ in range(repetitions):
                    model = CoxPooled("cox", ("x",), GRIDS[grid], subset=None, minimum_count=MINIMUM)
                    outcome = run_guarded(model, hospitals(sizes, shape, rng, beta=BETA), minimum=MINIMUM)
                    if isinstance(outcome, Done):
                        (fit,) = outcome.result["covariates"]
                        fits.append((fit["coef"], fit["se"]))
                    else:
                        assert isinstance(outcome, NotComputable)
                said = "refused" if not fits else "-"
                if len(fits) >= 10:
                    b, se = np.array(fits).T
                    covered = np.mean(np.abs(b - BETA) < 1.96 * se)
                    bias = f"{b.mean() - BETA:+.3f} ({b.std() / len(b) ** 0.5:.3f})"
                    said = f"{bias} {b.std():.3f} {se.mean():.3f} {covered:.2f}"
                print(f"{grid:18} {hazard:11} {name:13} {len(fits) / repetitions:4.0%} | {said}", flush=True)


if __name__ == "__main__":
    count = int(next((word for word in sys.argv[1:] if word.isdigit()), "500"))
    if "--cox" not in sys.argv:
        curves(count)
    models(count)
