"""Parts of a cohort and values of its patients, frozen at approval: by themselves, and at a real home."""

from __future__ import annotations

import csv
import hashlib
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from fedage.client.cohort.selection.parts import with_parts
from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.cohort.store.store import CohortStore
from fedage.client.consent.cohort_distance import FewValuesChanged, PartsTooClose
from fedage.client.consent.frozen_values import ROW_BYTES, FrozenValues, close_cells, frozen_of, rows_changed
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import ANALYSE, DESCRIBE
from fedage.common.statistics.cohort import Cohort
from tests.client.hospital import CAMPAIGN, POLICY, Hospital, Template, refused

MINIMUM = 5
SURVIVAL = '[survival]\n[[survival.models]]\nname = "gap"\ncovariates = ["gap_years", "age_years"]\n'


def people(numbers: range | list[int]) -> tuple[str, ...]:
    return tuple(sorted(hashlib.sha256(str(number).encode()).hexdigest() for number in numbers))


def cohort(patients: tuple[str, ...], **cells: set[str]) -> FrozenValues:
    masks = {name: np.array([one in members for one in patients]) for name, members in cells.items()}
    return FrozenValues(patients=patients, cells=masks, rows=b"\0" * ROW_BYTES * len(patients))


@pytest.mark.parametrize(("moved", "close"), [(0, False), (1, True), (4, True), (5, False), (10, False)])
def test_parts_are_equal_or_far_enough_apart(moved: int, close: bool) -> None:
    everybody = people(range(60))
    first = cohort(everybody, train=set(everybody[:30]), test=set(everybody[30:]))
    second = cohort(everybody, train=set(everybody[: 30 - moved]), test=set(everybody[30 - moved :]))
    assert (close_cells(second, first, minimum_count=MINIMUM) is not None) == close


def of_table(*, moved: str = "") -> bytes:
    """What is frozen of 20 patients whose table has features, one value of one patient moved."""
    text = (
        '[campaign]\nname = "t"\npurpose = "Freeze features"\nseed = 1\n[estimator]\nname = "table-ridge"\n'
        "[estimator.options]\n"
        'features = ["f*"]\nexclude = ["f3"]\n[table]\nage = "age"\n'
    )
    names = ("feature:f1", "feature:f2", "feature:f3")
    columns = {name: np.arange(20.0) + k for k, name in enumerate(names)}
    if moved:
        columns[f"feature:{moved}"] = columns[f"feature:{moved}"] + (np.arange(20) == 7)
    columns |= {"age_years": 40 + np.arange(20.0), "is_male": np.arange(20) % 2.0}
    campaign = parse_campaign(text)
    made = with_parts(Cohort(columns), np.linspace(0, 0.99, 20), campaign)
    features = tuple(name.removeprefix("feature:") for name in names)
    return frozen_of(SiteCohort(made, samples=None, features=features, keys=people(range(20))), campaign).rows


@pytest.mark.parametrize(("moved", "changed"), [("f1", 1), ("f2", 1), ("f3", 0), ("", 0)])
def test_features_that_the_estimator_reads_are_frozen(moved: str, changed: int) -> None:
    assert rows_changed(of_table(), of_table(moved=moved)) == changed


def test_parts_may_not_change_their_names_and_be_nearly_the_same() -> None:
    everybody = people(range(60))
    first = cohort(everybody, validation=set(everybody[:20]), test=set(everybody[20:]))
    second = cohort(everybody, test=set(everybody[:19]), train=set(everybody[19:40]))
    assert close_cells(second, first, minimum_count=MINIMUM) == ("test", "validation")


def test_a_small_part_never_leaves_and_is_close_to_nothing() -> None:
    everybody = people(range(60))
    first = cohort(everybody, train=set(everybody))
    second = cohort(everybody, train=set(everybody), test=set(everybody[:4]))
    assert close_cells(second, first, minimum_count=MINIMUM) is None


def test_random_parts_of_overlapping_cohorts_against_sets() -> None:
    chance = random.Random(3)
    outcomes = set()
    for _ in range(300):
        sides = []
        for _ in range(2):
            patients = people(chance.sample(range(24), chance.randint(12, 24)))
            sides.append((patients, {f"c{k}": set(chance.sample(patients, chance.randint(0, 12))) for k in range(2)}))
        (one, mine), (other, theirs) = sides
        told = {name: cell for name, cell in theirs.items() if len(cell) >= MINIMUM}
        expected = any(
            0 < len(a ^ b) < MINIMUM and len(a) >= MINIMUM and a not in told.values() and b not in mine.values()
            for a in mine.values()
            for b in told.values()
        )
        outcomes.add(expected)
        found = close_cells(cohort(one, **mine), cohort(other, **told), minimum_count=MINIMUM)
        assert (found is not None) == expected
    assert outcomes == {True, False}


FRACTIONS = "train = 0.4\nvalidation = 0.3"


