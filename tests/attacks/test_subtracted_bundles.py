"""Attack by two bundles that predict the same for all but one patient: the sums by the one less those by the other.

A campaign that makes its model cannot choose it; one that validates a bundle can. Σ Ωŷ of the two, subtracted, is that
patient's age times a change that the attacker chose. Through real messages to a hospital with a table: without the
account of what bundles predicted before, the age comes out to the digit; with it the second answer is withheld.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedage.client.cli.index import index_site
from fedage.client.consent.accounts.released_columns import RELEASED_FILE
from fedage.client.site.home import init_site
from fedage.common.analyses.bias.bias_line import REFERENCE_AGE_YEARS, BiasLine
from fedage.common.bundle.container import write_bundle
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import ANALYSE, EVALUATE, join_bundle, join_iterates
from fedage.common.statistics.influence import RULE
from fedage.common.statistics.statistic import Statistic
from fedage.server.superlink.home import CoordinatorHome, init_home
from tests.client.hospital import Hospital
from tests.of_bundles import described

PATIENTS, TARGET = 120, 17
FEATURES = ["a", "b", "rare"]
TEXT = """
[campaign]
name = "validation"
purpose = "Validate a bundle at a hospital with a table"
seed = SEED
[estimator]
name = "table-ridge"
bundle = "DIGEST"
[estimator.options]
features = ["a", "b", "rare"]
age_scale = "linear"
[table]
id = "who"
age = "age"
"""
MODEL: dict[str, Any] = {
    "medians": np.array([0.0, 0.0, 0.0]),
    "means": np.array([0.0, 0.0, 0.0]),
    "sds": np.array([1.0, 1.0, 1.0]),
    "coefficients": np.array([8.0, 4.0, 0.0]),
    "intercept": np.array([55.0]),
}


def table() -> pd.DataFrame:
    """One patient lacks a, another one alone has the rare thing."""
    rng = np.random.default_rng(5)
    age = rng.uniform(30, 80, PATIENTS).round(2)
    a = (age - 55) / 12 + rng.normal(0, 0.3, PATIENTS)
    b = (age - 55) / 15 + rng.normal(0, 0.3, PATIENTS)
    a[TARGET] = np.nan
    rare = np.zeros(PATIENTS)
    rare[TARGET] = 1.0
    return pd.DataFrame({"who": [f"p{k:03d}" for k in range(PATIENTS)], "age": age, "a": a, "b": b, "rare": rare})


def another_median(model: dict[str, Any]) -> dict[str, Any]:
    return {**model, "medians": np.array([0.5, 0.0, 0.0])}


def a_weight_on_the_rare(model: dict[str, Any]) -> dict[str, Any]:
    return {**model, "coefficients": np.array([8.0, 4.0, 3.0])}


def both(model: dict[str, Any]) -> dict[str, Any]:
    return another_median(a_weight_on_the_rare(model))


CHANGES = {another_median: 4.0, a_weight_on_the_rare: 3.0, both: 7.0}
"""By how much (years) the target's prediction changes."""


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> CoordinatorHome:
    return init_home(tmp_path_factory.mktemp("c"), hosts=("localhost",))


@pytest.fixture(scope="module")
def home(coordinator: CoordinatorHome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospital")
    table().to_csv(folder / "table.csv", index=False)
    made = init_site(
        folder / "home",
        name="north",
        coordinator="localhost:8443",
        ca_certificate=coordinator.ca_certificate,
        coordinator_public_key=coordinator.signing_public_key,
    )
    with (made.root / "site.toml").open("a") as settings:
        settings.write(f'[table]\npath = "{folder / "table.csv"}"\nid = "who"\nage = "age"\n')
    index_site(made.root)
    return made.root


def bundle(model: dict[str, Any], key: Ed25519PrivateKey) -> bytes:
    options = {"features": FEATURES, "age_scale": "linear"}
    return write_bundle(described("table-ridge", options, model, table={"id": "who", "age": "age"}), model, key=key)


def campaign(content: bytes, *, seed: int = 1) -> Campaign:
    return parse_campaign(TEXT.replace("DIGEST", hashlib.sha256(content).hexdigest()).replace("SEED", str(seed)))


def sums(hospital: Hospital, content: bytes, *, seed: int = 1, run: str = "r1") -> Statistic | str:
    """The sums of a bundle's bias line, asked as an honest coordinator does; else the rule that withheld them."""
    asked = campaign(content, seed=seed)
    hospital.campaign = asked
    hospital.site.rules.approve(asked)
    payload = {**join_bundle(content), **join_iterates({"bias": {}})}
    request = hospital.request(EVALUATE, fold=asked.final_fold, run=run)
    reply, _ = hospital.send(request, payload)
    assert reply.status == "ok", reply
    reply, got = hospital.send(hospital.request(ANALYSE, fold=asked.validation.folds, run=run),
                               join_iterates({"bias": {}}))  # fmt: skip
    assert reply.status == "ok", reply
    if "bias" not in got:
        return str(reply.info["withheld"]["bias"]["rule"])
    return Statistic(layout=BiasLine().layout({}), vector=got["bias"], smallest=None)


@pytest.mark.parametrize("change", CHANGES)
def test_without_an_account_the_age_comes_out(
    home: Path, coordinator: CoordinatorHome, tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """What the rule is against: at two hospitals of the same patients, which know nothing of each other."""
    answers = []
    for number, model in enumerate((MODEL, change(MODEL))):
        shutil.copytree(home, tmp_path / str(number))
        hospital = Hospital(tmp_path / str(number), coordinator.signing_key())
        answers.append(sums(hospital, bundle(model, hospital.key)))
    first, second = answers
    assert isinstance(first, Statistic)
    assert isinstance(second, Statistic)
    change_years = second.scalar("predicted") - first.scalar("predicted")
    # The noise on predictions does not help: that of all others is the same in both sums.
    assert change_years == pytest.approx(CHANGES[change], abs=0.05)
    age = (second.scalar("age_predicted") - first.scalar("age_predicted")) / change_years + REFERENCE_AGE_YEARS
    assert age == pytest.approx(table()["age"][TARGET], abs=1e-6)


@pytest.mark.parametrize("change", CHANGES)
def test_a_second_bundle_that_differs_for_one_patient_is_answered_nothing(
    home: Path, coordinator: CoordinatorHome, tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    shutil.copytree(home, tmp_path / "home")
    hospital = Hospital(tmp_path / "home", coordinator.signing_key())
    assert isinstance(sums(hospital, bundle(MODEL, hospital.key)), Statistic)
    assert (hospital.home / "accounts" / RELEASED_FILE).is_file()
    assert sums(hospital, bundle(change(MODEL), hospital.key), seed=2) == RULE


def test_the_same_bundle_again_and_a_quite_other_one_are_answered(
    home: Path, coordinator: CoordinatorHome, tmp_path: Path
) -> None:
    shutil.copytree(home, tmp_path / "home")
    hospital = Hospital(tmp_path / "home", coordinator.signing_key())
    first = sums(hospital, bundle(MODEL, hospital.key))
    again = sums(hospital, bundle(MODEL, hospital.key), run="r2")
    assert isinstance(first, Statistic)
    assert isinstance(again, Statistic)
    assert np.array_equal(first.vector, again.vector)
    other = {**MODEL, "coefficients": np.array([5.0, 7.0, 0.0]), "intercept": np.array([57.0])}
    assert isinstance(sums(hospital, bundle(other, hospital.key), seed=3), Statistic)
