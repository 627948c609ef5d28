"""A site whose sums are of patients that nobody has: each is set aside by a named rule, and the others are analysed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedage.common.analyses.agreement import COLUMNS, Agreed
from fedage.common.analyses.base import Analysis, Iterate
from fedage.common.analyses.of_file import COX
from fedage.common.analyses.plan import registered
from fedage.common.analyses.survival import results as survival_results
from fedage.common.analyses.survival.kaplan_meier import KAPLAN_MEIER
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import ANALYSE
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import MAX_PATIENTS, Statistic
from fedage.server.sites.incoming import Answer
from fedage.server.sites.site_info import SiteInfo
from fedage.server.sites.sums import Missing, read_statistic
from tests.attacks.hostile_site import Info, Payload, run
from tests.machinery import MemorySite, columns, memory_site

FILE = """
[campaign]
name = "hostile-sums"
purpose = "Analyse tables beside a site that lies"
seed = 7
sites = ["a", "b", "c"]
wait_s = 1
[table]
age = "age"
[survival]
time_grid_years = 0.25
table_times_years = [4, 10]
curves_by = "is_male"
[[survival.models]]
name = "first"
covariates = ["true_gap_years", "age_years"]
[privacy]
minimum_count = 5
"""
STEP = f"{COX}first"


def members(folder: Path) -> list[MemorySite]:
    return [memory_site(name, folder / "sites", count=120, seed=number) for number, name in enumerate("abc")]


def layout_of(step: str) -> Any:
    analysis = registered(parse_campaign(FILE))[step]
    return analysis.layout(agreed(analysis))


def agreed(analysis: Analysis) -> Iterate:
    """The iterate that the first sums of a step answer: the columns are agreed before."""
    return {COLUMNS: np.ones(len(analysis.analysis.reducible))} if isinstance(analysis, Agreed) else analysis.first()


def block(step: str, name: str, change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Change one block of a step's first vector."""

    def alter(vector: Any) -> Any:
        layout, changed = layout_of(step), np.array(vector)
        layout.block(changed, name)[...] = change(layout.block(changed, name))
        return changed

    return alter


SUMS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "negative count": (block(STEP, "n", lambda n: -n), "sum-bounds"),
    "a patient and a half": (block(STEP, "n", lambda n: n + 0.5), "sum-count"),
    "a third of an event": (block(STEP, "events", lambda n: n / 3 + 0.1), "sum-count"),
    "more than described": (block(STEP, "n", lambda _: 121.0), "sum-patients"),
    "the largest count there is": (block(STEP, "n", lambda _: 1e7), "sum-patients"),
    "more than the layout allows": (block(STEP, "n", lambda _: 2e7), "sum-bounds"),
    "a sum of more patients than described": (block(STEP, "x", lambda x: x + 1e9), "sum-patients"),
    "3e38": (lambda v: np.full_like(v, 3e38), "sum-bounds"),
    "1e300": (lambda v: np.full_like(v, 1e300), "sum-bounds"),
    "nan": (lambda v: v * np.nan, "sum-not-finite"),
    "infinity": (lambda v: np.full_like(v, -np.inf), "sum-not-finite"),
    "float32": (lambda v: v.astype(np.float32), "sum-type"),
    "whole numbers": (lambda v: np.rint(v).astype(np.int64), "sum-type"),
    "bool": (lambda v: v > 0, "sum-type"),
    "one value more": (lambda v: np.append(v, 0.0), "sum-size"),
    "two-dimensional": (lambda v: v[None], "sum-size"),
    "empty": (lambda v: v[:0], "sum-size"),
}


@pytest.mark.parametrize("kind", SUMS)
def test_sums_that_break_a_rule_count_nothing(kind: str, tmp_path: Path) -> None:
    change, rule = SUMS[kind]
    seen: set[str] = set()

    def alter(sent: str, payload: Payload, _info: Info) -> None:
        of_sums = STEP in payload and payload[STEP].size == layout_of(STEP).size
        if sent == ANALYSE and of_sums and STEP not in seen:
            seen.add(STEP)
            payload[STEP] = change(payload[STEP])

    found = run(tmp_path, members(tmp_path), FILE, alter)
    assert found.results.run.status == "finished"
    assert rule in found.rules
    assert survival_results.survival(found.results) is not None
    (cox,) = survival_results.survival(found.results).cox
    assert set(cox.sites) == {"a", "c"}
    assert rule in str(found.hostile.withheld)
    assert any(rule in trouble for trouble in found.hostile.troubles)


@pytest.mark.parametrize(
    ("name", "change", "rule"),
    [
        ("events", lambda n: n + 0.25, "sum-count"),
        ("events_inside", lambda n: n - 1e4, "sum-bounds"),
        ("censored", lambda n: n + 121, "sum-patients"),
        ("left_out", lambda _: 1e6, "sum-patients"),
    ],
)
def test_tables_by_time_are_counts_too(tmp_path: Path, name: str, change: Callable[[Any], Any], rule: str) -> None:
    analysis = registered(parse_campaign(FILE))[KAPLAN_MEIER]

    def altered(vector: Any) -> Any:
        sizes = {analysis.layout({"ends": ends}).size: ends for ends in np.tril(np.ones((3, 3)))}
        layout, changed = analysis.layout({"ends": sizes[vector.size]}), np.array(vector)
        layout.block(changed, name)[...] = change(layout.block(changed, name))
        return changed

    def alter(sent: str, payload: Payload, _info: Info) -> None:
        if sent == ANALYSE and KAPLAN_MEIER in payload:
            payload[KAPLAN_MEIER] = altered(payload[KAPLAN_MEIER])

    found = run(tmp_path, members(tmp_path), FILE, alter)
    assert rule in found.rules
    assert survival_results.survival(found.results) is not None
    assert set(survival_results.survival(found.results).kaplan_meier.sites) == {"a", "c"}


def test_honest_sums_of_every_analysis_are_within_the_rules(tmp_path: Path) -> None:
    """The bounds for the patients described hold for sums of patients at the ends of what a column may be."""
    found = run(tmp_path, members(tmp_path), FILE, lambda *_: None)
    assert found.rules == set()
    assert all(not site.withheld for site in found.results.sites)


@pytest.mark.parametrize("patients", [0, 1, 29])
def test_fewer_described_than_summed_is_refused(patients: int) -> None:
    analysis = registered(parse_campaign(FILE))[STEP]
    statistic = analysis.local(Cohort(columns(120, seed=1)), agreed(analysis))
    answer = Answer(site="b", info=SiteInfo(), payload={STEP: statistic.vector})
    read = read_statistic(STEP, statistic.layout, answer, patients=patients)
    assert isinstance(read, Missing)
    assert read.rule == "sum-patients"
    for enough in (30, int(MAX_PATIENTS), None):
        assert isinstance(read_statistic(STEP, statistic.layout, answer, patients=enough), Statistic)
