"""Real survival data sets that ship with lifelines, and ways to cut them into sites."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import pytest
from lifelines.datasets import load_gbsg2, load_lung, load_rossi

from fedage.common.analyses.base import Analysis, Done, Iterate, run_locally
from fedage.common.analyses.survival.cox_pooled import CoxPooled
from fedage.common.analyses.survival.kaplan_meier import KaplanMeier
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import Statistic, total

Sites = dict[str, Cohort]
ROSSI = ("fin", "age", "race", "wexp", "mar", "paro", "prio")


def cohort_of(frame: pd.DataFrame) -> Cohort:
    return Cohort({str(column): frame[column].to_numpy(dtype=float) for column in frame.columns})


def cut(frame: pd.DataFrame, sites: int, seed: int) -> Sites:
    """Patients to sites at random, in random order within a site; a site may be tiny."""
    rng = np.random.default_rng(seed)
    shuffled = frame.sample(frac=1.0, random_state=seed)
    where = rng.choice(sites, size=len(frame), p=rng.dirichlet(np.ones(sites)))
    names = rng.permutation(sites)
    return {f"site-{names[k]}": cohort_of(shuffled[where == k]) for k in range(sites)}


def result_of(analysis: Analysis, sites: Mapping[str, Cohort]) -> dict:
    outcome = run_locally(analysis, sites)
    assert isinstance(outcome, Done), outcome
    return outcome.result


def summed(analysis: Analysis, sites: Mapping[str, Cohort], iterate: Iterate) -> Statistic:
    return total(analysis.layout(iterate), {site: analysis.local(cohort, iterate) for site, cohort in sites.items()})


def on_tables(model: CoxPooled | KaplanMeier, newton: Iterate | None = None) -> Iterate:
    """An iterate of tables at every table time, with nothing between them."""
    grid = {"ends": list(range(len(model.times))), "exact": True, "split_years": 0.0, "median_within_years": None}
    return {**model.begin(grid), **(newton or {})}


class Tools:
    """What the tests share; a fixture, as test modules do not import each other."""

    rossi = ROSSI
    cohort_of = staticmethod(cohort_of)
    cut = staticmethod(cut)
    result_of = staticmethod(result_of)
    summed = staticmethod(summed)
    on_tables = staticmethod(on_tables)


@pytest.fixture(scope="session")
def tools() -> type[Tools]:
    return Tools


@pytest.fixture(scope="session")
def rossi() -> pd.DataFrame:
    return load_rossi().astype(float)


@pytest.fixture(scope="session")
def lung() -> pd.DataFrame:
    return load_lung()[["inst", "time", "status", "age", "sex"]].astype(float)


@pytest.fixture(scope="session")
def gbsg2() -> pd.DataFrame:
    raw = load_gbsg2()
    frame = raw[["age", "tsize", "pnodes", "progrec", "estrec", "time", "cens"]].astype(float)
    frame["horTh"] = (raw["horTh"] == "yes").astype(float)
    frame["menostat"] = (raw["menostat"] == "Pre").astype(float)
    frame["tgrade_II"] = (raw["tgrade"] == "II").astype(float)
    frame["tgrade_III"] = (raw["tgrade"] == "III").astype(float)
    return frame


@pytest.fixture(scope="session")
def distinct() -> Callable[[pd.Series], tuple[float, ...]]:
    """Every distinct time, so that tables are exact."""
    return lambda times: tuple(float(time) for time in np.unique(times))
