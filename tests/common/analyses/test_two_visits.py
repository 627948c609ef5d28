"""Gaps at two visits: against a direct computation on tables of nobody and of real patients, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedage.common.analyses.base import Done, IterateRefused, NotComputable, run_locally
from fedage.common.analyses.groups.result import GroupDifferenceResult
from fedage.common.analyses.groups.two_visits import NAME, TwoVisits, Visits
from fedage.common.campaign.types import Groups
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.campaign_file.describe import campaign_sentences
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import InfluenceRefused, InfluenceRule, require_sums
from tests.deploy.simulating import as_csv, simulated

THICKNESS = Path(__file__).parents[4] / "shared/data/thickness"
CAMPAIGN = f"""
[campaign]
name = "visits"
purpose = "Whether gaps of patients grow from visit to visit"
seed = 1
[table]
id = "subject"
age = "age"
predicted = "predicted"
[groups]
column = "patient"
equals = 1
reference = 0
[analyses.{NAME}]
second_age = "age_2"
second_predicted = "predicted_2"
"""
GROUPS = Groups(column="patient", equals=1.0, reference=0.0)


def table(*, each: int = 60, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = 3 * each
    age, patient = rng.uniform(20, 70, n), (rng.random(n) < 0.5).astype(float)
    between = rng.uniform(0.8, 2.5, n)
    gap = rng.normal(3 * patient, 5)
    return pd.DataFrame(
        {
            "subject": np.arange(n),
            "hospital": np.repeat(["north", "south", "west"], each),
            "age": age,
            "predicted": age + gap,
            "age_2": age + between,
            "predicted_2": age + between + gap + 0.8 * patient * between + rng.normal(0, 2, n),
            "patient": patient,
        }
    )


def direct(frame: pd.DataFrame) -> dict[str, float]:
    """Of one group, from the definitions; the ICC by sums of squares over a table of patients by visits."""
    gaps = np.column_stack([frame.predicted - frame.age, frame.predicted_2 - frame.age_2])
    n, change = len(gaps), gaps[:, 1] - gaps[:, 0]
    of_patients = 2 * ((gaps.mean(axis=1) - gaps.mean()) ** 2).sum() / (n - 1)
    of_visits = n * ((gaps.mean(axis=0) - gaps.mean()) ** 2).sum()
    rest = gaps - gaps.mean(axis=1, keepdims=True) - gaps.mean(axis=0) + gaps.mean()
    of_rest = (rest**2).sum() / (n - 1)
    return {
        "n": n,
        "years_between": (frame.age_2 - frame.age).mean(),
        "gap_first_years": gaps[:, 0].mean(),
        "gap_second_years": gaps[:, 1].mean(),
        "change_years": change.mean(),
        "change_se_years": change.std(ddof=1) / np.sqrt(n),
        "pace": (frame.predicted_2 - frame.predicted).sum() / (frame.age_2 - frame.age).sum(),
        "icc": (of_patients - of_rest) / (of_patients + of_rest + 2 * (of_visits - of_rest) / n),
    }


def as_direct(found: TwoVisits, frame: pd.DataFrame) -> None:
    expected = [direct(frame[frame.patient == value]) for value in (1.0, 0.0)]
    assert [of.group for of in found.groups] == ["patient = 1", "patient = 0"]
    for of, values in zip(found.groups, expected, strict=True):
        for name, value in values.items():
            assert getattr(of, name) == pytest.approx(value, rel=1e-8, abs=1e-10), name
    assert found.difference_years == pytest.approx(expected[0]["change_years"] - expected[1]["change_years"], rel=1e-8)


def test_a_campaign_under_the_guard_is_what_one_table_says(tmp_path: Path) -> None:
    frame = table()
    run = simulated(tmp_path, CAMPAIGN, data=as_csv(frame, tmp_path / "t.csv"), site_column="hospital")
    step = run.results.analyses[NAME]
    assert isinstance(step.result, TwoVisits), step
    as_direct(step.result, frame)
    low, high = step.result.difference_ci95_low, step.result.difference_ci95_high
    assert low is not None
    assert high is not None
    assert low < 0.8 * frame.eval("age_2 - age").mean() < high, "the planted difference"
    for site, own in step.by_site.items():
        assert isinstance(own, TwoVisits)
        as_direct(own, frame[frame.hospital == site])
    assert "From the first visit to the second" in run.said or any(
        "second" in sentence for sentence in campaign_sentences(parse_campaign(CAMPAIGN))
    )


@pytest.mark.skipif(not THICKNESS.is_dir(), reason="../shared/data/thickness is not beside the repository")
def test_real_patients_and_controls_at_two_visits(tmp_path: Path) -> None:
    """Ages by a ridge regression on other people (fcon1000); two hospitals made of one at random."""
    fitted = pd.read_csv(THICKNESS / "fcon1000.csv")
    visits = {
        (who, visit): pd.read_csv(THICKNESS / f"NIMH_{who}_v{visit}.csv", index_col=0)
        for who in ("controls", "patients")
        for visit in (1, 2)
    }
    regions = [name for name in visits["controls", 1] if name.endswith("_thickness") and name in fitted]
    assert len(regions) > 140
    x, age = fitted[regions].to_numpy(), fitted["age"].to_numpy()
    mean, sd = x.mean(axis=0), x.std(axis=0)
    z = (x - mean) / sd
    weights = np.linalg.solve(z.T @ z + 10 * np.eye(len(regions)), z.T @ (age - age.mean()))

    def predicted(one: pd.DataFrame) -> np.ndarray:
        made: np.ndarray = (one[regions].to_numpy() - mean) / sd @ weights + age.mean()
        return made

    parts = []
    for number, who in enumerate(("controls", "patients")):
        first, second = visits[who, 1], visits[who, 2].loc[visits[who, 1].index]
        part = {"age": first.age, "predicted": predicted(first), "age_2": second.age, "predicted_2": predicted(second)}
        parts.append(pd.DataFrame(part).assign(patient=float(number)))
    frame = pd.concat(parts).rename_axis("subject").reset_index()
    frame["hospital"] = np.where(np.random.default_rng(0).random(len(frame)) < 0.5, "east", "west")
    run = simulated(tmp_path, CAMPAIGN, data=as_csv(frame, tmp_path / "t.csv"), site_column="hospital")
    step = run.results.analyses[NAME]
    assert isinstance(step.result, TwoVisits), step
    as_direct(step.result, frame)
    assert [of.n for of in step.result.groups] == [98, 67]
    # Patients against controls, pairs of one site, by a loop.
    groups = run.results.of_type(GroupDifferenceResult)["groups:gap"]
    gap, wins, pairs = frame.predicted - frame.age, 0.0, 0
    for _, rows in frame.groupby("hospital"):
        for x in gap[rows.index][rows.patient == 1]:
            for y in gap[rows.index][rows.patient == 0]:
                wins, pairs = wins + float(x > y) + 0.5 * float(x == y), pairs + 1
    assert groups.auc_within_sites == pytest.approx(wins / pairs, abs=1e-12)


def cohort(frame: pd.DataFrame, **changed: np.ndarray) -> Cohort:
    columns = {"age_years": frame.age, "predicted_years": frame.predicted, "is_test": np.ones(len(frame))}
    columns |= {name: frame[name] for name in ("age_2", "predicted_2", "patient")}
    return Cohort({name: np.asarray(column, dtype=float) for name, column in (columns | changed).items()})


@pytest.mark.parametrize("lacking", ["age_2", "predicted_2"])
@pytest.mark.parametrize("value", [np.nan, -5.0, 400.0])
def test_whose_second_visit_is_missing_or_impossible_is_left_out_and_counted(lacking: str, value: float) -> None:
    frame = table()
    changed = frame[lacking].to_numpy().copy()
    changed[:12] = value if lacking == "age_2" or np.isnan(value) else 100 * value
    outcome = run_locally(Visits("age_2", "predicted_2", groups=GROUPS), {"a": cohort(frame, **{lacking: changed})})
    assert isinstance(outcome, Done)
    assert outcome.result["left_out"] == 12
    as_direct(TwoVisits.model_validate(outcome.result), frame.iloc[12:])


def test_without_groups_it_is_of_all_and_without_second_visits_of_nobody() -> None:
    frame = table()
    outcome = run_locally(Visits("age_2", "predicted_2"), {"a": cohort(frame)})
    assert isinstance(outcome, Done)
    (found,) = TwoVisits.model_validate(outcome.result).groups
    assert found.change_years == pytest.approx(direct(frame)["change_years"])
    nobody = cohort(frame, age_2=np.full(len(frame), np.nan))
    assert isinstance(run_locally(Visits("age_2", "predicted_2"), {"a": nobody}), NotComputable)


@pytest.mark.parametrize("column", ["predicted_2", "age_2", "predicted_years"])
def test_one_patient_who_makes_up_a_sum_keeps_it_at_the_site(column: str) -> None:
    frame = table()
    changed = {"age_2": frame.age + 1.0, "predicted_2": frame.age + 1.0, "predicted_years": frame.age + 0.0}
    changed = {name: values.to_numpy().copy() for name, values in changed.items()}
    changed[column][3] += 20.0
    statistic = Visits("age_2", "predicted_2").local(cohort(frame, age_2=changed["age_2"]), {})
    if column == "age_2":  # one time between visits apart from all others
        assert statistic.smallest is not None
        assert statistic.smallest.count < 10
    groups = Visits("age_2", "predicted_2").summed(cohort(frame, **changed), {})
    with pytest.raises(InfluenceRefused):
        require_sums(groups, InfluenceRule(minimum_count=10))


def test_a_coordinator_brings_nothing() -> None:
    for brought in ({"split": np.zeros(1)}, {"groups": np.ones(2)}, {"columns": np.ones(3)}):
        with pytest.raises(IterateRefused):
            Visits("age_2", "predicted_2").check(brought)


@pytest.mark.parametrize("broken", ['second_age = "age_2"\n', 'second_predicted = "predicted_2"\n', "[table]\n"])
def test_a_file_without_what_it_needs_is_refused(broken: str) -> None:
    with pytest.raises(CampaignErrors):
        parse_campaign(CAMPAIGN.replace(broken, ""))
