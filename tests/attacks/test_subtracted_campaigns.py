"""Two campaigns on one cohort, each with a column that other patients lack: their sums subtracted are one patient's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedage.client.cohort.selection.parts import count_set_aside, with_parts
from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.consent.cohort_distance import PartsTooClose
from fedage.client.consent.frozen_values import close_cells, frozen_of
from fedage.client.consent.snapshots import Snapshots
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.statistics.cohort import Cohort
from tests.attacks.asked_of_a_site import Attacker
from tests.client.hospital import CAMPAIGN, Template

N, MINIMUM, LACKING = 300, 10, 12
SETTING = f"""
[campaign]
name = "NAME"
purpose = "Subtract the sums of two campaigns"
seed = 3
[table]
id = "id"
age = "age"
predicted = "predicted"
[privacy]
minimum_count = {MINIMUM}
patients_per_column = 0
"""
SURVIVAL = """
[survival]
curves_by = "ill"
[[survival.models]]
name = "m"
"""
COVARIATE = SURVIVAL + 'covariates = ["age_years", "COLUMN"]\n'
STRATUM = SURVIVAL.replace("curves_by", 'strata = ["COLUMN"]\ncurves_by') + 'covariates = ["age_years"]\n'
TIME = SURVIVAL.replace("curves_by", 'time = "COLUMN"\ncurves_by') + 'covariates = ["age_years"]\n'
EVENT = SURVIVAL.replace("curves_by", 'event = "COLUMN"\ncurves_by') + 'covariates = ["age_years"]\n'
GROUP = """
[groups]
column = "ill"
equals = 1
reference = 0
covariates = ["age_years", "COLUMN"]
"""
ASKED = {
    "covariate": (COVARIATE, "cox:m"),
    "stratum": (STRATUM, "cox:m"),
    "time": (TIME, "cox:m"),
    "event": (EVENT, "cox:m"),
    "group covariate": (GROUP, "groups:gap"),
}
KEYS = tuple(sorted(hashlib.sha256(str(number).encode()).hexdigest() for number in range(N)))


def asked(kind: str, column: str) -> Campaign:
    return parse_campaign((SETTING + ASKED[kind][0]).replace("COLUMN", column).replace("NAME", column))


def at_the_site(kind: str, campaign: Campaign, *, more: int) -> Cohort:
    """A hospital of whom 12 lack column `a`, and the same 12 and some more column `b`."""
    rng = np.random.default_rng(7)
    age = rng.uniform(40, 80, N)
    column = {
        "time": rng.exponential(5, N),
        "stratum": (rng.random(N) < 0.5).astype(float),
        "event": (rng.random(N) < 0.5).astype(float),
    }.get(kind, rng.normal(0, 1, N))
    predicted = age + rng.normal(0, 5, N)
    values = {
        "age_years": age,
        "predicted_years": predicted,
        "raw_gap_years": predicted - age,
        "time_years": rng.exponential(5, N),
        "event": (rng.random(N) < 0.5).astype(float),
        "ill": (np.arange(N) % 2).astype(float),
        "a": np.where(np.arange(N) < LACKING, np.nan, column),
        "b": np.where(np.arange(N) < LACKING + more, np.nan, column),
    }
    return with_parts(Cohort(values), np.linspace(0, 0.999, N), campaign)


def approve(home: Path, kind: str, campaign: Campaign, *, more: int) -> None:
    """Freeze the campaign's cohort in the home's account, as an approval does."""
    found = SiteCohort(cohort=at_the_site(kind, campaign, more=more), samples=None, keys=KEYS)
    snapshots = Snapshots(home)
    try:
        snapshots.freeze("all", digest=campaign.digest, frozen_values=frozen_of(found, campaign), minimum_count=MINIMUM)
    finally:
        snapshots.close()


def sum_of_ages(kind: str, campaign: Campaign, folder: Path, *, more: int) -> tuple[float, float]:
    """Number of patients and Σ age that leave for the campaign's analysis."""
    cohort = at_the_site(kind, campaign, more=more)
    told = Attacker(campaign=campaign, cohort=cohort, folder=folder).everything(ASKED[kind][1])
    assert told
    names = {field.name for field in told[-1].layout.fields}
    if "n_group" in names:
        n = float(told[-1]["n_group"].sum() + told[-1]["n_reference"].sum())
        return n, float("nan")
    return float(told[-1]["n"].sum()), float(told[1]["x"][0])


@pytest.mark.parametrize("more", [1, 3, 9])
@pytest.mark.parametrize("kind", ASKED)
@pytest.mark.parametrize("order", ["ab", "ba"])
def test_campaigns_whose_complete_patients_differ_by_a_few_are_not_both_approved(
    kind: str, more: int, order: str, tmp_path: Path
) -> None:
    first, second = (asked(kind, column) for column in order)
    approve(tmp_path, kind, first, more=more)
    with pytest.raises(PartsTooClose, match="complete patients, set") as refusal:
        approve(tmp_path, kind, second, more=more)
    assert refusal.value.rule == "parts-too-close"
    assert not any(character.isdigit() for character in refusal.value.detail)
    approve(tmp_path, kind, first, more=more)  # the one that was approved may be approved again


@pytest.mark.parametrize("more", [0, 2 * MINIMUM, 40])  # half of them in each group
@pytest.mark.parametrize("kind", ASKED)
def test_campaigns_whose_complete_patients_are_the_same_or_far_apart_pass(kind: str, more: int, tmp_path: Path) -> None:
    for column in "aba":
        approve(tmp_path, kind, asked(kind, column), more=more)
    other_seed = parse_campaign(asked(kind, "a").text.replace("seed = 3", "seed = 4"))
    approve(tmp_path, kind, other_seed, more=more)


