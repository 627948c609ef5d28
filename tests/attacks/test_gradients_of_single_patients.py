"""Updates of a table's network from which the gradient of each patient follows, hence the whole record.

Two ways, both with honest first models and inside the bounds on steps: patients have known and changing weights in the
updates at one model, by the batches that they are in; or the loss bends where the error of one patient passes a value.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedage.client.cohort.store.store import CohortStore
from fedage.client.inbox import handlers
from fedage.client.inbox.deployed import DeployedSite
from fedage.client.site.home import init_site
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import derived_seed
from fedage.common.toml.problems import CampaignErrors
from fedage.server.superlink.home import init_home
from tests.attacks import table_attacker
from tests.attacks.table_attacker import FEATURES, FILE, Attacker

W, B, OUT, SHIFT = "correction.0.weight", "correction.0.bias", "correction.2.weight", "correction.2.bias"
LEVEL, SD, SEED = 15.0, 20.0, 3
Floats = NDArray[np.float64]


def attacker_with(folder: Path, monkeypatch: pytest.MonkeyPatch, *, rounds: int, **settings: Any) -> Attacker:
    """An attacker whose file has these training settings, and no noise on features."""
    text = FILE.replace("penalty = 10.0", 'penalty = 10.0\nnoise = 0.0\nloss = "{loss}"')
    for key, before in (("batch_size", "4096"), ("learning_rate", "0.2"), ("loss", "{loss}")):
        quoted = '"' if key == "loss" else ""
        text = text.replace(f"{key} = {quoted}{before}{quoted}", f"{key} = {quoted}{settings[key]}{quoted}")
    monkeypatch.setattr(table_attacker, "FILE", text)
    return Attacker(folder, rounds=rounds)


def updates(attacker: Attacker, *, shifts: Floats) -> tuple[Floats, dict[str, NDArray[Any]]]:
    """Gradients' W and B parts (rounds, …) at a model whose predictions are moved by a constant, in years."""
    assert attacker.site.found.samples is not None
    x = attacker.site.found.samples["row"]
    sums = attacker.crafted_sums(x.mean(axis=0), x.std(axis=0), age_mean=LEVEL, age_sd=SD)
    first, run, told = attacker.first(sums), attacker.new_run(), []
    model = {**first, OUT: np.full_like(first[OUT], 0.05)}
    attacker.send(first, run=run, round_number=1, sums=sums)
    for number, shift in enumerate(shifts, start=2):
        model = {**model, SHIFT: np.array([shift / SD], dtype=np.float32)}
        reply, update, _ = attacker.send(model, run=run, round_number=number)
        assert reply.status == "ok", reply.reason
        told.append(np.concatenate([update[W].ravel(), update[B]]).astype(np.float64))
    return np.array(told), first


def whole_records(gradients: Floats, attacker: Attacker, first: dict[str, NDArray[Any]]) -> int:
    """How many training patients' every feature is in one of the gradients (g, …), within 0.05 of its SD."""
    assert attacker.site.found.samples is not None
    z = (attacker.site.found.samples["row"][attacker.part("is_train")] - first["means"]) * first["units"]
    units = first[B].size
    dw, db = gradients[:, :-units].reshape(-1, units, FEATURES), gradients[:, -units:]
    found = (dw * db[:, :, None]).sum(axis=1) / np.maximum((db * db).sum(axis=1), 1e-300)[:, None]
    distance = np.abs(z[:, None] - found[None]) / z.std(axis=0)
    return int(np.count_nonzero(distance.max(axis=2).min(axis=1) < 0.05))


def by_known_batches(attacker: Attacker, *, rounds: int, batch_size: int) -> int:
    """The yield if batches are as the campaign's seed and the round say, as they were."""
    told, first = updates(attacker, shifts=np.zeros(rounds - 1))
    n, weights = len(attacker.part("is_train")), []
    for number in range(2, rounds + 1):
        seed = derived_seed("train", SEED, "harbour", 0, number)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()
        batches = [order[start : start + batch_size] for start in range(0, n, batch_size)]
        weight = np.zeros(n)
        for place, batch in enumerate(batches):  # momentum 0.9: an earlier batch moves the model more often
            weight[batch] = (1 - 0.9 ** (len(batches) - place)) / 0.1 / len(batch)
        weights.append(weight)
    return whole_records(np.linalg.lstsq(np.array(weights), told, rcond=None)[0], attacker, first)


@pytest.fixture
def batches_of_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site whose batches follow from the campaign's seed and the round, and may be of few, as every site was."""
    train = handlers.train_locally

    def as_before(*arguments: Any, **options: Any) -> Any:
        seed = derived_seed("train", SEED, "harbour", 0, options["round_number"])
        return train(*arguments, **{**options, "order_seed": seed, "minimum_count": 1})

    monkeypatch.setattr(handlers, "train_locally", as_before)


SLOW = {"learning_rate": "0.0000005", "loss": "mse"}


@pytest.mark.usefixtures("batches_of_each_round")
def test_known_batches_gave_every_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attacker = attacker_with(tmp_path, monkeypatch, rounds=40, batch_size="16", **SLOW)
    found, n = by_known_batches(attacker, rounds=40, batch_size=16), len(attacker.part("is_train"))
    print(f"known batches: {found} of {n}")
    assert found >= 0.8 * n


