"""What is laid side by side is what the records say, and what cannot be compared is said."""

import pytest

from fedage.common.analyses.survival._cox_compared import first_with
from fedage.common.presentation.blocks import Folded, TitledTable
from fedage.common.presentation.cells import Table
from fedage.server.compare import tables
from fedage.server.compare.comparison import Comparison, compare
from fedage.server.compare.runs import load_runs


def compared(*folders) -> Comparison:
    return compare(load_runs(folders))


def sentences_of(found: Comparison) -> list[str]:
    return [sentence for each in found.shown for sentence in each.sentences]


def tables_of(found: Comparison) -> dict[str, Table]:
    """By name, those of the page, folded ones too."""
    blocks = [block for each in found.shown for section in each.sections for block in section.blocks]
    inside = [inner for block in blocks for inner in (block.blocks if isinstance(block, Folded) else (block,))]
    return {block.table.name: block.table for block in inside if isinstance(block, TitledTable)}


def test_every_figure_is_the_records(make_run) -> None:
    found = compared(make_run("a", mae=4.0), make_run("b", mae=5.0, strategy="fedprox", seed=9))
    a, b = found.runs
    assert (a.label, a.strategy, a.rounds, a.seed, a.n, a.mae_years_raw, a.cs_5, a.pearson_r) == (
        "a", "fedavg", 3, 1, 120, 4.0, 0.7, 0.9,
    )  # fmt: skip
    assert (b.strategy, b.seed, b.mae_years_corrected) == ("fedprox", 9, 5.0)
    assert {site: error.mae_years_raw for site, error in b.by_site.items()} == {"north": 4.5, "south": 5.5}
    assert b.validation_mae_years == ((1, 8.0), (2, 6.5), (3, 6.0))
    assert a.error_curve_corrected is not None
    assert a.error_curve_corrected.cs[4] == 0.5
    assert a.missing == {}
    assert found.notes == ()


def test_the_hazard_ratio_of_the_stratified_model_comes_first(make_run) -> None:
    run = compared(make_run("a"), make_run("b")).runs[0]
    assert len(run.hazard_ratios) == 3
    assert first_with(run.hazard_ratios, "gap_years").hazard_ratio == 1.11
    assert first_with(run.hazard_ratios, "cole_gap_years").hazard_ratio == 1.07
    assert first_with(run.hazard_ratios, "raw_gap_years") is None


def test_settings_that_differ_and_defaults_that_do_not(make_run) -> None:
    found = compared(
        make_run("a", extra="local_epochs = 1\n[privacy]\nminimum_count = 10\n"),  # defaults, written out
        make_run("b", strategy="fedprox"),
        make_run("c", with_file=False),
    )
    assert [(item.key, item.values) for item in found.settings] == [
        ("training.strategy", ("fedavg", "fedprox", None)),
    ]
    assert found.runs[2].strategy is None
    assert "campaign.toml" in found.runs[2].missing["settings"]


def test_models_and_their_lists_are_settings_too(make_run) -> None:
    models = '[survival]\nmodels = [{{ name = "gap", covariates = ["gap_years", "{}"] }}]\n'
    found = compared(make_run("a", extra=models.format("age_years")), make_run("b", extra=models.format("is_male")))
    assert [(item.key, item.values) for item in found.settings] == [
        ("survival.models[1].covariates", (["gap_years", "age_years"], ["gap_years", "is_male"])),
    ]


def test_runs_over_seeds_by_hand(make_run) -> None:
    folders = [make_run(f"avg-{seed}", mae=3.0 + seed, seed=seed) for seed in (1, 2, 3)]
    found = compared(*folders, make_run("prox", mae=4.0, strategy="fedprox"))
    (over,) = found.repeats
    assert over.labels == ("avg-1", "avg-2", "avg-3")
    assert over.seeds == (1, 2, 3)
    assert (over.mae_years_raw_mean, over.mae_years_raw_sd) == (5.0, 1.0)
    assert (over.mae_years_raw_lowest, over.mae_years_raw_highest) == (4.0, 6.0)


def test_the_same_seed_twice_is_no_repeat(make_run) -> None:
    assert compared(make_run("a"), make_run("b")).repeats == []


