"""AUC of a predicted probability within sites: by pairs, its interval, and what is a small cell."""

from __future__ import annotations

import numpy as np
import pytest

from fedage.common.analyses.base import Done, IterateRefused, NotComputable, run_locally
from fedage.common.analyses.groups.outcome_auc import NAME, OutcomeAuc, PairsOfOutcome
from fedage.common.analyses.plan import registered
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.campaign_file.describe import campaign_sentences
from fedage.common.statistics.cohort import Cohort, UnusableColumn
from tests.common.estimators.planted_outcomes import TINY, text


def patients(n: int, seed: int, *, ties: bool = False) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    case = (rng.random(n) < 0.3).astype(float)
    p = 1 / (1 + np.exp(-rng.normal(case + seed % 3, 1)))  # sites differ in level
    return {"cancer": case, "outcome_probability": np.round(p, 1) if ties else p, "is_test": np.ones(n)}


def found(sites: dict[str, dict[str, np.ndarray]]) -> OutcomeAuc:
    outcome = run_locally(PairsOfOutcome("cancer"), {name: Cohort(columns) for name, columns in sites.items()})
    assert isinstance(outcome, Done)
    return OutcomeAuc.model_validate(outcome.result)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("sites", [1, 3])
def test_it_counts_pairs_of_one_site(sites: int, ties: bool) -> None:
    data = {str(k): patients(40 + 7 * k, k, ties=ties) for k in range(sites)}
    wins = pairs = 0.0
    for columns in data.values():
        p, case = columns["outcome_probability"], columns["cancer"] == 1
        for x in p[case]:
            for y in p[~case]:
                wins, pairs = wins + float(x > y) + 0.5 * float(x == y), pairs + 1
    result = found(data)
    assert result.auc == pytest.approx(wins / pairs, abs=1e-12)
    assert result.n_cases == sum(int(columns["cancer"].sum()) for columns in data.values())


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    from scipy.special import ndtr

    truth, inside = float(ndtr(1 / np.sqrt(2))), 0
    for seed in range(200):
        result = found({str(k): patients(60, 3 * seed + k) for k in range(3)})
        assert result.ci95_low is not None
        assert result.ci95_high is not None
        inside += result.ci95_low <= truth <= result.ci95_high
    assert 180 <= inside <= 199


@pytest.mark.parametrize("few", ["cases", "controls", "other predictions"])
def test_few_of_anything_are_a_small_cell(few: str) -> None:
    columns = patients(80, 1)
    if few == "cases":
        columns["cancer"] = (np.arange(80) < 3).astype(float)
    elif few == "controls":
        columns["cancer"] = (np.arange(80) >= 3).astype(float)
    else:
        columns["outcome_probability"] = np.where(np.arange(80) < 3, 0.9, 0.1)
    statistic = PairsOfOutcome("cancer").local(Cohort(columns), {})
    assert statistic.smallest is not None
    assert statistic.smallest.count == 3


def test_one_class_alone_has_no_auc_and_other_codes_are_refused() -> None:
    columns = patients(80, 1)
    alone = {"a": Cohort({**columns, "cancer": np.zeros(80)})}
    assert isinstance(run_locally(PairsOfOutcome("cancer"), alone), NotComputable)
    for code in (2.0, -1.0, 0.5):
        odd = columns["cancer"].copy()
        odd[0] = code
        with pytest.raises(UnusableColumn, match="1"):
            PairsOfOutcome("cancer").local(Cohort({**columns, "cancer": odd}), {})


def test_a_coordinator_brings_nothing() -> None:
    for brought in ({"split": np.zeros(1)}, {"edges": np.linspace(0, 1, 5)}, {"ranks": np.ones(3)}):
        with pytest.raises(IterateRefused):
            PairsOfOutcome("cancer").check(brought)


ASKED = f'[analyses.{NAME}]\ncolumn = "cancer"\n'


def test_a_campaign_that_asks_for_it_has_it_and_says_so() -> None:
    options = {**TINY, "outcome": "diagnosis", "outcome_column": "cancer"}
    campaign = parse_campaign(text("breast-outcome", options, more=ASKED))
    assert isinstance(registered(campaign)[NAME], PairsOfOutcome)
    assert any("tells patients with cancer = 1" in sentence for sentence in campaign_sentences(campaign))


@pytest.mark.parametrize(
    ("options", "more"), [({"outcome": "risk"}, ASKED), ({"outcome": "diagnosis"}, f"[analyses.{NAME}]\n")]
)
def test_a_file_that_does_not_allow_it_is_refused(options, more) -> None:
    with pytest.raises(CampaignErrors, match=NAME):
        parse_campaign(text("breast-outcome", {**TINY, **options}, more=more))