def slightly_other(hospital: Hospital) -> list[Campaign]:
    """The campaign with one patient more trained on, and with two."""
    with CohortStore.open(hospital.home) as store:
        found = hospital.site.cohort(hospital.campaign)
        places = sorted(store.split_uniform(key) for key in found.keys)
    first = sum(place < 0.4 for place in places)
    cuts = [(places[k] + places[k + 1]) / 2 for k in (first, first + 1)]
    return [other(FRACTIONS, f"train = {cut:.9f}\nvalidation = {0.7 - cut:.9f}") for cut in cuts]


def too_close(hospital: Hospital, campaign: Campaign) -> PartsTooClose | None:
    try:
        hospital.site.rules.approve(campaign)
    except PartsTooClose as refusal:
        return refusal
    return None


def other(old: str, new: str) -> Campaign:
    assert old in CAMPAIGN
    return parse_campaign(CAMPAIGN.replace(old, new).replace("front-door", "another-question"))


def test_slightly_other_fractions_of_the_same_patients_are_not_approved(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path)
    rules = hospital.site.rules
    refusals = [too_close(hospital, asked) for asked in slightly_other(hospital)]
    assert len([refusal for refusal in refusals if refusal]) == len(refusals) == 2
    assert "fewer than 3" in str(refusals[0])
    assert hospital.campaign.digest[:16] in str(refusals[0])
    same = other("rounds = 2", "rounds = 3")
    assert rules.approve(same).cohort_of is None  # the same parts
    far = rules.approve(other("train = 0.4\nvalidation = 0.3\ntest = 0.3", "train = 0.8\nvalidation = 0.1\ntest = 0.1"))
    assert far.snapshot.patients == rules.snapshots.of(hospital.campaign.digest).patients  # type: ignore[union-attr]


def test_an_automatic_site_refuses_them_by_name(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path)
    hospital.policy('[approval]\nmode = "automatic"\n' + POLICY)
    told = set()
    for asked in slightly_other(hospital):
        reply = hospital.ask(DESCRIBE, digest=asked.digest, campaign=asked.text)
        assert refused(reply, hospital) == "snapshot-too-close"
        assert not any(character.isdigit() for character in reply.reason)
        said = reply.to_fields()
        told.add(tuple(said[name] for name in ("status", "rule", "reason", "info", "version")))
    assert len(told) == 1  # by one patient or by two: the same bytes
    hospital.must_be_intact()


def corrected(template: Template, folder: Path, *, patients: int) -> Path:
    """The data with the follow-up of some patients a year longer."""
    data = folder / "data"
    shutil.copytree(template.folder / "data", data)
    with (data / "outcomes.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows[:patients]:
        row["time_years"] = f"{float(row['time_years']) + 1:.6f}"
    with (data / "outcomes.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return data


def reindexed(template: Template, hospital: Hospital, data: Path) -> None:
    template.index(hospital.home, data)
    hospital.start()


def test_a_corrected_outcome_needs_a_new_approval_and_says_when_it_would_give_a_patient_away(
    template: Template, tmp_path: Path
) -> None:
    hospital = template.copy(tmp_path, approved=False)
    hospital.campaign = parse_campaign(CAMPAIGN + SURVIVAL)
    rules = hospital.site.rules
    rules.approve(hospital.campaign)
    rules.approve(parse_campaign(CAMPAIGN))
    assert hospital.ask().status == "ok"

    reindexed(template, hospital, corrected(template, tmp_path / "one", patients=1))
    rules = hospital.site.rules
    assert refused(hospital.ask(), hospital) == "snapshot-changed"
    assert refused(hospital.ask(ANALYSE), hospital) == "snapshot-changed"
    without = parse_campaign(CAMPAIGN)  # reads no outcomes
    assert hospital.ask(DESCRIBE, digest=without.digest, campaign=without.text).status == "ok"
    with pytest.raises(FewValuesChanged, match="fewer than 3 patients") as refusal:
        rules.approve(hospital.campaign)
    assert refusal.value.rule == "few-values-changed"
    rules.approve(hospital.campaign, few_changes=True)
    assert hospital.ask().status == "ok"

    reindexed(template, hospital, corrected(template, tmp_path / "five", patients=5))
    assert refused(hospital.ask(), hospital) == "snapshot-changed"
    hospital.site.rules.approve(hospital.campaign)
    assert hospital.ask().status == "ok"
    hospital.must_be_intact()


def test_a_running_agent_reads_anew_what_was_approved_anew(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path, approved=False)
    hospital.campaign = parse_campaign(CAMPAIGN + SURVIVAL)
    rules = hospital.site.rules
    rules.approve(hospital.campaign)
    before = hospital.site.cohort(hospital.campaign).cohort["time_years"]
    template.index(hospital.home, corrected(template, tmp_path / "five", patients=5))
    assert np.array_equal(hospital.site.cohort(hospital.campaign).cohort["time_years"], before)  # frozen
    rules.approve(hospital.campaign)
    after = hospital.site.cohort(hospital.campaign).cohort["time_years"]
    assert np.count_nonzero(after != before) == 5
