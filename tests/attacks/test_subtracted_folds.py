"""A coordinator subtracts what a small site sums for one fold's model from what it sums for another's.

The test decodes each sum: with more random features than patients, Σu tells whose rows were added up. Patients whom no
released sum tells apart make up an atom; whatever is combined, and with whatever factors, is made of whole atoms.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from fedage.client.cohort.selection.parts import parts_for_fold
from fedage.common.analyses.agreement import COLUMNS, Agreed
from fedage.common.analyses.preparation.table_preparation import NAME as PREPARATION
from fedage.common.analyses.preparation.table_preparation import TablePreparation
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import (
    ANALYSE,
    DESCRIBE,
    TRAIN,
    Reply,
    Request,
    join_iterates,
    join_model,
    model_of,
)
from fedage.common.statistics.statistic import FloatArray, Statistic
from fedage.server.sites.flower_records import request_content
from tests.machinery import InProcessGrid, MemorySite, answer_of, memory_site, table_site
from tests.of_estimators import first_model, preparation

FEATURES = 64
FILE = """
[campaign]
name = "subtracted-folds"
purpose = "Subtract the sums of one fold's model from those of another's"
seed = {seed}
[table]
age = "age"
[estimator]
name = "table-ridge"
[estimator.options]
features = ["*"]
[validation]
folds = {folds}
[privacy]
minimum_count = {minimum}
patients_per_column = 0
largest_share = 1
"""
HEALTHY = '[cohort]\ntrain_on = "{train_on}"\n[cohort.healthy]\ncolumn = "well"\nequals = 1\n'
PICTURES = """
[campaign]
name = "subtracted-pictures"
purpose = "Subtract the updates of one fold's model from those of another's"
seed = {seed}
[estimator]
name = "chest-ca"
[estimator.options]
image_size = 64
width = 8
[training]
rounds = 1
quorum = 1
[validation]
folds = {folds}
[privacy]
minimum_count = {minimum}
"""


@dataclass
class Attacker:
    """One site, and whoever asks it for the sums of every fold's model."""

    folder: Path
    text: str
    healthy: int
    others: int = 0
    seed: int = 0
    site: MemorySite = field(init=False)
    campaign: Campaign = field(init=False)

    def __post_init__(self) -> None:
        chance, n = np.random.default_rng(self.seed), self.healthy + self.others
        well = chance.permutation(np.concatenate([np.ones(self.healthy), np.zeros(self.others)]))
        age, x = chance.uniform(20, 80, n), chance.normal(size=(n, FEATURES))
        self.campaign = parse_campaign(self.text)
        self.site = table_site("small", self.folder, x=x, age=age, seed=self.seed, well=well)
        self.site.guard = self.campaign.simulation.guard
        self.site.offer(self.text, digest=self.campaign.digest)

    @property
    def folds(self) -> range:
        assert self.campaign.validation.folds is not None
        return range(self.campaign.validation.folds)

    def send(self, kind: str, payload: dict[str, np.ndarray], *, fold: int) -> tuple[Reply, dict[str, np.ndarray]]:
        described = {"campaign": self.text} if kind == DESCRIBE else {}
        request = Request(kind=kind, digest=self.campaign.digest, run="attack", fold=fold, **described)
        grid = InProcessGrid([self.site])
        message = grid.create_message(request_content(request, payload, key=None), kind, 1, "1", 60.0)
        (answer,) = grid.pull_messages(grid.push_messages([message]))
        return answer_of(answer)

    def told(self) -> list[FloatArray]:
        """Of each released sum the factor of every patient (n,)."""
        analysis = preparation(self.campaign, self.site.found.features)
        assert isinstance(analysis, Agreed | TablePreparation)
        columns = analysis.analysis.reducible if isinstance(analysis, Agreed) else analysis.reducible
        rows = self.site.found.cohort.matrix(columns)
        iterate = {"centre": np.zeros(FEATURES), "spread": np.ones(FEATURES), "error": np.zeros(FEATURES)}
        if isinstance(analysis, Agreed):
            iterate[COLUMNS] = np.ones(FEATURES)
        layout, found = analysis.layout(iterate), []
        for fold in self.folds:
            _, arrays = self.send(ANALYSE, join_iterates({PREPARATION: iterate}), fold=fold)
            if PREPARATION not in arrays:
                continue
            sums = Statistic(layout=layout, vector=arrays[PREPARATION], smallest=None)
            for inner in np.flatnonzero(sums["n"]):
                factors = np.linalg.lstsq(rows.T, sums["u"][inner], rcond=None)[0]
                assert np.allclose(rows.T @ factors, sums["u"][inner], atol=1e-6)
                assert round(float(factors.sum())) == sums["n"][inner]
                found.append(np.rint(factors))
        return found

    def healthy_rows(self) -> np.ndarray:
        return self.site.cohort(self.campaign).cohort["healthy"] == 1


def atoms(told: list[FloatArray]) -> list[np.ndarray]:
    """Patients (n,) bool whom no sum tells apart, those in no sum left out."""
    factors = np.array(told)
    _, which = np.unique(factors, axis=1, return_inverse=True)
    return [(which == k) & factors.any(axis=0) for k in range(which.max() + 1) if (factors[:, which == k] != 0).any()]