def test_different_sites_are_compared_where_possible_and_said(make_run) -> None:
    found = compared(
        make_run("a", sites={"north": 3.0, "south": 5.0}),
        make_run("b", sites={"north": 3.5, "west": 4.5, "east": 4.0}),
    )
    assert tables_of(found)["by-site"].headers == ("run", "east", "north", "south", "west")
    assert "west" not in found.runs[0].by_site
    (note,) = found.notes
    assert "east and west only in b; south only in a" in note


def test_what_differs_between_runs_is_noted(make_run, edit) -> None:
    a, b = make_run("a", phantoms=True), make_run("b")
    edit(b, campaign={"name": "other", "estimator": "table-ridge", "minimum_count": 3}, fedage_version="0.2.0")
    notes = "\n".join(compared(a, b).notes)
    for says in (
        "Not the same campaign: c (a); other (b)",
        "Not the same estimator: chest-ca (a); table-ridge (b)",
        "Phantoms and patients are not comparable: a on phantoms, b on patients",
        "Not the same minimum count: 10 (a); 3 (b)",
        "Not the same FedAge version: 0.1.0 (a); 0.2.0 (b)",
    ):
        assert says in notes


def test_other_patients_at_the_same_sites_are_noted(make_run, edit) -> None:
    a, b = make_run("a"), make_run("b")
    raw = {
        "overall": {"n": 100, "mae_years": 4},
        "by_site": {"north": {"n": 40, "mae_years": 4}, "south": {"n": 60, "mae_years": 4}},
    }
    edit(b, evaluation={"test": {"raw": raw, "corrected": raw}})
    assert compared(a, b).notes == ("Not the same number of test patients: north 60 (a), 40 (b).",)


def test_what_a_run_does_not_have_is_there_with_the_reason(make_run, edit) -> None:
    empty = make_run("empty")
    none = {"not_computed": "every site withheld its contribution"}
    edit(
        empty,
        rounds=[],
        survival=None,
        evaluation={"test": {"raw": none, "corrected": none}},
        figures={"error_curve_raw": None, "error_curve_corrected": None, "not_computed": {"error_curve_raw": "ended"}},
    )
    whole, run = compared(make_run("whole"), empty).runs
    assert whole.missing == {}
    assert run.missing == {
        "rounds": "no round of training was finished",
        "test error, raw": "every site withheld its contribution",
        "test error, corrected": "every site withheld its contribution",
        "CS curve, raw": "ended",
        "CS curve, corrected": "the record has no such curve (written before there was one)",
        "hazard ratio": "the campaign asked for no survival analysis",
    }
    assert run.mae_years_raw is None


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0)])
def test_the_order_of_runs_is_kept_and_changes_no_figure(make_run, order: tuple[int, ...]) -> None:
    folders = [make_run("a", mae=4), make_run("b", mae=5, strategy="fedprox"), make_run("c", mae=6, seed=3)]
    there, then = compared(*folders), compared(*(folders[k] for k in order))
    assert [then.runs[order.index(k)] for k in range(3)] == list(there.runs)
    assert [item.key for item in then.settings] == [item.key for item in there.settings]


def test_a_run_with_folds_has_one_curve_the_mean_over_its_folds(make_run, edit) -> None:
    errors = {1: (8.0, 5.0), 2: (6.0, 4.0)}
    folded, plain = make_run("folded"), make_run("plain", seed=2)
    rounds = [
        {"number": k, "fold": fold, "validation_mae_years": error}
        for fold, values in errors.items()
        for k, error in enumerate(values, start=1)
    ]
    edit(folded, campaign={"folds": 2}, rounds=rounds)
    found = compare(load_runs([folded, plain])).runs
    assert found[0].validation_mae_years == ((1, 7.0), (2, 4.5))
    assert (found[0].rounds, found[0].folds) == (2, 2)
    assert (found[1].rounds, found[1].folds) == (3, None)


def with_means(mae: float, pooled: float, own: float) -> dict[str, float]:
    return {"n": 60, "mae_years": mae, "mae_of_mean_years": pooled, "mae_of_site_mean_years": own}