@pytest.mark.parametrize("batch_size", [4, 16])
def test_batches_are_the_same_in_each_round_and_tell_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    attacker = attacker_with(tmp_path, monkeypatch, rounds=30, batch_size=str(batch_size), **SLOW)
    assert by_known_batches(attacker, rounds=30, batch_size=batch_size) == 0
    told, _ = updates(attacker, shifts=np.zeros(4))
    np.testing.assert_allclose(told, np.broadcast_to(told[0], told.shape), rtol=1e-6, atol=0)


def test_a_batch_has_the_minimum_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a large rate what comes after the first batch of one hardly counted: its patient was the update."""
    seen: list[int] = []
    for number, size in enumerate(("1", "4", "13", "26")):
        attacker = attacker_with(tmp_path / str(number), monkeypatch, rounds=4, batch_size=size, **SLOW)
        estimator = type(attacker.estimator().network)
        training_batch = estimator.training_batch

        def counted(self: Any, batch: Any, *, generator: Any, kept: Any = training_batch) -> Any:
            seen.append(int(batch.inputs["row"].shape[0]))
            return kept(self, batch, generator=generator)

        with monkeypatch.context() as patch:
            patch.setattr(estimator, "training_batch", counted)
            updates(attacker, shifts=np.zeros(1))
    assert min(seen) >= 10
    assert len(set(seen)) > 1


@pytest.mark.parametrize(("loss", "differences", "least"), [("l1", 1, 0.6), ("huber", 2, 0.4)])
def test_a_loss_that_bends_gave_most_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str, differences: int, least: float
) -> None:
    """And the ages, by the place of the bend."""
    monkeypatch.setattr(handlers, "kinked_loss", lambda _estimator: "")
    monkeypatch.setattr("fedage.common.estimators.configure.kinked_loss", lambda _estimator: "")
    attacker = attacker_with(tmp_path, monkeypatch, rounds=60, batch_size="4096", learning_rate="0.002", loss=loss)
    told, first = updates(attacker, shifts=np.linspace(0, 70, 59))
    found, n = whole_records(np.diff(told, n=differences, axis=0), attacker, first), len(attacker.part("is_train"))
    print(f"{loss}: {found} of {n}")
    assert found >= least * n


def test_a_squared_loss_does_not_bend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attacker = attacker_with(tmp_path, monkeypatch, rounds=30, batch_size="4096", learning_rate="0.002", loss="mse")
    told, first = updates(attacker, shifts=np.linspace(0, 70, 29))
    for differences in (1, 2):
        assert whole_records(np.diff(told, n=differences, axis=0), attacker, first) == 0


@pytest.mark.parametrize(
    ("estimator", "options"),
    [
        ("table-mlp", 'features = ["*"]\nloss = "l1"'),
        ("table-mlp", 'features = ["*"]\nloss = "huber"\nstart = "mean"\nnoise = 1.0'),
        ("chest-ca", 'loss = "huber"'),
        ("chest-ca", 'loss = "huber"\nhuber_delta_years = 130'),
        ("chest-ca", 'loss = "l1"'),
    ],
)
def test_a_file_with_a_loss_that_bends_is_refused(estimator: str, options: str) -> None:
    table = '[table]\nage = "age"\n' if estimator == "table-mlp" else ""
    text = (
        f'[campaign]\nname = "bends"\nseed = 1\npurpose = "Learn with a loss that bends"\n{table}'
        f'[estimator]\nname = "{estimator}"\n[estimator.options]\n{options}\n[training]\nrounds = 2\n'
    )
    with pytest.raises(CampaignErrors, match='use loss = "mse"'):
        parse_campaign(text)
    assert parse_campaign(f"{text}[privacy]\nminimum_count = 1\n").estimator is not None
    assert parse_campaign(
        text.replace('"l1"', '"mse"').replace('"huber"', '"mse"').replace("huber_delta", "# huber_delta")
    )


def test_a_site_that_wants_more_patients_refuses_it_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one whose policy has a minimum count where the file has none."""
    attacker = attacker_with(tmp_path, monkeypatch, rounds=4, batch_size="4096", **SLOW)
    monkeypatch.setattr(handlers, "kinked_loss", lambda _estimator: 'loss = "l1"')
    reply, update, _ = attacker.send({}, run=attacker.new_run(), round_number=1)
    assert (reply.status, reply.rule, update) == ("refused", "kinked-loss", {})


def test_a_deployed_site_draws_by_its_own_key(tmp_path: Path) -> None:
    """Another one at each site and for each file, and the same again after a restart."""
    coordinator = init_home(tmp_path / "coordinator", hosts=("localhost",))
    campaigns = [parse_campaign(FILE.format(rounds=rounds, step_norm=1.0, path_norm=8.0)) for rounds in (2, 3)]
    drawn = []
    for number in (1, 2):
        home = init_site(
            tmp_path / str(number),
            name="harbour",
            coordinator="localhost:8443",
            ca_certificate=coordinator.ca_certificate,
            coordinator_public_key=coordinator.signing_public_key,
        )
        CohortStore.open(home.root).close()
        for campaign in campaigns:
            seeds = [DeployedSite.load(home.root).training_seed(campaign, "batches", 0, 0) for _ in range(2)]
            assert seeds[0] == seeds[1]
            drawn.append(seeds[0])
            assert seeds[0] != derived_seed("train", campaign.campaign.seed, "harbour", "batches", 0, 0)
    assert len(set(drawn)) == 4
