"""`fedage simulate` as a person meets it: the engine's processes, what they leave, and numbers against one table."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.errors import FedAgeError
from fedage.deploy.demo.hospitals import HOSPITALS
from fedage.deploy.demo.phantoms import render_all
from fedage.deploy.simulate import NO_GUARD, simulate
from fedage.server.record.results import read_results
from tests.deploy.simulated import ABIDE, FOLDS, RIDGE, command, hold_against_pooled, nothing_left, table
from tests.deploy.simulating import as_csv, simulated


@pytest.mark.processes
def test_in_a_process_of_its_own_it_is_pooled_ridge_and_leaves_nothing_behind(tmp_path: Path) -> None:
    frame = table()
    done = subprocess.run(command(tmp_path, RIDGE, frame), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    out = tmp_path / "out"
    results = read_results(out / "results.json")
    hold_against_pooled(out, results, RIDGE, tmp_path / "table.csv", site_column="site")
    assert nothing_left(tmp_path)
    assert not (out / "work").exists()
    assert not (out / "simulation.log").exists()
    # No guard: said in the command's output, in the results and in the report.
    assert NO_GUARD in done.stdout
    assert results.run.guard is False
    assert "Disclosure control was switched off" in (out / "report.html").read_text()
    assert "site 'site 0' is called site-0 in the results" in done.stdout
    # In this process it is the same, but for clocks and names of runs.
    again = simulated(tmp_path / "again", RIDGE, data=tmp_path / "table.csv", site_column="site").results
    assert again.model_dump(exclude={"run"}) == results.model_dump(exclude={"run"})


def test_the_same_seed_gives_the_same_results_and_another_seed_others(tmp_path: Path) -> None:
    data = as_csv(table(), tmp_path / "table.csv")
    first, second, other = (
        simulated(tmp_path / str(k), text, data=data, site_column="site").results.model_dump(exclude={"run"})
        for k, text in enumerate((RIDGE, RIDGE, RIDGE.replace("seed = 5", "seed = 6")))
    )
    assert first == second
    assert first["analyses"]["evaluation:test"] != other["analyses"]["evaluation:test"]


def test_splitting_a_site_in_two_changes_no_model(tmp_path: Path) -> None:
    """With parts by keyed hash; folds are dealt out at each site, so there another cut is another deal."""
    models, text = [], RIDGE.replace(f"[validation]\nfolds = {FOLDS}\n", "")
    assert "folds" not in text
    for sites in (1, 3):
        data = as_csv(table(sites=sites), tmp_path / f"{sites}.csv")
        done = simulated(tmp_path / str(sites), text, data=data, site_column="site")
        models.append(load_file(done.folder / "model.safetensors")["coefficients"])
    np.testing.assert_allclose(models[0], models[1], rtol=1e-9)


@pytest.mark.skipif(not ABIDE.is_file(), reason="../shared/data/abide1 is not beside the repository")
def test_ridge_over_ten_real_hospitals_is_pooled_ridge(tmp_path: Path) -> None:
    text = RIDGE.replace('features = ["*"]', 'features = ["*ThickAvg", "*Ventricle*"]')
    for ours, theirs in (("who", "FILE_ID"), ('"age"', '"AGE_AT_SCAN"'), ('"sex"', '"SEX"')):
        text = text.replace(ours, theirs)
    text += '\n[cohort]\ntrain_on = "healthy"\n[cohort.healthy]\ncolumn = "DX_GROUP"\nequals = -1\n'
    done = simulated(tmp_path, text, data=ABIDE, site_column="SITE")
    hold_against_pooled(done.folder, done.results, text, ABIDE, site_column="SITE")
    for site, metrics in evaluation_results.evaluation(done.results).test.raw.by_site.items():
        own = metrics.mae_of_site_mean_years
        assert own > 0, site


def test_a_site_with_one_row_and_a_guard_is_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    frame = table()
    frame.loc[0, "site"] = "lonely"
    text = RIDGE.replace("guard = false", "guard = true").replace("minimum_count = 1", "minimum_count = 5")
    done = simulated(tmp_path, text, data=as_csv(frame, tmp_path / "t.csv"), site_column="site")
    record = next(site for site in done.results.sites if site.name == "lonely")
    assert "lonely: a single row; its guard will release nothing that rests on it" in done.said
    assert (record.status, record.patients) == ("refused", None)
    assert done.results.run.status == "finished"
    assert done.results.run.guard


@pytest.mark.parametrize(
    ("features", "told"),
    [('["thickness"]', "names 'thickness', which no numeric column"), ('["scanner"]', "names 'scanner'")],
)
def test_features_that_are_not_there_are_found_before_the_engine_starts(
    features: str, told: str, tmp_path: Path
) -> None:
    data = as_csv(table().assign(scanner="vendor"), tmp_path / "t.csv")
    with pytest.raises(FedAgeError, match=told):
        simulated(tmp_path / "run", RIDGE.replace('["*"]', features), data=data, site_column="site")


def a_folder_a_site(folder: Path, frame: pd.DataFrame, **more: pd.DataFrame) -> Path:
    for site, rows in frame.groupby("site"):
        as_csv(more.get(str(site).replace(" ", "_"), rows).drop(columns="site"), folder / str(site) / "table.csv")
    return folder


def test_what_else_a_sites_table_holds_does_not_matter_where_features_are_named(tmp_path: Path) -> None:
    frame = table()
    text = RIDGE.replace('["*"]', '["x0", "x1", "x[2-7]"]')
    plain = simulated(tmp_path / "a", text, data=a_folder_a_site(tmp_path / "plain", frame))
    more = frame[frame.site == "site 1"].assign(shoe_size=np.arange(60) % 7)
    data = a_folder_a_site(tmp_path / "more", frame, site_1=more)
    done = simulated(tmp_path / "b", text, data=data)
    assert done.results.model_dump(exclude={"run"}) == plain.results.model_dump(exclude={"run"})
    told = r"columns at site-1 that are no numeric column at site-0: shoe_size; name the features"
    with pytest.raises(FedAgeError, match=told):
        simulated(tmp_path / "c", RIDGE, data=data)


IMAGES = """
[campaign]
name = "images"
purpose = "Try the folders of three phantom hospitals"
seed = 3

