"""A campaign with folds, over real handlers: every fold's model, its patients, its bias line, and who leaves midway."""

from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from fedage.client.cohort.selection.parts import parts_for_fold
from fedage.common.analyses.bias.bias_line import correction_of
from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.statistics.statistic import FloatArray
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.results import Results, read_results
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import InProcessGrid, Meddle, MemorySite, folded_site, table_site

HEAD = """
[campaign]
name = "folds"
purpose = "Try folds on tables and pictures of nobody"
seed = 7
sites = ["a", "b", "c"]
wait_s = 1
approval_wait_s = 1
[privacy]
minimum_count = 5
# Held out of a fold are 20 patients, half of them with holes: of the product of two columns one has more than half.
largest_share = 0.8
"""
RIDGE = """
[estimator]
name = "table-ridge"
[estimator.options]
features = ["*"]
penalty = 4.0
[table]
age = "age"
"""
TABLE = HEAD + RIDGE
ROUNDS = """
rounds = 2
quorum = 2
round_deadline_s = 1
"""
NETWORK = HEAD + RIDGE.replace("table-ridge", "table-mlp") + "[training]" + ROUNDS
PICTURES = (
    HEAD
    + """
[estimator]
name = "chest-ca"
[estimator.options]
image_size = 64
width = 8
[training]
batch_size = 16
"""
    + ROUNDS
)
FOLDS = 3
K = f"\n[validation]\nfolds = {FOLDS}\n"
P = 5


