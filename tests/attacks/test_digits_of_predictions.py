"""Attack by the digits of a sum: a bundle that predicts a few levels, and a little more for one patient.

Ages are whole years, so that Σŷ and Σ(Ω − m)ŷ of one evaluation are whole multiples of the step between two levels but
for that patient: a division tells that there is one, and the age. Through real messages to a hospital with a table.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedage.client.cli.index import index_site
from fedage.client.compute import contribute
from fedage.client.inbox.deployed import DeployedSite
from fedage.client.site.home import init_site
from fedage.common.bundle.container import write_bundle
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import ANALYSE, EVALUATE, join_bundle, join_iterates
from fedage.server.superlink.home import CoordinatorHome, init_home
from tests.client.hospital import Hospital
from tests.of_bundles import described

PATIENTS, TARGET, EVALUATION, AROUND = 120, 17, "evaluation:test", 64.0
FEATURES = ["a", "level", "rare"]
TEXT = """
[campaign]
name = "digits"
purpose = "Validate a bundle whose predictions have digits"
seed = SEED
[estimator]
name = "table-ridge"
bundle = "DIGEST"
[estimator.options]
features = ["a", "level", "rare"]
age_scale = "linear"
[table]
id = "who"
age = "age"
"""


def table() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    rare = np.zeros(PATIENTS)
    rare[TARGET] = 1.0
    level = (rng.random(PATIENTS) < 0.5).astype(float)
    level[TARGET] = 0.0
    age = np.floor(rng.uniform(30, 80, PATIENTS))
    a = (age - 55) / 12 + rng.normal(0, 0.3, PATIENTS)
    return pd.DataFrame(
        {"who": [f"p{k:03d}" for k in range(PATIENTS)], "age": age, "level": level, "rare": rare, "a": a}
    )


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


@pytest.fixture
def hospital(home: Path, coordinator: CoordinatorHome, tmp_path: Path) -> Hospital:
    shutil.copytree(home, tmp_path / "home")
    return Hospital(tmp_path / "home", coordinator.signing_key())


def sums_of(
    hospital: Hospital, *, level: float, rare: float, a: float = 0.0, lowest: float = 64.0, seed: int = 1
) -> dict[str, float] | str:
    """What the site answers of a bundle that predicts `lowest` years and these for each feature; else the rule."""
    model = {
        "medians": np.zeros(3),
        "means": np.zeros(3),
        "sds": np.ones(3),
        "coefficients": np.array([a, level, rare]),
        "intercept": np.array([lowest]),
    }
    options = {"features": FEATURES, "age_scale": "linear"}
    description = described("table-ridge", options, model, table={"id": "who", "age": "age"})
    content = write_bundle(description, model, key=hospital.key)
    text = TEXT.replace("DIGEST", hashlib.sha256(content).hexdigest()).replace("SEED", str(seed))
    asked = hospital.campaign = parse_campaign(text)
    hospital.site.rules.approve(asked)
    iterate = {EVALUATION: {"mean_age": np.array(AROUND)}}
    request = hospital.request(EVALUATE, fold=asked.final_fold, run=f"r{seed}")
    reply, _ = hospital.send(request, {**join_bundle(content), **join_iterates({"bias": {}})})
    assert reply.status == "ok", reply
    analyse = hospital.request(ANALYSE, fold=asked.validation.folds, run=f"r{seed}")
    reply, got = hospital.send(analyse, join_iterates(iterate))
    assert reply.status == "ok", reply
    if EVALUATION not in got:
        return str(reply.info["withheld"][EVALUATION]["rule"])
    layout = contribute.registered(asked)[EVALUATION].layout(iterate[EVALUATION])
    names = [field.name for field in layout.fields if not field.shape]
    return {name: float(layout.block(got[EVALUATION], name)) for name in names}


def told(sums: dict[str, float], *, step: float, rare: float) -> tuple[float, float]:
    """How many are beside the levels, and Σ(Ω − m) of them: what remains of a division by the step."""

    def remainder(name: str) -> float:
        return (sums[name] - step * round(sums[name] / step)) / rare

    return remainder("predicted"), remainder("age_predicted")


LEVELS = {"a thirty-thousandth": (16.0, 2.0**-15), "a thousandth": (32.0, 2.0**-10), "a tenth": (60.0, 0.1)}


@pytest.fixture
def without_rules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(contribute, "require_no_levels", lambda *_args, **_named: None)
    monkeypatch.setattr(contribute, "with_dither", lambda cohort, *_args, **_named: cohort)
    return


@pytest.mark.usefixtures("without_rules")
@pytest.mark.parametrize("which", LEVELS)
def test_without_the_rules_the_age_comes_out(hospital: Hospital, which: str) -> None:
    step, rare = LEVELS[which]
    sums = sums_of(hospital, level=step, rare=rare)
    assert not isinstance(sums, str)
    count, about = told(sums, step=step, rare=rare)
    assert count == pytest.approx(1, abs=1e-3)
    assert about + AROUND == pytest.approx(table()["age"][TARGET], abs=0.1)


@pytest.mark.parametrize("which", LEVELS)
def test_noise_hides_the_digits(hospital: Hospital, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    """The noise alone, over keys: what remains is told with an error of more than the patients' ages vary by."""
    monkeypatch.setattr(contribute, "require_no_levels", lambda *_args, **_named: None)
    step, rare = LEVELS[which]
    ages = []
    for number in range(12):
        key = bytes([number]) * 32
        monkeypatch.setattr(DeployedSite, "privacy_secret", lambda _site, key=key: key)
        sums = sums_of(hospital, level=step, rare=rare, seed=number + 1)
        assert not isinstance(sums, str)
        ages.append(told(sums, step=step, rare=rare)[1])
    print(which, "Σ(Ω − m) of the target, by key:", np.round(ages, 1))
    assert np.std(ages) > 10


@pytest.mark.parametrize("rare", [0.5, 3.0, -5.0, 9.0])
@pytest.mark.parametrize("lowest", [64.0, 20.0])
def test_what_noise_does_not_hide_is_withheld(hospital: Hospital, rare: float, lowest: float) -> None:
    assert sums_of(hospital, level=32.0, rare=rare, lowest=lowest) == "influence"


def test_predictions_cut_to_both_bounds_but_one_are_withheld(hospital: Hospital) -> None:
    assert sums_of(hospital, level=300.0, rare=57.3, lowest=-1.0) in ("influence", "minimum-count")


def test_an_honest_model_is_answered_and_hardly_another(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sums_of(hospital, level=0.3, rare=0.0, a=11.0, lowest=55.0)
    again = sums_of(hospital, level=0.3, rare=0.0, a=11.0, lowest=55.0, seed=2)
    assert first == again, "the same predictions have the same noise"
    monkeypatch.setattr(contribute, "with_dither", lambda cohort, *_args, **_named: cohort)
    exact = sums_of(hospital, level=0.3, rare=0.0, a=11.0, lowest=55.0, seed=3)
    assert not isinstance(first, str)
    assert not isinstance(exact, str)
    assert first != exact
    n = exact["n"]
    assert abs(first["error"] - exact["error"]) / n < 0.003
    assert np.sqrt(first["squared_error"] / exact["squared_error"]) == pytest.approx(1, abs=1e-3)
