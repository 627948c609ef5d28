"""Out-of-fold ages of several campaigns at a site, as the table that `age-ensemble` weights."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from fedage.client.cli.index import index_site
from fedage.client.cli.main import site
from fedage.client.compute.predictions import name_of
from fedage.client.inbox.deployed import DeployedSite
from fedage.client.prediction.out_of_fold import (
    AGE,
    MEMBER,
    PATIENT,
    OutOfFold,
    members_of,
    settings_for,
    write_out_of_fold,
)
from fedage.client.site.home import SiteHome, init_site
from fedage.common.campaign_file import parse_campaign
from fedage.common.errors import FedAgeError
from fedage.deploy.demo.mammograms import HOSPITALS, render_mammography
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.results import Results, read_results
from fedage.server.superlink.grid import PollingGrid
from fedage.server.superlink.home import CoordinatorHome, init_home
from tests.hospitals_at_work import hospital_home
from tests.machinery import InProcessGrid

TABLE = """
[campaign]
name = "{name}"
purpose = "See what several members predict"
seed = 4
wait_s = 60
[estimator]
name = "{estimator}"
[estimator.options]
{options}
[table]
id = "{id}"
age = "age"
sex = "sex"
{more}
"""
FOLDS = "[validation]\nfolds = 2\n"
PARTS = "[validation.fractions]\ntrain = 0.6\nvalidation = 0.2\ntest = 0.2\n"
IMAGES = """
[campaign]
name = "{backbone}"
purpose = "One member of an ensemble"
seed = 5
wait_s = 600
[estimator]
name = "breast-4view"
[estimator.options]
backbone = "{backbone}"
image_height = 64
image_width = 32
width = {width}
local_path = false
draws = 4
age_min_years = 30
age_max_years = 85
[training]
rounds = {rounds}
local_epochs = 2
learning_rate = 0.003
optimiser = "adamw"
round_deadline_s = 600
[validation]
folds = 2
[privacy]
minimum_count = 2
"""
WIDTHS = {"resnet18": 8, "resnet50": 8, "efficientnet-b0": 64, "densenet121": 64, "convnext-tiny": 64}


def run(homes: Sequence[Path], text: str, folder: Path, *, of: CoordinatorHome) -> Results:
    """One campaign through the hospitals' own rules, in this process."""
    sites = [DeployedSite(SiteHome.load(home)) for home in homes]
    for each in sites:
        if not each.rules.approvals.is_approved(parse_campaign(text).digest):
            each.rules.approve(parse_campaign(text))
    grid = InProcessGrid(sites)
    place = Place(folder=folder, run="r", environment="deployment", guard=True, sites_there=len(homes))
    conduct(PollingGrid(grid, poll_s=0.001), parse_campaign(text), place, key=of.signing_key(), admitted=grid.names)
    return read_results(folder / "results.json")


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def offer(home: Path, done: OutOfFold) -> None:
    """What the command says to put into `site.toml`, in place of the table that was there."""
    settings = home / "site.toml"
    settings.write_text(settings.read_text().split("\n[table]\n")[0] + "\n" + settings_for(done.file) + "\n")
    index_site(home)


def ensemble_text(members: Sequence[str], *, minimum: str = "") -> str:
    columns = ", ".join(f'"{MEMBER}{name}"' for name in members)
    return TABLE.format(
        name="ensemble", estimator="age-ensemble", options=f"features = [{columns}]", id=PATIENT, more=PARTS + minimum
    )


def best_weights(predicted: np.ndarray, age: np.ndarray) -> np.ndarray:
    """The best of all subsets of members, each weighted by least squares with the sum 1 and no sign asked for."""
    errors = predicted - age[:, None]
    products, count = errors.T @ errors / len(age), predicted.shape[1]
    found = []
    for size in range(1, count + 1):
        for chosen in map(list, combinations(range(count), size)):
            raw = np.linalg.lstsq(products[np.ix_(chosen, chosen)], np.ones(size), rcond=None)[0]
            weights = np.zeros(count)
            weights[chosen] = raw / raw.sum()
            if weights.min() >= 0:
                found.append(weights)
    return min(found, key=lambda weights: float(weights @ products @ weights))