def test_each_site_has_its_means_and_losses_are_marked_and_said(make_run, edit) -> None:
    a, b = make_run("a"), make_run("b", mae=5.0)
    by_site = {"north": with_means(1.52, 6.38, 1.06), "south": with_means(3.0, 2.5, 4.0)}
    raw = {"overall": with_means(2.0, 5.0, 4.0), "by_site": by_site}
    edit(a, evaluation={"test": {"raw": raw, "corrected": raw}})
    found = compared(a, b)
    north, south = found.runs[0].by_site["north"], found.runs[0].by_site["south"]
    assert (north.mae_of_mean_years, north.mae_of_site_mean_years, north.loses_to) == (6.38, 1.06, ("its own mean",))
    assert south.loses_to == ("the mean of all sites",)
    assert found.runs[0].mae_of_site_mean_years == 4.0
    assert sentences_of(found)[-2:] == [
        "a loses to the mean of all sites at south and to the site's own mean at north.",
        "b loses to no mean at any of its 2 sites.",
    ]
    table = tables_of(found)["by-site"]
    assert [[cell.text for cell in row] for row in table.rows] == [["a", "1.52*", "3.00*"], ["b", "4.50", "5.50"]]
    assert table.note.startswith("* is worse than predicting a mean age. a loses")
    rows = [[cell.text for cell in row] for row in tables_of(found)["site-means"].rows]
    assert rows[0] == ["north", "a", "60", "1.52", "1.52", "6.38", "1.06", "its own mean"]
    assert rows[1] == ["north", "b", "60", "4.50", "4.50", "9.00", "–", "neither"]


def test_a_mean_of_which_a_bound_is_known_is_marked_and_no_loss_is_claimed(make_run, edit) -> None:
    a, b = make_run("a"), make_run("b", mae=1.0)
    bound = {**with_means(3.0, 2.5, 4.0), "mae_of_mean_at_least": True}
    raw = {"overall": bound, "by_site": {"north": with_means(3.0, 6.0, 4.0), "south": bound}}
    edit(a, evaluation={"test": {"raw": raw, "corrected": raw}})
    found = compared(a, b)
    south = found.runs[0].by_site["south"]
    assert (south.mae_of_mean_at_least, south.loses_to, south.may_lose_to) == (True, (), ("the mean of all sites",))
    assert sentences_of(found)[-2] == "Whether a loses to the mean of all sites at south is not known."
    table = tables_of(found)["site-means"]
    rows = {(row[0].text, row[1].text): (row[5].text, row[7].text) for row in table.rows}
    assert rows["south", "a"] == ("≥ 2.50", "perhaps the mean of all sites")
    assert rows["north", "a"] == ("6.00", "neither")
    assert table.note.startswith("≥: at least so much.")
    (headline, _) = tables.headline(found).rows
    assert "≥ 2.50" in [cell.text for cell in headline]


def test_folds_are_noted(make_run, edit) -> None:
    a, b = make_run("a"), make_run("b")
    edit(b, campaign={"folds": 5, "train_on": "healthy"})
    notes = "\n".join(compared(a, b).notes)
    assert (
        "Not the same folds: none (a); 5 folds (b). So the errors are of every patient where there are folds" in notes
    )
    assert "Not the same patients judged: all (a); healthy ones (b)" in notes
    edit(a, campaign={"folds": 5, "train_on": "healthy"})
    (note,) = compared(a, b).notes
    assert note.startswith("All runs have 5 folds: each patient is predicted by the model that was made without")


def test_a_model_that_needs_no_rounds_is_called_exact(make_run, edit) -> None:
    a, b = make_run("a"), make_run("b", rounds=0)
    edit(b, campaign={"folds": 2, "rounds": None}, preparation=[{"fold": 1, "n": 9}, {"fold": 2, "n": 9}])
    found = compared(a, b)
    assert [run.exact for run in found.runs] == [False, True]
    assert found.runs[1].missing["rounds"] == "the model is solved exactly from sums"
    assert [row[3].text for row in tables.headline(found).rows] == ["3", "exact × 2 folds"]


def test_without_a_strategy_there_is_no_column_for_it(make_run) -> None:
    a, b = make_run("a"), make_run("b", with_file=False)
    assert "strategy" in tables.headline(compared(a, b)).headers
    bare = tables.headline(compared(make_run("c", with_file=False), b))
    assert "strategy" not in bare.headers
    assert all(len(row) == len(bare.headers) for row in bare.rows)


def test_a_run_that_trains_nothing_is_said_to_judge_every_patient(make_run, edit) -> None:
    a, b = make_run("a"), make_run("b")
    edit(a, campaign={"folds": None, "estimator": ""})
    edit(b, campaign={"folds": 5})
    notes = "\n".join(compared(a, b).notes)
    assert "Not the same folds: nothing is trained (a); 5 folds (b)." in notes
    assert "every patient where there are folds or nothing is trained, else of the test part" in notes
