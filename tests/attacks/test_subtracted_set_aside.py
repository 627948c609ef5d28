"""Those set aside are in no sum of a campaign: a second campaign that counts them in may not be subtracted from it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedage.client.cohort.selection.parts import count_set_aside, with_parts
from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.consent.cohort_distance import PartsTooClose
from fedage.client.consent.frozen_values import FrozenValues, close_cells, frozen_of
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.statistics.cohort import Cohort
from tests.client.hospital import CAMPAIGN, Template

FRACTIONS = "[validation.fractions]\ntrain = 0.4\nvalidation = 0.3\ntest = 0.3"
MINIMUM = 8
FOLDS = CAMPAIGN.replace(FRACTIONS, "[validation]\nfolds = 5").replace("count = 2", f"count = {MINIMUM}")
HEALTHY = '\n[cohort]\ntrain_on = "{train_on}"\n[cohort.healthy]\ncolumn = "well"\n'


def frozen(campaign: Campaign, *, few: int, patients: int) -> FrozenValues:
    """A hospital's cohort of whom a few are not well, as the campaign freezes it."""
    rng = np.random.default_rng(few)
    well = rng.permutation(np.arange(patients) >= few).astype(np.float64)
    keys = tuple(hashlib.sha256(str(number).encode()).hexdigest() for number in range(patients))
    cohort = Cohort({"age_years": rng.uniform(20, 80, patients), "well": well})
    made = with_parts(cohort, rng.random(patients), campaign)
    return frozen_of(SiteCohort(cohort=made, samples=None, keys=keys), campaign)


@pytest.mark.parametrize("patients", [24, 39, 200])
@pytest.mark.parametrize("few", [1, 4, 7])
@pytest.mark.parametrize("train_on", ["all", "healthy"])
def test_everybody_and_everybody_less_a_few_are_too_close(patients: int, few: int, train_on: str) -> None:
    """Σage over all folds by one campaign, less that by the other, would be the ages of the few."""
    without = frozen(parse_campaign(FOLDS + HEALTHY.format(train_on=train_on)), few=few, patients=patients)
    everybody = frozen(parse_campaign(FOLDS), few=few, patients=patients)
    assert np.count_nonzero(without.cells["all"]) == patients - few
    assert close_cells(everybody, without, minimum_count=MINIMUM) is not None
    assert close_cells(without, everybody, minimum_count=MINIMUM) is not None
    assert close_cells(without, without, minimum_count=MINIMUM) is None


@pytest.mark.parametrize("patients", [24, 39, 200])
@pytest.mark.parametrize("not_well", [0, 8, 12])
def test_parts_of_a_small_site_are_equal_or_far_from_those_of_another_campaign(patients: int, not_well: int) -> None:
    """In a fold that it holds nobody out of, a small site trains with everybody, as any campaign on them may."""
    asked = [parse_campaign(FOLDS + HEALTHY.format(train_on=train_on)) for train_on in ("all", "healthy")]
    asked += [parse_campaign(FOLDS), parse_campaign(FOLDS.replace("seed = 5", "seed = 6"))]
    found = [frozen(campaign, few=not_well, patients=patients) for campaign in asked]
    assert close_cells(found[3], found[2], minimum_count=MINIMUM) is None, "other folds of the same parts"
    for mine in found:
        for cell in mine.cells.values():
            rest = int(np.count_nonzero(mine.cells["all"] & ~cell))
            assert rest == 0 or rest >= MINIMUM or np.count_nonzero(cell) < MINIMUM


def test_a_hospital_does_not_approve_both(tmp_path: Path) -> None:
    template = Template.make(tmp_path / "template")
    path = template.folder / "data" / "outcomes.csv"
    table = pd.read_csv(path, dtype=str)
    table["well"] = (np.arange(len(table)) >= 4).astype(int)
    table.to_csv(path, index=False)
    template.index(template.folder / "home")
    hospital = template.copy(tmp_path, approved=False)
    hospital.policy(f"[disclosure]\nminimum_count = {MINIMUM}\n")
    without, rules = parse_campaign(FOLDS + HEALTHY.format(train_on="all")), hospital.site.rules
    rules.approve(without)
    assert count_set_aside(hospital.site.cohort(without).cohort)["too-few-not-healthy"] == 4
    with pytest.raises(PartsTooClose):
        rules.approve(parse_campaign(FOLDS))
