"""A hospital with few patients in a campaign with folds: held out of some of the models, trained on for all of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

from fedage.client.cohort.selection.parts import count_set_aside
from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.campaign_file import parse_campaign
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.cli.summary import print_summary
from fedage.server.record.results import Results, read_results
from fedage.server.report import render_report
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import InProcessGrid, MemorySite, folded_site, table_site
from tests.server.test_conduct_folds import pooled_ridge, together

FOLDS = 5
HEAD = """
[campaign]
name = "small-sites"
purpose = "Let a small hospital take part in a campaign with folds"
seed = 7
wait_s = 1
[validation]
folds = 5
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
ROUNDS = """
[training]
rounds = 2
quorum = 2
round_deadline_s = 5
batch_size = 16
"""
NETWORK = RIDGE.replace("table-ridge", "table-mlp") + ROUNDS
PICTURES = f"""
[estimator]
name = "chest-ca"
[estimator.options]
image_size = 64
width = 8
{ROUNDS}
"""
SIZES = {"large": 95, "middle": 38, "small": 24}
USED = {"large": 5, "middle": 3, "small": 2}


def tables(folder: Path, sizes: dict[str, int] = SIZES) -> list[MemorySite]:
    """Features of even spread: of twelve patients with normal ones, one often has more than half of a product."""
    made = []
    for number, (name, count) in enumerate(sizes.items()):
        rng = np.random.default_rng(number)
        x = 0.4 * number + rng.uniform(-1.7, 1.7, size=(count, 3))
        age = np.exp(3.6 + 0.2 * x[:, 0] - 0.1 * x[:, 1] + rng.normal(0, 0.05, count))
        made.append(table_site(name, folder / "sites", x=x, age=np.clip(age, 5, 120), seed=number))
    return made


def run(folder: Path, text: str, members: list[MemorySite]) -> Results:
    place = Place(folder=folder / "run", run="r1", environment="simulation", guard=True, sites_there=len(members))
    grid = InProcessGrid(members)
    conduct(PollingGrid(grid, poll_s=0.01), parse_campaign(text), place, key=None, admitted=grid.names)
    return read_results(folder / "run" / "results.json")


@pytest.mark.parametrize("inner", ["penalty = 4.0", 'penalty = "auto"'])
def test_a_ridge_is_the_pooled_one_of_all_who_train_each_fold(tmp_path: Path, inner: str) -> None:
    members, text = tables(tmp_path), HEAD + RIDGE.replace("penalty = 4.0", inner)
    results = run(tmp_path, text, members)
    assert results.run.status == "finished"
    assert [(site.name, site.withheld, site.troubles) for site in results.sites] == [(n, (), ()) for n in sorted(SIZES)]
    assert all(item.sites == tuple(sorted(SIZES)) for item in results.preparation), "each trains every model"
    x, age, fold, site = together(parse_campaign(text), members)
    predicted = np.full(age.size, np.nan)
    for k in range(FOLDS):
        model = load_file(tmp_path / "run" / f"model-fold-{k + 1}.safetensors")
        penalty = results.preparation[k].penalty
        assert penalty is not None
        slopes, intercept = pooled_ridge(x[fold != k], age[fold != k], penalty)
        np.testing.assert_allclose(model["coefficients"] / model["sds"], slopes, rtol=1e-8, atol=1e-12)
        predicted[fold == k] = np.exp(x[fold == k] @ slopes + intercept)
    for name, found in evaluation_results.evaluation(results).test.raw.by_site.items():
        assert found.n == SIZES[name]
        assert found.mae_years == pytest.approx(np.abs(predicted - age)[site == name].mean(), abs=1e-8)
    assert set(evaluation_results.evaluation(results).test.corrected.by_site) == set(SIZES)


