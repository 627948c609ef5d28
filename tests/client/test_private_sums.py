"""Sums with noise at a real home with a table: of the right size, paid for once, and the same when asked again."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedage.client.audit.entries import micro
from fedage.client.cli.index import index_site
from fedage.client.inbox import private_sums
from fedage.client.site.home import init_site
from fedage.common.campaign_file import parse_campaign
from fedage.common.privacy.accountant import Mechanism, epsilon
from fedage.common.protocol.messages import ANALYSE, Reply, join_iterates
from fedage.server.superlink.home import CoordinatorHome, init_home
from tests.client.hospital import Hospital, refused
from tests.deploy.test_simulate_private_ridge import FILE

SIGMA, P = 2.0, 60
STEP = "noised-moments"
TEXT = FILE + f"noise_multiplier = {SIGMA}\nminimum_count = 3\n"
POLICY = "[disclosure]\nminimum_count = 3\n[data_sets.all]\nepsilon = {}\ndelta = 1e-5\n"
ONE = Mechanism(sampling_rate=1.0, noise_multiplier=SIGMA, steps=1)


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> CoordinatorHome:
    return init_home(tmp_path_factory.mktemp("c"), hosts=("localhost",))


@pytest.fixture
def hospital(coordinator: CoordinatorHome, tmp_path: Path) -> Hospital:
    return made(coordinator, tmp_path)


def made(
    coordinator: CoordinatorHome, folder: Path, *, text: str = TEXT, budget: float = 100.0, value: float = 0.0
) -> Hospital:
    """A hospital of 100 patients, whose features are all this value and whose ages are at the range's middle."""
    columns = {f"x{k}": np.full(100, value) for k in range(P)}
    table = pd.DataFrame({"who": [f"p{k}" for k in range(100)], "age": np.full(100, 50.0), **columns})
    table.to_csv(folder / "table.csv", index=False)
    home = init_site(
        folder / "home",
        name="harbour",
        coordinator="localhost:8443",
        ca_certificate=coordinator.ca_certificate,
        coordinator_public_key=coordinator.signing_public_key,
    )
    with (home.root / "site.toml").open("a") as settings:
        settings.write(f'[table]\npath = "{folder / "table.csv"}"\nid = "who"\n')
    (home.root / "policy.toml").write_text(POLICY.format(budget))
    index_site(home.root)
    hospital = Hospital(home.root, coordinator.signing_key(), campaign=parse_campaign(text))
    hospital.site.rules.approve(hospital.campaign)
    return hospital


def ask(hospital: Hospital, **changes: Any) -> tuple[Reply, np.ndarray]:
    reply, arrays = hospital.send(hospital.request(ANALYSE, **changes), join_iterates({STEP: {}}))
    return reply, arrays.get(STEP, np.empty(0))


def charges(hospital: Hospital) -> int:
    with sqlite3.connect(hospital.home / "ledger.db") as connection:
        return int(connection.execute("SELECT count(*) FROM charges").fetchone()[0])


def noise_of(sums: np.ndarray) -> np.ndarray:
    """Of sums whose values are all 0, but for the number of patients, which is first, and of sites, which is last."""
    return sums[1:-1]


def has_the_noise(sums: np.ndarray) -> bool:
    """Whether its SD is σ: within five standard errors of the SD of so many normal numbers."""
    noise = noise_of(sums)
    return abs(noise.std() / SIGMA - 1) < 5 / np.sqrt(2 * noise.size) and abs(noise.mean()) < 5 * SIGMA / np.sqrt(
        noise.size
    )


def test_the_sums_have_noise_of_the_stated_size_and_are_charged(hospital: Hospital) -> None:
    reply, sums = ask(hospital)
    assert reply.status == "ok", reply.reason
    assert sums.size == (P + 2) * (P + 3) // 2 + 1
    assert has_the_noise(sums)
    assert sums[-1] == 1.0
    trained = 70 / 9  # rows (1, 0, …) at C = 3
    assert abs(sums[0] - trained) < 6 * SIGMA + 2
    told = reply.info["privacy"]
    assert told["epsilon"] == pytest.approx(epsilon([ONE], delta=1e-5))
    assert hospital.last().entry.epsilon_micro == micro(told["epsilon"])
    hospital.must_be_intact(reply)


@pytest.mark.parametrize("part", [0.5, 0.8, 1.25, 2.0])
def test_noise_of_another_size_is_noticed(hospital: Hospital, monkeypatch: pytest.MonkeyPatch, part: float) -> None:
    whole = private_sums.noised
    monkeypatch.setattr(private_sums, "noised", lambda total, *, sd, random: whole(total, sd=part * sd, random=random))
    assert not has_the_noise(ask(hospital)[1])


def test_a_resumed_run_gets_the_same_bits_and_pays_once(hospital: Hospital) -> None:
    reply, sums = ask(hospital)
    hospital.site.rules.close()
    hospital.start()
    again, same = ask(hospital, run="r2")
    np.testing.assert_array_equal(sums, same)
    assert again.info["privacy"] == reply.info["privacy"]
    assert charges(hospital) == 1
    assert hospital.last().entry.epsilon_micro == 0


def test_other_patients_and_another_site_get_other_noise(coordinator: CoordinatorHome, tmp_path: Path) -> None:
    told = []
    for number, value in enumerate((0.0, 1e-9, 0.0)):
        (tmp_path / str(number)).mkdir()
        told.append(noise_of(ask(made(coordinator, tmp_path / str(number), value=value))[1]))
    for k in range(3):
        for j in range(k):
            assert abs(np.corrcoef(told[k], told[j])[0, 1]) < 0.15


def test_sums_beyond_the_budget_are_refused_before_they_leave(coordinator: CoordinatorHome, tmp_path: Path) -> None:
    poor = made(coordinator, tmp_path, budget=0.5)
    assert refused(ask(poor)[0], poor) == "budget"
    assert charges(poor) == 0


def test_folds_compose_up_to_what_the_file_says(coordinator: CoordinatorHome, tmp_path: Path) -> None:
    folds = made(coordinator, tmp_path, text=TEXT + "[validation]\nfolds = 3\n")
    noises = []
    for fold in range(3):
        reply, sums = ask(folds, fold=fold)
        assert reply.info["privacy"]["epsilon"] == pytest.approx(epsilon([ONE] * (fold + 1), delta=1e-5))
        noises.append(noise_of(sums))
    assert charges(folds) == 3
    assert abs(np.corrcoef(noises)[np.triu_indices(3, 1)]).max() < 0.15


def test_another_exact_phase_does_not_answer_a_campaign_with_privacy(hospital: Hospital) -> None:
    arrays = hospital.send(hospital.request(ANALYSE), join_iterates({"table-preparation": {}}))[1]
    assert "table-preparation" not in arrays