@pytest.mark.parametrize("kind", ASKED)
def test_both_campaigns_together_would_tell_one_patient_s_age(kind: str, tmp_path: Path) -> None:
    """The attack itself, at a site that answers both files: neither sets anybody aside."""
    found = {}
    for column in "ab":
        campaign = asked(kind, column)
        cohort = at_the_site(kind, campaign, more=1)
        assert count_set_aside(cohort) == {"too-few-not-healthy": 0, "too-few-incomplete": 0}
        found[column] = sum_of_ages(kind, campaign, tmp_path / column, more=1)
    (n_a, ages_a), (n_b, ages_b) = found["a"], found["b"]
    assert (n_a, n_b) == (N - LACKING, N - LACKING - 1)
    if kind in ("covariate", "stratum"):
        assert ages_a - ages_b == pytest.approx(cohort["age_years"][LACKING])


LACKS = {
    "one of a group": lambda ill: ill & (np.cumsum(ill) <= 1) | ~ill & (np.cumsum(~ill) <= LACKING),
    "three of a reference group": lambda ill: ~ill & (np.cumsum(~ill) <= 3) | ill & (np.cumsum(ill) <= LACKING),
    "one who is well and all who are not": lambda ill: ill | ~ill & (np.cumsum(~ill) <= 1),
}


@pytest.mark.parametrize("order", ["without", "with"])
@pytest.mark.parametrize("lacks", LACKS.values(), ids=LACKS)
def test_a_part_that_is_not_summed_over_hides_no_set_that_is(
    lacks: Callable[[np.ndarray], np.ndarray], order: str, tmp_path: Path
) -> None:
    """The set of the one campaign is a part or group of the other's, which sums over a few fewer."""
    healthy = '\n[cohort.healthy]\ncolumn = "ill"\nequals = 0\n'
    files = [asked("group covariate", "b")]
    files.append(parse_campaign(files[0].text.replace('["age_years", "b"]', '["age_years"]')))
    if lacks is LACKS["one who is well and all who are not"]:
        texts = [asked("covariate", column).text.replace('["age_years', '["healthy", "age_years') for column in "bc"]
        files = [parse_campaign(text + healthy) for text in texts]
    found = []
    for campaign in files:
        cohort = at_the_site("covariate", campaign, more=0)
        ill = cohort["ill"] == 1
        values = np.arange(N) % 17.0
        cohort = cohort.with_columns(b=np.where(lacks(ill), np.nan, values), c=np.where(ill, np.nan, values))
        cohort = with_parts(cohort, np.linspace(0, 0.999, N), campaign)
        assert sum(count_set_aside(cohort).values()) == 0
        found.append(frozen_of(SiteCohort(cohort=cohort, samples=None, keys=KEYS), campaign))
    first, second = found if order == "with" else reversed(found)
    assert close_cells(second, first, minimum_count=MINIMUM) is not None
    assert close_cells(first, first, minimum_count=MINIMUM) is None


def test_what_is_frozen_is_whom_the_analyses_sum_over(tmp_path: Path) -> None:
    for kind in ASKED:
        campaign = asked(kind, "b")
        cohort = at_the_site(kind, campaign, more=1)
        cells = frozen_of(SiteCohort(cohort=cohort, samples=None, keys=KEYS), campaign).cells
        n, _ = sum_of_ages(kind, campaign, tmp_path / kind, more=1)
        sizes = {int(mask.sum()) for name, mask in cells.items() if name.startswith("complete patients")}
        assert int(n) in sizes


def test_those_set_aside_are_in_no_frozen_set() -> None:
    campaign = asked("covariate", "b")
    cohort = at_the_site("covariate", campaign, more=0)
    lacking = cohort["predicted_years"].copy()
    lacking[-3:] = np.nan
    cohort = cohort.with_columns(predicted_years=lacking, raw_gap_years=lacking - cohort["age_years"])
    cohort = with_parts(cohort, np.linspace(0, 0.999, N), campaign)
    assert count_set_aside(cohort)["too-few-incomplete"] == 3
    found = frozen_of(SiteCohort(cohort=cohort, samples=None, keys=KEYS), campaign)
    assert not any(mask[-3:].any() for name, mask in found.cells.items() if name.startswith("complete patients"))
    assert close_cells(found, found, minimum_count=MINIMUM) is None


def test_a_hospital_does_not_approve_both(tmp_path: Path) -> None:
    """By an approval at a home on disk, with outcomes that are read as an administrator gives them."""
    template = Template.make(tmp_path / "template")
    path = template.folder / "data" / "outcomes.csv"
    table = pd.read_csv(path, dtype=str)
    row = np.arange(len(table))
    for column, lacking in (("a", 4), ("b", 5), ("c", 4), ("d", 9)):
        table[column] = np.where(row < lacking, "", ((row * 7) % 11).astype(str))
    table.to_csv(path, index=False)
    template.index(template.folder / "home")
    hospital = template.copy(tmp_path, approved=False)
    folds = CAMPAIGN.replace(
        "[validation.fractions]\ntrain = 0.4\nvalidation = 0.3\ntest = 0.3", "[validation]\nfolds = 4"
    )
    model = '[survival]\n[[survival.models]]\nname = "m"\ncovariates = ["gap_years", "age_years", "COLUMN"]\n'
    file = {column: parse_campaign(folds + model.replace("COLUMN", column)) for column in "abcd"}
    rules = hospital.site.rules
    rules.approve(file["a"])
    with pytest.raises(PartsTooClose):
        rules.approve(file["b"])
    for column in "cda":
        rules.approve(file[column])