[estimator]
name = "chest-ca"
[estimator.options]
image_size = 64
width = 8

[training]
rounds = 1

[privacy]
minimum_count = 2
"""


def test_images_in_a_folder_a_site(tmp_path: Path) -> None:
    render_all(tmp_path / "hospitals", seed=2, patients_per_site=24)
    (tmp_path / "hospitals" / HOSPITALS[0].name).rename(tmp_path / "hospitals" / "Hafen Süd")
    (tmp_path / "hospitals" / "nothing").mkdir()
    done = simulated(tmp_path, IMAGES, data=tmp_path / "hospitals")
    assert done.results.run.status == "finished"
    assert len(done.results.sites) == 3
    assert {"hafen-sued"} < {site.name for site in done.results.sites}
    assert "nothing: no image of any patient; the site is left out" in done.said
    assert all(site.status == "took part" for site in done.results.sites)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nowhere.csv", None), "is not there"),
        (("table.csv", "site"), "campaign file has no \\[table\\]"),
        (("empty", None), "has no sub-folders"),
    ],
)
def test_data_that_do_not_fit_a_campaign_on_images(
    arguments: tuple[str, str | None], told: str, tmp_path: Path
) -> None:
    as_csv(table(), tmp_path / "table.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FedAgeError, match=told):
        simulated(tmp_path / "run", IMAGES, data=tmp_path / arguments[0], site_column=arguments[1])


def test_a_mistake_is_one_line_and_leaves_no_folder(tmp_path: Path) -> None:
    wrong = command(tmp_path, RIDGE, table().drop(columns="age"))
    done = subprocess.run(wrong, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "has no column 'age'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "ridge.toml").write_text(RIDGE)
    data = as_csv(table(), tmp_path / "table.csv")
    for out, told in ((tmp_path / "table.csv" / "out", "cannot be made"), (data, "is not an empty folder")):
        with pytest.raises(FedAgeError, match=told):
            simulate(tmp_path / "ridge.toml", data=data, site_column="site", out=out)
