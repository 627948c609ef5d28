"""An audit of the sums that get noise at a site: what an adversary who chooses patients learns of who is in them.

As `test_canary_audit` of the private trainer. Canaries are patients whose rows are at the bound of what one may add,
each in the sums or not by a fair coin: of the moments of a ridge regression each in a direction of its own, of a
validation's errors and bias line one in each question, under a model of its own. The sums are made by the real analyses
and noised by the site's real path. The ε that is proved must stay under the one that is charged, and pass it where
noise is halved.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from fedage.client.compute.contribute import Contributions
from fedage.client.compute.model import exact_sums_of
from fedage.client.inbox import private_sums
from fedage.client.inbox.gate import Work, admit
from fedage.common.analyses.evaluation.metrics import VALIDATION
from fedage.common.analyses.plan import registered
from fedage.common.estimators.configure import phases_known
from fedage.common.estimators.private_training import noise_of_validation
from fedage.common.privacy.accountant import epsilon, noise_for
from fedage.common.protocol.messages import ANALYSE
from fedage.server.superlink.home import init_home
from tests.attacks.test_canary_audit import gaussian_bound
from tests.client.hospital import Hospital
from tests.client.test_private_sums import STEP, P, made
from tests.deploy.test_simulate_private_ridge import FILE

DELTA = 1e-5
Scores = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    """A site's work for a campaign whose sums cost ε = 1 each: the ridge's, and each of the validation's."""
    folder = tmp_path_factory.mktemp("site")
    one = noise_for(1.0, delta=DELTA, rate=1.0, steps=1)
    text = f"{FILE}noise_multiplier = {one}\nvalidation_share = 0.9\nminimum_count = 3\n"
    hospital = made(init_home(folder / "c", hosts=("localhost",)), folder, text=text)
    # Else every hundredth run would prove too much by chance.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(hospital.site), "privacy_secret", lambda _: b"audit of sums".ljust(32))
        yield _uncharged(hospital)


def _uncharged(hospital: Hospital) -> Work:
    """Without terms nothing is charged: the adversary asks as often as he likes."""
    return dataclasses.replace(admit(hospital.site, hospital.request(ANALYSE), {}), terms=None)


def halve_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = private_sums.noised
    monkeypatch.setattr(private_sums, "noised", lambda total, *, sd, random: whole(total, sd=sd / 2, random=random))


def of_moments(work: Work, *, questions: int) -> Scores:
    """Canary j has feature j alone, so large that its row is all of it; told by the sum of that column's squares."""
    chance, cohort = np.random.default_rng(3), work.site_cohort.cohort
    analysis = exact_sums_of(work.campaign, work.site_cohort)[STEP]
    columns = sorted(name for name in cohort.columns if name.startswith("feature:"))
    assert len(columns) == P
    rows, _ = np.triu_indices(P + 2)
    diagonal = np.flatnonzero(rows == np.triu_indices(P + 2)[1])[1:-1]
    found = []
    for _ in range(questions):
        there = np.append(chance.random(P) < 0.5, np.zeros(cohort.n - P, dtype=bool))
        large = {name: np.where(np.arange(cohort.n) == k, 1e9, 0.0) for k, name in enumerate(columns)}
        canaries = cohort.with_columns(is_train=there.astype(float), **large)
        sums = analysis.local(canaries, {}).vector
        assert sums[diagonal] == pytest.approx(there[:P].astype(float))
        left = private_sums.with_noise(
            work, Contributions(sums={STEP: sums}, withheld={}), canaries, {STEP: analysis}, model=""
        )
        found.append((left.sums[STEP][diagonal], there[:P]))
    score, present = zip(*found, strict=True)
    return np.concatenate(score), np.concatenate(present)


def of_validation(work: Work, step: str, *, questions: int) -> Scores:
    """One canary a question, whose age and error are at their bounds; told along its row."""
    chance, steps = np.random.default_rng(4), dict(registered(work.campaign))
    cohort = work.site_cohort.cohort.where(np.arange(work.site_cohort.cohort.n) < 1)
    cohort = cohort.with_columns(
        age_years=np.array([80.0]), predicted_years=np.array([129.0]), is_validation=np.ones(1), healthy=np.ones(1)
    )
    row = steps[step].local(cohort, {}).vector
    assert np.linalg.norm(row) == pytest.approx(1.0)
    found = []
    for question in range(questions):
        there = bool(chance.random() < 0.5)
        bare = Contributions(sums={step: row * there}, withheld={})
        left = private_sums.with_noise(work, bare, cohort, steps, model=str(question)).sums[step]
        found.append((left[:-1] @ row[:-1], there))
    score, present = zip(*found, strict=True)
    return np.array(score), np.array(present)


def charged(work: Work) -> float:
    """ε of one of the validation's figures."""
    noise = noise_of_validation(work.campaign, phases_known(work.campaign), patients=100)
    assert noise is not None
    return epsilon([noise.finished], delta=DELTA)


def test_an_audit_of_moments_proves_no_more_than_is_charged_and_catches_half_the_noise(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 0 < gaussian_bound(*of_moments(work, questions=50)) <= 1.0
    halve_the_noise(monkeypatch)
    assert gaussian_bound(*of_moments(work, questions=50)) > 1.0


@pytest.mark.slow
@pytest.mark.parametrize("step", ["bias", VALIDATION])
def test_an_audit_of_the_validation_proves_no_more_than_is_charged_and_catches_half_the_noise(
    work: Work, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    assert gaussian_bound(*of_validation(work, step, questions=5_000)) <= charged(work)
    halve_the_noise(monkeypatch)
    assert gaussian_bound(*of_validation(work, step, questions=5_000)) > charged(work)