def trained_on(home: Path, text: str, members: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Members' ages (n, K) and ages (n,) of those that the ensemble is fitted on, as the site has them."""
    found = DeployedSite(SiteHome.load(home)).cohort(parse_campaign(text)).cohort
    inside = found["is_train"] == 1
    # Features are in the order of their names, whatever the file's.
    columns = [f"feature:{MEMBER}{name}" for name in sorted(members)]
    return found.matrix(columns)[inside], found["age_years"][inside]


def must_be_the_optimum(homes: Sequence[Path], text: str, members: Sequence[str], folder: Path) -> np.ndarray:
    parts = [trained_on(home, text, members) for home in homes]
    predicted, age = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    model = load_file(folder / "model.safetensors")
    weights, used = model["weights"], model["sds"] > 0
    assert weights.min() >= 0
    assert used.sum() >= 2
    assert not weights[~used].any()  # a column that the influence rule leaves out, of so few patients

    def error(of: np.ndarray) -> float:
        return float(np.square(predicted @ of - age).mean())

    best = np.zeros(len(weights))
    best[used] = best_weights(predicted[:, used], age)
    # Where members hardly differ, many weights are as good.
    assert error(weights) == pytest.approx(error(best), rel=1e-9)
    assert weights.sum() == pytest.approx(1)
    return weights


@pytest.fixture(scope="module")
def after_members(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CoordinatorHome, Mapping[str, str]]:
    """Two hospitals with tables after two members with folds; the members' campaign files by name."""
    folder = tmp_path_factory.mktemp("members")
    of = init_home(folder / "coordinator", hosts=("localhost",))
    for seed, name in enumerate(("north", "south")):
        hospital_home(folder, name, coordinator=of, seed=seed, patients=60)
    texts = {}
    for name, column in {"first": "x1", "second": "x2"}.items():
        options = f'features = ["{column}"]\npenalty = 1.0'
        texts[name] = TABLE.format(name=name, estimator="table-ridge", options=options, id="who", more=FOLDS)
        done = run([folder / "north", folder / "south"], texts[name], folder / name, of=of)
        assert done.run.status == "finished"
    return folder, of, texts


def test_members_predicted_here_become_the_columns_of_an_ensemble(
    after_members: tuple[Path, CoordinatorHome, Mapping[str, str]], tmp_path: Path
) -> None:
    folder, of, texts = after_members
    homes = [folder / "north", folder / "south"]
    members = {name: parse_campaign(text).digest for name, text in texts.items()}
    for home in homes:
        words = [f"{name}={digest[:12]}" for name, digest in members.items()]
        said = CliRunner().invoke(site, ["out-of-fold", "--home", str(home), *words])
        assert said.exit_code == 0, said.output
        assert "60 patients in" in said.output
        assert "keyed = true" in said.output
        file = home / "predictions" / "out-of-fold.csv"
        assert file.stat().st_mode & 0o077 == 0
        at = DeployedSite(SiteHome.load(home))
        for name, text in texts.items():
            found = at.cohort(parse_campaign(text))
            kept = []
            for k in (0, 1):
                with np.load(at.state_dir(members[name]) / f"predictions-{name_of('r', fold=k)}.npz") as stored:
                    kept.append(stored["column:predicted_years"])
            expected = {
                key: (float(age), float(kept[int(fold)][row]))
                for row, (key, age, fold) in enumerate(
                    zip(found.keys, found.cohort["age_years"], found.cohort["fold"], strict=True)
                )
            }
            written = {row[PATIENT]: (float(row[AGE]), float(row[MEMBER + name])) for row in rows_of(file)}
            assert written.keys() == expected.keys()
            assert {key: age for key, (age, _) in written.items()} == {key: age for key, (age, _) in expected.items()}
            # With the noise that the site adds to predictions before they are summed.
            noise = np.array([written[key][1] - expected[key][1] for key in expected])
            assert 0 < noise.std() < np.std([predicted for _, predicted in expected.values()]) / 700
    done = [write_out_of_fold(home, members) for home in homes]
    patients = [set(DeployedSite(SiteHome.load(home)).cohort(parse_campaign(texts["first"])).keys) for home in homes]
    before = [(home / "site.toml").read_text() for home in homes]
    for home, written in zip(homes, done, strict=True):
        offer(home, written)
    text = ensemble_text(list(members))
    results = run(homes, text, tmp_path / "run", of=of)
    assert results.run.status == "finished"
    weights = must_be_the_optimum(homes, text, list(members), tmp_path / "run")
    assert weights.min() > 0.1
    for home, whose, settings in zip(homes, patients, before, strict=True):
        # The same patients to the site's rules, though the table has other identifiers.
        assert set(DeployedSite(SiteHome.load(home)).cohort(parse_campaign(text)).keys) == whose
        (home / "site.toml").write_text(settings)
        index_site(home)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet18"], "no member"),
        (["=3fa81c"], "no member"),
        (["a b=3fa81c"], "no member"),
        (["a="], "no member"),
        (["a=3fa81c", "a=4fa81c"], "two members"),
    ],
)
def test_members_are_named_each_once(words: list[str], message: str) -> None:
    with pytest.raises(FedAgeError, match=message):
        members_of(words)