def test_the_record_the_report_and_the_terminal_say_in_how_many_folds(tmp_path: Path) -> None:
    results = run(tmp_path, HEAD + RIDGE, tables(tmp_path))
    assert {site.name: site.held_out_in_folds for site in results.sites} == USED
    for site in results.sites:
        counts = [site.patients_by_part[f"fold {k}"] for k in range(1, FOLDS + 1)]
        assert None not in counts
        assert (sum(filter(None, counts)), sum(count != 0 for count in counts)) == (SIZES[site.name], USED[site.name])
    told = (
        "middle holds patients out in 3 of 5 folds; small holds patients out in 2 of 5 folds: too few for more at the "
        "minimum count. In the other folds all of their patients may train."
    )
    report = render_report(results, events=[])
    assert told in report
    for site in results.sites:
        assert f"{USED[site.name]} of 5 folds" in report
    said = io.StringIO()
    print_summary(results, console=Console(file=said, width=300))
    assert told in said.getvalue()
    events = (tmp_path / "run" / "events.jsonl").read_text()
    assert events.count('"event": "fold"') + events.count('"event":"fold"') == FOLDS


@pytest.mark.parametrize("text", [NETWORK, PICTURES], ids=["table", "pictures"])
def test_in_rounds_it_trains_each_fold_and_keeps_predictions_of_those_it_holds_out(tmp_path: Path, text: str) -> None:
    sizes = {"large": 50, "small": 24}
    if text is NETWORK:
        members = tables(tmp_path, sizes)
    else:
        members = [folded_site(name, tmp_path / "sites", count=n, seed=n) for name, n in sizes.items()]
    results = run(tmp_path, HEAD + text, members)
    assert results.run.status == "finished"
    assert [done.sites for done in results.rounds] == [("large", "small")] * 2 * FOLDS
    assert {site.name: site.held_out_in_folds for site in results.sites} == {"large": 5, "small": 2}
    assert [(site.withheld, site.troubles) for site in results.sites] == [((), ())] * 2
    found = evaluation_results.evaluation(results).test.raw.by_site
    assert {name: metrics.n for name, metrics in found.items()} == sizes
    judged = [
        sum("small" in done.validation_mae_years_by_site for done in results.rounds if done.fold == k)
        for k in range(1, FOLDS + 1)
    ]
    assert sorted(judged) == [0, 0, 0, 2, 2] or sorted(judged) == [0, 0, 0, 1, 1], judged
    campaign = parse_campaign(HEAD + text)
    for site in members:
        fold, kept = site.cohort(campaign).cohort["fold"], site.state_dir(campaign.digest)
        for k in range(FOLDS):
            with np.load(kept / f"predictions-r1--fold-{k}.npz") as predictions:
                assert np.array_equal(np.isfinite(predictions["column:predicted_years"]), fold == k)


@pytest.mark.parametrize("few", [1, 5, 9])
@pytest.mark.parametrize("name", ["large", "small"])
def test_ages_are_corrected_at_a_site_where_a_few_who_are_not_healthy_are_set_aside(
    tmp_path: Path, name: str, few: int
) -> None:
    members, text = [], HEAD + RIDGE + '[cohort.healthy]\ncolumn = "well"\nequals = 1\n'
    for site in tables(tmp_path):
        well = np.ones(site.found.cohort.n)
        if site.name == name:
            well[:few] = 0
        columns = {**site.found.cohort.columns, "well": well}
        age = columns.pop("age_years")
        assert site.found.samples is not None
        x = site.found.samples["row"]
        members.append(table_site(site.name, tmp_path / "again", x=x, age=age, seed=len(members), well=well))
    results = run(tmp_path, text, members)
    assert set(evaluation_results.evaluation(results).test.corrected.by_site) == set(SIZES)
    campaign = parse_campaign(text)
    for site in members:
        cohort = site.cohort(campaign).cohort
        left = few if site.name == name else 0
        assert count_set_aside(cohort)["too-few-not-healthy"] == left
        assert evaluation_results.evaluation(results).test.raw.by_site[site.name].n == cohort.n - left
        assert evaluation_results.evaluation(results).test.corrected.by_site[site.name].n == cohort.n - left


def test_a_site_too_small_for_two_folds_is_judged_and_says_why_it_trains_no_model(tmp_path: Path) -> None:
    results = run(tmp_path, HEAD + RIDGE, tables(tmp_path, {"large": 95, "tiny": 19}))
    tiny = next(site for site in results.sites if site.name == "tiny")
    assert tiny.held_out_in_folds is None
    assert [held.step for held in tiny.withheld] == ["table-preparation"]
    assert "fewer than 2 × 10 patients who may train" in tiny.withheld[0].reason
    assert evaluation_results.evaluation(results).test.raw.by_site["tiny"].n == 19