def tables(folder: Path, *, holes: bool = True) -> list[MemorySite]:
    """Three unlike sites. Holes are as the guard lets them be: many patients miss the same features, or nobody does."""
    made = []
    for number, (name, count) in enumerate((("a", 60), ("b", 90), ("c", 75))):
        rng = np.random.default_rng(number)
        z = rng.normal(0.4 * number, 1.0 + 0.3 * number, size=(count, P))
        age = np.exp(3.6 + 0.2 * z[:, 0] - 0.1 * z[:, 1] + rng.normal(0, 0.05, count))
        x = z * 10.0 ** np.arange(-2, 3) + 7.0
        if holes and number:
            x[count // 2 :, 2:4] = np.nan
        made.append(table_site(name, folder / "sites", x=x, age=np.clip(age, 5, 120), seed=number))
    return made


def run(
    folder: Path,
    text: str,
    members: list[MemorySite],
    *,
    meddle: Meddle | None = None,
    grid: InProcessGrid | None = None,
    name: str = "r1",
) -> Results:
    grid = grid or InProcessGrid(members, meddle=meddle)
    place = Place(folder=folder / "run", run=name, environment="simulation", guard=True)
    conduct(PollingGrid(grid, poll_s=0.01), parse_campaign(text), place, key=None, admitted=grid.names)
    return read_results(folder / "run" / "results.json")


def together(campaign: Campaign, members: list[MemorySite]) -> tuple[FloatArray, FloatArray, FloatArray, np.ndarray]:
    """Features, ages, folds and sites of all patients."""
    cohorts = [site.cohort(campaign) for site in members]
    samples = [found.samples["row"] for found in cohorts if found.samples is not None]
    return (
        np.concatenate(samples),
        np.concatenate([found.cohort["age_years"] for found in cohorts]),
        np.concatenate([found.cohort["fold"] for found in cohorts]),
        np.concatenate([np.full(found.cohort.n, site.name) for found, site in zip(cohorts, members, strict=True)]),
    )


def pooled_ridge(x: FloatArray, age: FloatArray, penalty: float) -> tuple[FloatArray, float]:
    """Ridge on standardised features and log age as least squares on the rows: slopes on raw columns, intercept."""
    mean, sd, t = x.mean(axis=0), x.std(axis=0), np.log(age)
    rows = np.vstack([(x - mean) / sd, np.sqrt(penalty) * np.eye(x.shape[1])])
    slopes = np.linalg.lstsq(rows, np.concatenate([t - t.mean(), np.zeros(x.shape[1])]), rcond=None)[0] / sd
    return slopes, float(t.mean() - slopes @ mean)


def test_a_ridge_in_folds_is_pooled_ridge_out_of_fold_with_each_line_of_the_others(tmp_path: Path) -> None:
    members, text = tables(tmp_path), TABLE + K
    results = run(tmp_path, text, members)
    assert (results.run.status, [site.status for site in results.sites]) == ("finished", ["took part"] * 3)
    assert all(site.withheld == () for site in results.sites), results.sites
    x, age, fold, site = together(parse_campaign(text), members)
    predicted = np.full(age.size, np.nan)
    for k in range(FOLDS):
        model = load_file(tmp_path / "run" / f"model-fold-{k + 1}.safetensors")
        filled = np.where(np.isfinite(x), x, model["medians"])
        slopes, intercept = pooled_ridge(filled[fold != k], age[fold != k], 4.0)
        np.testing.assert_allclose(model["coefficients"] / model["sds"], slopes, rtol=1e-8, atol=1e-12)
        predicted[fold == k] = np.exp(filled[fold == k] @ slopes + intercept)
    corrected = np.empty(age.size)
    for name in "abc":
        here = site == name
        line = np.polyfit(age[here], predicted[here], 1)
        told = correction_of(results).lines[name]
        assert (told.slope, told.intercept_years) == pytest.approx(tuple(line), abs=1e-8)
        for k in range(FOLDS):
            own, others = here & (fold == k), here & (fold != k)
            slope, intercept = np.polyfit(age[others], predicted[others], 1)
            corrected[own] = predicted[own] + age[own] - (slope * age[own] + intercept)
    raw, after = (
        evaluation_results.evaluation(results).test.raw.overall,
        evaluation_results.evaluation(results).test.corrected.overall,
    )
    assert raw is not None
    assert after is not None
    assert raw.n == after.n == age.size
    assert raw.mae_years == pytest.approx(np.abs(predicted - age).mean(), abs=1e-8)
    assert after.mae_years == pytest.approx(np.abs(corrected - age).mean(), abs=1e-8)
    assert raw.mae_of_mean_years == pytest.approx(np.abs(age - age.mean()).mean(), abs=1e-8)


def test_without_folds_too_and_the_penalty_by_inner_folds(tmp_path: Path) -> None:
    members = tables(tmp_path)
    text = (
        TABLE.replace("penalty = 4.0", "inner_folds = 2")
        + "[validation.fractions]\ntrain = 0.6\nvalidation = 0.2\ntest = 0.2\n"
    )
    results = run(tmp_path, text, members)
    assert results.run.status == "finished"
    campaign = parse_campaign(text)
    found = [site.cohort(campaign) for site in members]
    train = np.concatenate([one.cohort["is_train"] for one in found]) == 1
    test = np.concatenate([one.cohort["is_test"] for one in found]) == 1
    age = np.concatenate([one.cohort["age_years"] for one in found])
    model = load_file(tmp_path / "run" / "model.safetensors")
    x = np.concatenate([one.samples["row"] for one in found if one.samples is not None])
    x = np.where(np.isfinite(x), x, model["medians"])
    errors = []
    for penalty in (10 ** (step / 8) for step in range(41)):
        slopes, intercept = pooled_ridge(x[train], age[train], float(f"{penalty:.4g}"))
        errors.append(np.abs(model["coefficients"] / model["sds"] - slopes).max())
        if errors[-1] < 1e-8:
            mae = np.abs(np.exp(x[test] @ slopes + intercept) - age[test]).mean()
    overall = evaluation_results.evaluation(results).test.raw.overall
    assert overall is not None
    assert min(errors) < 1e-8, "the model is the pooled ridge of one of the penalties"
    assert overall.mae_years == pytest.approx(mae, abs=1e-8)


def test_pictures_in_folds_train_every_fold_on_the_others(tmp_path: Path) -> None:
    members = [folded_site(name, tmp_path / "sites", count=45, seed=k) for k, name in enumerate("abc")]
    results = run(tmp_path, PICTURES + K, members)
    assert results.run.status == "finished"
    assert [(done.fold, done.number) for done in results.rounds] == [(f, r) for f in (1, 2, 3) for r in (1, 2)]
    assert evaluation_results.evaluation(results).test.raw.overall is not None
    assert evaluation_results.evaluation(results).test.raw.overall.n == 135
    assert len({(tmp_path / "run" / f"model-fold-{k}.safetensors").read_bytes() for k in (1, 2, 3)}) == 3
    campaign = parse_campaign(PICTURES + K)
    for site in members:
        cohort = site.cohort(campaign).cohort
        held_out = np.array([parts_for_fold(cohort, campaign, k)["is_validation"] for k in range(FOLDS)])
        assert np.all(held_out.sum(axis=0) == 1)
        kept = site.state_dir(campaign.digest)
        for k in range(FOLDS):
            with np.load(kept / f"predictions-r1--fold-{k}.npz") as found:
                assert np.array_equal(np.isfinite(found["column:predicted_years"]), held_out[k] == 1)


def thresholds(site: MemorySite, text: str) -> list[tuple[str, int]]:
    file = site.state_dir(parse_campaign(text).digest) / "accounts.db"
    connection = sqlite3.connect(file)
    try:
        return connection.execute('SELECT "column", answered FROM values_tried').fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize("text", [TABLE + K, NETWORK + K], ids=["exact", "rounds"])
def test_an_honest_campaign_with_folds_meets_no_threshold(tmp_path: Path, text: str) -> None:
    members = tables(tmp_path)
    results = run(tmp_path, text, members)
    assert all(site.withheld == () for site in results.sites)
    for site in members:
        assert thresholds(site, text) == [("age_years", 1)]
    assert evaluation_results.evaluation(results).test.raw.overall is not None
    assert evaluation_results.evaluation(results).test.raw.overall.mae_of_mean_years is not None


def test_a_site_that_leaves_in_the_middle_of_the_second_fold_for_good(tmp_path: Path) -> None:
    """It has predictions of one fold only, so nothing of it is analysed, and the others' results are their own."""
    members = tables(tmp_path)
    grid = InProcessGrid(members)

    def meddle(message: Message, node: int) -> Message | None:
        head = message.content.config_records["request"]
        if node == 3 and message.metadata.message_type == "train" and (head["fold"], head["round"]) == (1, 2):
            grid.offline.add(3)
            return None
        return message

    grid._meddle = meddle
    results = run(tmp_path, NETWORK + K, members, grid=grid)
    assert results.run.status == "finished"
    assert [done.sites for done in results.rounds] == [("a", "b", "c")] * 3 + [("a", "b")] * 3
    gone = results.sites[2]
    assert (gone.name, gone.status, gone.dropped_out_in_round) == ("c", "dropped out", 1), (
        "it did no round of the last fold"
    )
    assert evaluation_results.evaluation(results).test.raw.overall is not None
    assert evaluation_results.evaluation(results).test.raw.overall.n == 150
    assert set(correction_of(results).lines) == {"a", "b"}
    for site in members[:2]:
        assert thresholds(site, NETWORK + K) == [("age_years", 1)]
    assert all(site.withheld == () for site in results.sites[:2])


def test_a_site_that_misses_the_second_folds_predictions_and_comes_back(tmp_path: Path) -> None:
    def meddle(message: Message, node: int) -> Message | None:
        head = message.content.config_records["request"]
        return None if node == 3 and (message.metadata.message_type, head["fold"]) == ("evaluate", 1) else message

    results = run(tmp_path, NETWORK + K, tables(tmp_path), meddle=meddle)
    assert results.run.status == "finished"
    assert [done.sites for done in results.rounds] == [("a", "b", "c")] * 6, "it trains in every fold"
    assert evaluation_results.evaluation(results).test.raw.overall is not None
    assert evaluation_results.evaluation(results).test.raw.overall.n == 150
    assert any("no predictions of fold 2" in trouble for trouble in results.sites[2].troubles)
    assert (results.sites[2].status, results.sites[2].dropped_out_in_round) == ("dropped out", 0)


def test_a_site_that_leaves_in_a_preparation_starts_it_again_without_it(tmp_path: Path) -> None:
    """The site that stays answers a second set of windows and a second centre: the account lets it."""
    members, text = tables(tmp_path), NETWORK + K
    grid = InProcessGrid(members)
    seen = itertools.count(1)

    def meddle(message: Message, node: int) -> Message | None:
        head = message.content.config_records["request"]
        if node == 3 and (message.metadata.message_type, head["fold"]) == ("query.analyse", 1) and next(seen) == 5:
            grid.offline.add(3)
            return None
        return message

    grid._meddle = meddle
    results = run(tmp_path, text, members, grid=grid)
    assert results.run.status == "finished"
    assert (results.sites[2].status, [site.withheld for site in results.sites[:2]]) == ("dropped out", [(), ()])
    campaign = parse_campaign(text)
    x, age, fold, _ = together(campaign, members[:2])
    model = load_file(tmp_path / "run" / "model-fold-2.safetensors")
    filled = np.where(np.isfinite(x), x, model["medians"])
    slopes, _ = pooled_ridge(filled[fold != 1], age[fold != 1], 4.0)
    # The network keeps the ridge that it began with, in single precision.
    np.testing.assert_allclose(model["coefficients"] * model["units"], slopes, rtol=1e-5, atol=1e-9)


def test_a_site_that_leaves_between_two_runs_costs_a_baseline_at_most(tmp_path: Path) -> None:
    """The second run's mean age is another one: where few patients lie in between, that one figure is not told."""
    members, text = tables(tmp_path), TABLE.replace('sites = ["a", "b", "c"]', "") + K
    first = run(tmp_path / "1", text, members)
    second = run(tmp_path / "2", text, members[:2], name="r2")
    for results, n in ((first, 225), (second, 150)):
        assert all(site.withheld == () for site in results.sites)
        assert evaluation_results.evaluation(results).test.raw.overall is not None
        assert evaluation_results.evaluation(results).test.raw.overall.n == n
    assert [len(thresholds(site, text)) for site in members] == [2, 2, 1]
    overall = evaluation_results.evaluation(second).test.raw.overall
    assert overall is not None
    refused = sum(not answered for site in members[:2] for _, answered in thresholds(site, text))
    assert (overall.mae_of_mean_years is None) == (refused == 2)