def test_what_has_no_out_of_fold_ages_here_is_refused(
    after_members: tuple[Path, CoordinatorHome, Mapping[str, str]], tmp_path: Path
) -> None:
    folder, _, texts = after_members
    at = DeployedSite(SiteHome.load(folder / "north"))
    never_run = texts["first"].replace("seed = 4", "seed = 6")
    no_folds = texts["first"].replace(FOLDS, PARTS)
    for text, message in ((never_run, "no run here"), (no_folds, "no folds")):
        at.rules.approve(parse_campaign(text))
        with pytest.raises(FedAgeError, match=message):
            write_out_of_fold(folder / "north", {"a": parse_campaign(text).digest})
    with pytest.raises(FedAgeError, match="0000"):
        write_out_of_fold(folder / "north", {"a": "0000"})
    digest = parse_campaign(texts["first"]).digest
    with pytest.raises(FedAgeError, match="cannot be written"):
        write_out_of_fold(folder / "north", {"a": digest}, out=tmp_path / "nowhere" / "file.csv")


@pytest.mark.parametrize("wrong", ["MRN-17", "A" * 64, "0" * 63])
def test_only_keyed_hashes_are_taken_as_such(
    after_members: tuple[Path, CoordinatorHome, Mapping[str, str]], tmp_path: Path, wrong: str
) -> None:
    _, of, _ = after_members
    home = init_site(
        tmp_path / "home",
        name="other",
        coordinator="localhost:8443",
        ca_certificate=of.ca_certificate,
        coordinator_public_key=of.signing_public_key,
    )
    (tmp_path / "table.csv").write_text(f"patient,age,sex,age_a\n{'1a' * 32},50,M,51\n{wrong},60,F,61\n")
    with (home.root / "site.toml").open("a") as settings:
        settings.write(settings_for(tmp_path / "table.csv") + "\n")
    with pytest.raises(FedAgeError, match="keyed hashes") as error:
        index_site(home.root)
    assert wrong not in str(error.value)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_five_backbones_of_mammograms_are_weighted(tmp_path: Path) -> None:
    """From DICOM files at two hospitals to five members and the weights of their ensemble."""
    of = init_home(tmp_path / "coordinator", hosts=("localhost",))
    homes = []
    for number, hospital in enumerate(HOSPITALS[:2], start=1):
        key = tmp_path / f"{hospital.name}.key"  # deals the same folds in every run
        key.write_text(f"{number:064x}\n")
        key.chmod(0o600)
        render_mammography(hospital, out_dir=tmp_path / "data" / hospital.name, seed=3, patients=24)
        home = init_site(
            tmp_path / hospital.name,
            name=hospital.name,
            coordinator="localhost:8443",
            ca_certificate=of.ca_certificate,
            coordinator_public_key=of.signing_public_key,
            data=tmp_path / "data" / hospital.name / "images",
            outcomes=tmp_path / "data" / hospital.name / "outcomes.csv",
            store_key_file=key,
            threads=1,
            device="cpu",
        )
        (home.root / "policy.toml").write_text("[disclosure]\nminimum_count = 2\n")
        index_site(home.root)
        homes.append(home.root)
    members = {}
    for backbone, width in WIDTHS.items():
        text = IMAGES.format(backbone=backbone, width=width, rounds=2)
        assert run(homes, text, tmp_path / backbone, of=of).run.status == "finished"
        members[backbone] = parse_campaign(text).digest
    for home in homes:
        done = write_out_of_fold(home, members)
        assert done.patients >= 20
        offer(home, done)
    minimum = "[privacy]\nminimum_count = 2\npatients_per_column = 0\n"
    text = ensemble_text(list(members), minimum=minimum)
    for home in homes:
        (home / "policy.toml").write_text("[disclosure]\nminimum_count = 2\npatients_per_column = 0\n")
    assert run(homes, text, tmp_path / "run", of=of).run.status == "finished"
    must_be_the_optimum(homes, text, list(members), tmp_path / "run")
