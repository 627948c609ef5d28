"""A deployed hospital that only validates: what it answers by the approved file's role, and which model it takes."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from fedage.client.cli.campaign_text import campaign_text
from fedage.client.cli.index import index_site
from fedage.client.site.home import init_site
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import (
    ANALYSE,
    DESCRIBE,
    EVALUATE,
    TRAIN,
    join_bundle,
    join_iterates,
    join_model,
    model_of,
    unpack,
)
from fedage.server.superlink.home import CoordinatorHome, init_home
from tests.client.hospital import Hospital, refused
from tests.deploy.simulating import as_csv
from tests.deploy.test_external_validation import MIXED, bundle_campaign
from tests.of_bundles import RIDGE, Exported, patients
from tests.of_estimators import preparation

ONLY_EVALUATES = '[requests]\nkinds = ["describe", "evaluate", "analyse"]\n'
WITH_BUDGET = "[data_sets.all]\nepsilon = 1.0\ndelta = 1e-6\n"
NETWORK = MIXED.replace('"table-ridge"', '"table-mlp"') + "[training]\nrounds = 2\nquorum = 1\n"
WITHOUT_FINAL = MIXED.replace("final_model = true\n", "")


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> CoordinatorHome:
    return init_home(tmp_path_factory.mktemp("c"), hosts=("localhost",))


@pytest.fixture(scope="module")
def home(coordinator: CoordinatorHome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospital")
    table = patients(("west",), n=150, seed=21).drop(columns="hospital")
    made = init_site(
        folder / "home",
        name="west",
        coordinator="localhost:8443",
        ca_certificate=coordinator.ca_certificate,
        coordinator_public_key=coordinator.signing_public_key,
    )
    with (made.root / "site.toml").open("a") as settings:
        path = as_csv(table, folder / "table.csv")
        settings.write(f'[table]\npath = "{path}"\nid = "subject"\nage = "age"\nsex = "sex"\n')
    index_site(made.root)
    return made.root


def hospital(home: Path, folder: Path, coordinator: CoordinatorHome, text: str, *, policy: str = "") -> Hospital:
    shutil.copytree(home, folder / "home")
    made = Hospital(folder / "home", coordinator.signing_key(), campaign=parse_campaign(text))
    if policy:
        made.policy(policy)
    made.site.rules.approve(made.campaign)
    return made


@pytest.mark.parametrize("text", [NETWORK, NETWORK.replace("final_model = true\n", "")])
def test_it_is_asked_for_no_training_and_refuses_any(
    home: Path, coordinator: CoordinatorHome, tmp_path: Path, text: str
) -> None:
    west = hospital(home, tmp_path, coordinator, text)
    for fold in (0, 1, 4):
        payload = {**join_model({"w": np.zeros(3, np.float32)}), **join_iterates({"evaluation:validation": {}})}
        reply, arrays = west.send(west.request(TRAIN, round=1, fold=fold), payload)
        assert refused(reply, west) == "role"
        assert model_of(arrays) == {}


def test_nothing_of_its_patients_is_in_sums_that_make_a_model(
    home: Path, coordinator: CoordinatorHome, tmp_path: Path
) -> None:
    west = hospital(home, tmp_path, coordinator, WITHOUT_FINAL)
    first = preparation(west.campaign, west.site.cohort(west.campaign).features)
    assert first is not None
    for fold in (0, 2):
        reply, sums = west.send(west.request(ANALYSE, fold=fold), join_iterates({first.name: first.first()}))
        assert (reply.status, sums) == ("ok", {})
        assert reply.info["withheld"][first.name]["rule"] == "role"
    cohort = west.site.cohort(west.campaign.at("west")).cohort
    assert cohort["is_train"].sum() == 0
    assert cohort["is_test"].sum() == cohort.n


def test_it_judges_the_final_model_and_no_other(home: Path, coordinator: CoordinatorHome, tmp_path: Path) -> None:
    west = hospital(home, tmp_path, coordinator, MIXED)
    made_up = join_model({name: np.ones(4) for name in ("medians", "means", "sds", "coefficients")})
    made_up |= join_model({"intercept": np.array([50.0])})
    for fold, rule in ((0, "fold"), (2, "fold"), (3, "fold"), (4, "first-model")):
        reply, _ = west.send(west.request(EVALUATE, fold=fold), {**made_up, **join_iterates({"bias": {}})})
        assert refused(reply, west) == rule
    reply, sums = west.send(west.request(ANALYSE, fold=3), join_iterates({"bias": {}}))
    assert (refused(reply, west), sums) == ("no-predictions", {})


@pytest.mark.parametrize("policy", [ONLY_EVALUATES, WITH_BUDGET, ONLY_EVALUATES + WITH_BUDGET])
def test_a_policy_without_training_or_with_a_budget_lets_it_validate(
    home: Path, coordinator: CoordinatorHome, tmp_path: Path, policy: str
) -> None:
    west = hospital(home, tmp_path, coordinator, MIXED, policy=policy)
    assert west.ask(DESCRIBE).status == "ok"
    text = "\n".join(campaign_text(west.site.rules, west.campaign.digest))
    assert "Your site trains nothing: other sites make a model of the age estimator table-ridge" in text
    assert "All of your patients are reported on, in 3 parts" in text


def test_it_takes_the_bundle_of_the_approved_file_and_no_other_model(
    home: Path, coordinator: CoordinatorHome, tmp_path: Path, exported_run: Exported
) -> None:
    west = hospital(home, tmp_path, coordinator, bundle_campaign(exported_run.content), policy=ONLY_EVALUATES)
    fold, step = west.campaign.final_fold, join_iterates({"bias": {}})
    content = exported_run.content
    other = bytearray(content)
    other[-1] ^= 1
    weights = join_model(unpack(np.frombuffer(content, dtype=np.uint8)))
    for payload in (
        {},
        weights,
        {**join_bundle(content), **weights},
        join_bundle(bytes(other)),
        join_bundle(content[:-1]),
        {"bundle:file": np.zeros((2, 2))},
    ):
        reply, _ = west.send(west.request(EVALUATE, fold=fold), {**payload, **step})
        assert refused(reply, west) == "bundle"
    reply, _ = west.send(west.request(TRAIN, round=1, fold=fold), {**join_bundle(content), **step})
    assert refused(reply, west) in ("role", "message-kind")
    reply, _ = west.send(west.request(EVALUATE, fold=fold), {**join_bundle(content), **step})
    assert reply.status == "ok"
    reply, sums = west.send(west.request(ANALYSE, fold=west.campaign.validation.folds), step)
    assert set(sums) == {"bias"}, reply.info
    text = "\n".join(campaign_text(west.site.rules, west.campaign.digest))
    assert f"the bundle with the SHA-256 {hashlib.sha256(content).hexdigest()}" in text
    west.must_be_intact(reply)


def test_a_bundle_of_another_file_s_options_is_refused_at_the_site_too(
    home: Path, coordinator: CoordinatorHome, tmp_path: Path, exported_run: Exported
) -> None:
    text = bundle_campaign(exported_run.content, changes={'age_scale = "linear"': 'age_scale = "log"'})
    west = hospital(home, tmp_path, coordinator, text)
    payload = {**join_bundle(exported_run.content), **join_iterates({"bias": {}})}
    reply, _ = west.send(west.request(EVALUATE, fold=west.campaign.final_fold), payload)
    assert refused(reply, west) == "bundle"
    assert "other options" in reply.reason


def test_sites_that_train_are_not_asked_to_judge_the_final_model(
    home: Path, coordinator: CoordinatorHome, tmp_path: Path
) -> None:
    west = hospital(home, tmp_path, coordinator, MIXED.replace('["west"]', '["north"]'))
    reply, _ = west.send(west.request(EVALUATE, fold=4), {**join_model({}), **join_iterates({"bias": {}})})
    assert refused(reply, west) == "fold"
    assert "made the final model" in reply.reason
    without = RIDGE[: RIDGE.index("[validation.fractions]")] + "[validation]\nfolds = 3\n"
    (tmp_path / "other").mkdir()
    west = hospital(home, tmp_path / "other", coordinator, without)
    reply, _ = west.send(west.request(ANALYSE, fold=4), join_iterates({"bias": {}}))
    assert refused(reply, west) == "fold"