def smallest_difference(told: list[FloatArray]) -> int:
    """Fewest patients that a difference of two sums is about, differences about nobody left out."""
    counts = [np.count_nonzero(one - other) for one, other in itertools.combinations(told, 2)]
    return int(min((count for count in counts if count), default=0))


SITES = [
    pytest.param(24, 0, 5, 10, "", id="24"),
    pytest.param(39, 0, 5, 10, "", id="39"),
    pytest.param(49, 0, 5, 10, "", id="49"),
    pytest.param(24, 9, 5, 10, HEALTHY.format(train_on="all"), id="24 and few who are set aside"),
    pytest.param(24, 15, 5, 10, HEALTHY.format(train_on="all"), id="24 and 15"),
    pytest.param(24, 17, 5, 10, HEALTHY.format(train_on="healthy"), id="24 and 17 who never train"),
    pytest.param(15, 15, 5, 10, HEALTHY.format(train_on="all"), id="15 and 15"),
    pytest.param(31, 0, 20, 4, "", id="31 in 20 folds"),
    pytest.param(11, 0, 3, 5, "", id="11 in 3 folds"),
]


@pytest.mark.parametrize(("healthy", "others", "folds", "minimum", "rest"), SITES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_combination_of_a_small_sites_sums_is_of_a_few(
    tmp_path: Path, healthy: int, others: int, folds: int, minimum: int, rest: str, seed: int
) -> None:
    text = FILE.format(seed=seed, folds=folds, minimum=minimum) + rest
    attacker = Attacker(tmp_path, text, healthy, others, seed=seed)
    told = attacker.told()
    # Of eleven patients five or six make up a column of some fold's model by chance, which then withholds its sums.
    assert len(told) >= (2 if healthy == 11 else folds), "the site answers for every fold's model"
    assert smallest_difference(told) >= minimum
    found = atoms(told)
    assert min(int(np.count_nonzero(atom)) for atom in found) >= minimum
    well = attacker.healthy_rows()
    if healthy != others:  # where each alone is too few for two folds, no campaign sums one of the two fold by fold
        for atom, group in itertools.product(found, (well, ~well)):
            count = int(np.count_nonzero(atom & group))
            assert count == 0 or count >= minimum


def test_the_attack_works_where_nothing_stands_against_it(tmp_path: Path) -> None:
    text = FILE.format(seed=1, folds=5, minimum=10) + "[simulation]\nguard = false\n"
    told = Attacker(tmp_path, text, 24).told()
    assert smallest_difference(told) < 10
    assert min(int(np.count_nonzero(atom)) for atom in atoms(told)) == 1, "single patients are left over"


@pytest.mark.parametrize(("healthy", "others"), [(19, 0), (12, 0), (10, 9)])
def test_a_site_too_small_for_two_folds_sums_for_no_model_and_says_why(
    tmp_path: Path, healthy: int, others: int
) -> None:
    rest = HEALTHY.format(train_on="all") if others else ""
    attacker = Attacker(tmp_path, FILE.format(seed=1, folds=5, minimum=10) + rest, healthy, others)
    assert attacker.told() == []
    reply, _ = attacker.send(ANALYSE, join_iterates({PREPARATION: {}}), fold=0)
    held = reply.info["withheld"][PREPARATION]
    assert held["rule"] == "minimum-count"
    assert "fewer than 2 × 10 patients who may train" in held["detail"]


@pytest.mark.parametrize(("count", "used"), [(24, 2), (35, 3), (41, 4), (19, 0)])
def test_nor_is_a_difference_of_updates(tmp_path: Path, count: int, used: int) -> None:
    """Updates are sums over a fold's training part: any two parts are the same, or differ by the minimum count."""
    text = PICTURES.format(seed=3, folds=5, minimum=10)
    site, campaign = memory_site("small", tmp_path, count=count), parse_campaign(text)
    site.unit = np.random.default_rng(count).random(count)
    site.offer(text, digest=campaign.digest)
    attacker = Attacker(tmp_path / "unused", FILE.format(seed=1, folds=5, minimum=10), 24)
    attacker.site, attacker.campaign, attacker.text = site, campaign, text
    parts = []
    for fold in attacker.folds:
        model = first_model(campaign, (), fold=fold, sums=None)
        request = Request(kind=TRAIN, digest=campaign.digest, run="attack", fold=fold, round=1)
        payload = {**join_model(model), **join_iterates({"evaluation:validation": {}})}
        grid = InProcessGrid([site])
        message = grid.create_message(request_content(request, payload, key=None), TRAIN, 1, "1", 60.0)
        (answer,) = grid.pull_messages(grid.push_messages([message]))
        reply, arrays = answer_of(answer)
        cohort = parts_for_fold(site.cohort(campaign).cohort, campaign, fold)
        if reply.status != "ok":
            assert "fewer than 2 × 10 patients who may train" in reply.reason
            continue
        assert model_of(arrays)
        assert reply.info["n"] == np.count_nonzero(cohort["is_train"])
        if not cohort["is_validation"].any():
            assert reply.info["withheld"]["evaluation:validation"]["rule"] == "no-patients-in-fold"
        parts.append(cohort["is_train"])
    assert len(parts) == (5 if used else 0)
    if parts:
        assert sum(np.count_nonzero(part == 0) > 0 for part in parts) == used
        assert smallest_difference(parts) >= 10
        assert min(int(np.count_nonzero(atom)) for atom in atoms(parts)) >= 10
