"""Estimators of another package, over the real server's phases and the real handlers; no line of FedAge knows them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedage.common import estimators
from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.estimators.base import Samples
from fedage.common.estimators.derive import model_before
from fedage.common.protocol.basis import Basis
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.results import Results, read_results
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import InProcessGrid, Meddle, MemorySite, table_site
from tests.plugins.pictures import SIDE, TABLE, TRAINED, cohort_of, pictures, site_with

pytestmark = pytest.mark.usefixtures("installed")

FOLDS = "[validation]\nfolds = 3\n"
OF_THE_MEAN_YEARS = 10.0
"""MAE of the mean of ages spread evenly over 40 to 80 years."""


def run(folder: Path, text: str, members: Sequence[MemorySite], *, meddle: Meddle | None = None) -> Results:
    grid = InProcessGrid(members, meddle=meddle)
    place = Place(folder=folder / "run", run="r1", environment="simulation", guard=True)
    place.folder.mkdir(parents=True)
    conduct(PollingGrid(grid, poll_s=0.01), parse_campaign(text), place, key=None, admitted=grid.names)
    return read_results(folder / "run" / "results.json")


def error_of(results: Results) -> float:
    """The mean absolute error in years of the patients who were not trained on."""
    overall = evaluation_results.evaluation(results).test.raw.overall
    assert results.run.status == "finished", results.run
    assert overall is not None
    assert overall.mae_years is not None
    return overall.mae_years


# --- an exact estimator that is not ridge ---


def tables(folder: Path, *, rare: bool = False) -> list[MemorySite]:
    made = []
    for number, (name, count) in enumerate((("a", 60), ("b", 90), ("c", 75))):
        rng = np.random.default_rng(number)
        z = rng.normal(size=(count, 4))
        age = np.clip(50 + 8 * z[:, 0] - 4 * z[:, 1] + rng.normal(0, 2, count), 5, 120)
        x = z * [1.0, 10.0, 0.1, 5.0] + 7.0
        if rare:
            x[:, 3] = 0.0
            x[3, 3] = 1.0
        made.append(table_site(name, folder / "sites", x=x, age=age, seed=number))
    return made


def pooled(members: Sequence[MemorySite], text: str) -> dict[str, np.ndarray]:
    """The same model from one table, written out."""
    found = [site.cohort(parse_campaign(text)).cohort for site in members]
    x = np.concatenate([cohort.matrix(tuple(f"feature:f{k}" for k in range(4))) for cohort in found])
    age = np.concatenate([cohort["age_years"] for cohort in found])
    rows = np.concatenate([cohort["is_train"] for cohort in found]) == 1
    x, age = x[rows], age[rows]
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    t = (age - age.mean()) / age.std()
    w = z.T @ t / np.linalg.norm(z.T @ t)
    score = z @ w
    return {
        "means": x.mean(axis=0),
        "sds": x.std(axis=0),
        "weights": w,
        "line": np.array([age.mean(), age.std() * (score @ t) / (score @ score)]),
    }


def test_an_exact_estimator_that_is_no_ridge_is_the_pooled_one(tmp_path: Path) -> None:
    members, text = tables(tmp_path), TABLE.format(name="trial-pls")
    assert error_of(run(tmp_path, text, members)) < 3.0
    model = load_file(tmp_path / "run" / "model.safetensors")
    for name, expected in pooled(members, text).items():
        np.testing.assert_allclose(model[name], expected, rtol=1e-9, atol=1e-12, err_msg=name)


def test_it_predicts_out_of_fold_too(tmp_path: Path) -> None:
    assert error_of(run(tmp_path, TABLE.format(name="trial-pls") + FOLDS, tables(tmp_path))) < 3.0
    assert len(list((tmp_path / "run").glob("model-fold-*.safetensors"))) == 3


def test_its_sums_keep_the_influence_rule(tmp_path: Path) -> None:
    """A column that one patient of a site has gets no weight: it is in no sum."""
    run(tmp_path, TABLE.format(name="trial-pls"), tables(tmp_path, rare=True))
    model = load_file(tmp_path / "run" / "model.safetensors")
    assert model["weights"][3] == 0
    assert model["sds"][3] == 0
    assert np.all(model["weights"][:3] != 0)


def test_sums_that_no_rule_could_look_at_are_refused_by_the_file_and_by_a_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TABLE.format(name="trial-unguarded").replace('["*"]', '["f0", "f1", "f2", "f3"]')
    with pytest.raises(CampaignErrors, match="influence rule"):
        parse_campaign(text)


@pytest.mark.parametrize(
    ("name", "what"),
    [("trial-broken", "cannot be imported"), ("trial-lost", "unknown estimator"), ("trial-plz", "trial-pls")],
)
def test_an_estimator_that_is_not_there_is_one_mistake_of_the_file(name: str, what: str) -> None:
    with pytest.raises(CampaignErrors, match=what):
        parse_campaign(TABLE.format(name=name))


@pytest.mark.parametrize("name", ["trial-pls", "trial-views", "trial-volume", "trial-contrastive", "trial-synthetic"])
def test_reading_its_campaign_loads_no_torch(name: str, installed: Path, tmp_path: Path) -> None:
    file = tmp_path / "campaign.toml"
    file.write_text((TABLE if name == "trial-pls" else TRAINED + "batch_size = 16\n").format(name=name, rounds=2))
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r}); from pathlib import Path;"
        "from fedage.deploy.machine.campaign_file import load_campaign;"
        "from fedage.common.campaign_file.describe import campaign_sentences;"
        f"print(campaign_sentences(load_campaign(Path({str(file)!r})))); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert name in done.stdout


# --- pictures in memory ---


def test_four_views_with_some_missing(tmp_path: Path) -> None:
    members = []
    for seed, name in enumerate("abc"):
        columns = cohort_of(60, seed)
        arrays, present = {}, {}
        for k, view in enumerate(("L-CC", "R-CC", "L-MLO", "R-MLO")):
            arrays[view] = pictures(columns["age_years"], 10 * seed + k)
            if k:  # every fourth patient lacks this view
                present[view] = np.arange(60) % 4 != k
                arrays[view] = arrays[view] * present[view][:, None, None, None]
        members.append(site_with(name, tmp_path, columns, Samples(arrays, present), seed))
    text = TRAINED.format(name="trial-views", rounds=8) + "batch_size = 16\n"
    assert error_of(run(tmp_path, text, members)) < 0.6 * OF_THE_MEAN_YEARS


def test_a_loss_over_the_whole_batch_then_an_exact_ridge_on_its_embedding(tmp_path: Path) -> None:
    members = []
    for seed, name in enumerate("abc"):
        columns = cohort_of(70, seed)
        members.append(
            site_with(name, tmp_path, columns, Samples({"image": pictures(columns["age_years"], seed)}), seed)
        )
    text = TRAINED.format(name="trial-contrastive", rounds=4) + "batch_size = 24\n"
    results = run(tmp_path, text, members)
    assert error_of(results) < 0.6 * OF_THE_MEAN_YEARS
    # An encoder predicts no age yet; what the last round is given is the finished model's.
    assert all(done.validation_mae_years is None for done in results.rounds[:-1])
    model = load_file(tmp_path / "run" / "model.safetensors")
    assert {"ridge.coefficients", "layers.1.weight"} <= set(model)


@pytest.mark.parametrize("path", [100.0, 0.05])
def test_two_phases_in_rounds_share_the_runs_path(tmp_path: Path, path: float) -> None:
    """The second begins with the model that the first has made, and what the first has used of the path is gone."""
    members = []
    for seed, name in enumerate("abc"):
        columns = cohort_of(60, seed)
        views = {view: pictures(columns["age_years"], seed) for view in ("L-CC", "R-CC", "L-MLO", "R-MLO")}
        members.append(site_with(name, tmp_path, columns, Samples(views), seed))
    text = TRAINED.format(name="trial-twice", rounds=3) + "batch_size = 16\n"
    text = text.replace("[training]", f"[training]\nmax_step_norm = {min(path, 20.0)}\nmax_path_norm = {path}")
    results = run(tmp_path, text, members)
    assert results.run.status == "finished"
    assert [done.number for done in results.rounds] == [1, 2, 3, 4, 5, 6]
    assert all(done.sites == ("a", "b", "c") for done in results.rounds), "no site refuses a round"
    campaign = parse_campaign(text)
    first = model_before(campaign, (), fold=0, phase=0, basis=Basis())
    last = load_file(tmp_path / "run" / "model.safetensors")
    moved = float(np.sqrt(sum(np.square(last[name] - array).sum() for name, array in first.items())))
    assert 0 < moved <= path * 1.001
    if path == 100.0:
        assert error_of(results) < 0.6 * OF_THE_MEAN_YEARS


def test_a_batch_below_what_the_loss_needs_is_refused_by_the_file() -> None:
    text = TRAINED.format(name="trial-contrastive", rounds=4) + "batch_size = 4\n"
    with pytest.raises(CampaignErrors, match="must be ≥ 6 with trial-contrastive"):
        parse_campaign(text)


def test_a_coupled_loss_is_refused_with_privacy_for_each_patient() -> None:
    text = TRAINED.format(name="trial-contrastive", rounds=4) + "batch_size = 24\n"
    text = text.replace(
        "minimum_count = 5", 'minimum_count = 5\nmode = "sample"\nepsilon = 3.0\ndelta = 1e-5\nclip_norm = 1.0'
    )
    with pytest.raises(CampaignErrors, match="relates the samples of a"):
        parse_campaign(text)


def test_trained_on_synthesised_images_it_predicts_on_real_ones(tmp_path: Path) -> None:
    """The sites' images are of another contrast than what was trained on; half the patients have no label map."""
    members = []
    for seed, name in enumerate("abc"):
        columns = cohort_of(80, seed)
        real = pictures(columns["age_years"], seed)
        y, x = np.mgrid[0:SIDE, 0:SIDE] - (SIDE - 1) / 2
        radius = 2 + (columns["age_years"] - 40) / 10
        labels = (np.hypot(x, y)[None] < radius[:, None, None]).astype(np.float32)[:, None]
        known = np.arange(80) % 2 == 0
        arrays = {"labels": labels * known[:, None, None, None], "image": real}
        members.append(site_with(name, tmp_path, columns, Samples(arrays, {"labels": known}), seed))
    text = TRAINED.format(name="trial-synthetic", rounds=10) + "batch_size = 16\n"
    assert error_of(run(tmp_path, text, members)) < 0.6 * OF_THE_MEAN_YEARS


# --- the rules hold for a phase that follows training ---


def two_phases(folder: Path) -> list[MemorySite]:
    made = []
    for seed, name in enumerate("abc"):
        columns = cohort_of(70, seed)
        made.append(site_with(name, folder, columns, Samples({"image": pictures(columns["age_years"], seed)}), seed))
    return made


def test_registered_names_hold_those_of_other_packages() -> None:
    assert {"chest-ca", "trial-pls", "trial-volume"} <= set(estimators.names())
