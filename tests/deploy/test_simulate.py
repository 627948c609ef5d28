"""`fedage simulate` as a person meets it: the engine's processes, what they leave, and numbers against one table."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from fedage.client.cohort.selection.fold_assignment import round_robin_folds
from fedage.client.cohort.table.sites import read_site_tables
from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.campaign_file import parse_campaign
from fedage.common.errors import FedAgeError
from fedage.common.estimators.configure import configured
from fedage.deploy.demo.hospitals import HOSPITALS
from fedage.deploy.demo.phantoms import render_all
from fedage.deploy.machine.simulation import VARIABLE
from fedage.deploy.simulate import NO_GUARD, _undisturbed, simulate
from fedage.deploy.simulation_main import ORPHANED_RECORD_S
from fedage.server.record.results import Results, read_results
from tests.deploy.simulating import as_csv, simulated

ABIDE = Path(__file__).parents[3] / "shared/data/abide1/abide1-freesurfer.csv"
PENALTY, FOLDS = 50.0, 3

RIDGE = f"""
[campaign]
name = "ridge"
purpose = "Hold the federated ridge regression against a pooled one"
seed = 5

[estimator]
name = "table-ridge"
[estimator.options]
features = ["*"]
penalty = {PENALTY}

[table]
id = "who"
age = "age"
sex = "sex"

[validation]
folds = {FOLDS}

[privacy]
minimum_count = 1

[simulation]
guard = false
"""


def table(*, patients: int = 120, features: int = 8, sites: int = 2, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(patients, features))
    age = np.exp(3.5 + 0.2 * x[:, 0] - 0.1 * x[:, 1] + 0.05 * rng.normal(size=patients))
    frame = pd.DataFrame(x * 10.0 ** rng.integers(-2, 4, features), columns=[f"x{k}" for k in range(features)])
    site = [f"site {k % sites}" for k in range(patients)]
    return frame.assign(who=[f"p{k}" for k in range(patients)], site=site, age=age, sex=np.arange(patients) % 2)


def pooled(x: np.ndarray, age: np.ndarray, fold: np.ndarray, *, train: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    """Ridge on standardised columns and log age, written out: slopes on raw columns, and the intercept."""
    rows = train & (fold != k)
    mean, sd, t = x[rows].mean(axis=0), x[rows].std(axis=0), np.log(age[rows])
    z = (x[rows] - mean) / sd
    slopes = np.linalg.solve(z.T @ z + PENALTY * np.eye(x.shape[1]), z.T @ (t - t.mean())) / sd
    return slopes, float(t.mean() - slopes @ mean)


def hold_against_pooled(folder: Path, results: Results, text: str, data: Path, *, site_column: str) -> None:
    """Every fold's model and the overall error are those of one table."""
    campaign = parse_campaign(text)
    read = read_site_tables(data, campaign, site_column=site_column)
    estimator = configured(campaign, next(iter(read.sites.values())).features)
    assert estimator is not None
    names = [column.removeprefix("feature:") for column in estimator.row_columns]
    x = np.concatenate([np.column_stack([s.columns[f"feature:{n}"] for n in names]) for s in read.sites.values()])
    age = np.concatenate([site.columns["age_years"] for site in read.sites.values()])
    health = [
        site.columns.get("DX_GROUP", np.full(site.split_uniform.size, -1.0)) == -1 for site in read.sites.values()
    ]
    pairs = zip(read.sites.values(), health, strict=True)
    fold = np.concatenate(
        [round_robin_folds(site.split_uniform, healthy.astype(float), FOLDS) for site, healthy in pairs]
    )
    train = np.ones(age.size, dtype=bool)
    if "DX_GROUP" in text:
        train = np.concatenate([site.columns["DX_GROUP"] == -1 for site in read.sites.values()])
    predicted = np.full(age.size, np.nan)
    for k in range(FOLDS):
        slopes, intercept = pooled(x, age, fold, train=train, k=k)
        model = load_file(folder / f"model-fold-{k + 1}.safetensors")
        np.testing.assert_allclose(model["coefficients"] / model["sds"], slopes, rtol=1e-8, atol=1e-12)
        predicted[fold == k] = np.exp(x[fold == k] @ slopes + intercept)
    overall = evaluation_results.evaluation(results).test.raw.overall
    assert overall is not None
    assert overall.n == int(train.sum())
    assert overall.mae_years == pytest.approx(np.abs(predicted - age)[train].mean(), abs=1e-8)


def command(folder: Path, text: str, frame: pd.DataFrame) -> list[str]:
    file = folder / "ridge.toml"
    file.write_text(text, encoding="utf-8")
    data = as_csv(frame, folder / "table.csv")
    given = ["--data", str(data), "--site-column", "site", "--out", str(folder / "out")]
    return [sys.executable, "-m", "fedage.deploy", "simulate", str(file), *given]


def still_there(folder: Path) -> list[str]:
    """Processes of a simulation into this folder."""
    wanted, found = f"{VARIABLE}={folder / 'out' / 'work' / 'job.json'}".encode(), []
    for environ in (entry / "environ" for entry in Path("/proc").glob("[0-9]*")):
        try:
            if wanted in environ.read_bytes().split(b"\0"):
                found.append((environ.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def nothing_left(folder: Path) -> bool:
    """Ray's daemons have been told to end when the command does; on a busy machine the last takes a moment to."""
    deadline = time.monotonic() + 10
    while still_there(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    return still_there(folder) == []


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


def below(parent: int) -> list[int]:
    """Processes that this one has started, and those started by them."""
    children = list[int]()
    for file in Path(f"/proc/{parent}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += map(int, file.read_text().split())
    return [pid for child in children for pid in (child, *below(child))]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.processes
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
        signal.SIGKILL,
    ],
)
def test_stopped_it_leaves_no_process_behind(number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path, LONG, table()),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    deadline = time.monotonic() + 120
    try:
        # The run has begun, and is not yet over.
        while not (tmp_path / "out" / "events.jsonl").is_file() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        # A process may rename itself, which hides its environment: these are found by who started them.
        started = below(process.pid)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "Traceback" not in said
    if number == signal.SIGKILL:
        # Nobody is there to stop the engine, which ends by itself and has time to write its record.
        deadline = time.monotonic() + ORPHANED_RECORD_S + 15
        while (still_there(tmp_path) or any(map(lives, started))) and time.monotonic() < deadline:
            time.sleep(0.1)
    assert nothing_left(tmp_path)
    assert not any(map(lives, started))
    if number == signal.SIGKILL:
        return
    assert process.returncode == 130, said
    assert "stopping; what was finished stays in" in said
    assert not (tmp_path / "out" / "work").exists()
    run = read_results(tmp_path / "out" / "results.json").run
    assert (run.status, run.environment, run.guard) == ("stopped", "simulation", False)
    assert (tmp_path / "out" / "report.html").is_file()


LONG = (
    RIDGE.replace("table-ridge", "table-mlp")
    .replace(f"penalty = {PENALTY}\n", "")
    .replace(f"[validation]\nfolds = {FOLDS}\n", "")
    + "\n[training]\nrounds = 10000\n"
)


def _driver(folder: Path) -> int:
    """The process with the engine and the ServerApp."""
    wanted = f"{VARIABLE}={folder / 'out' / 'work' / 'job.json'}".encode()
    for environ in (entry / "environ" for entry in Path("/proc").glob("[0-9]*")):
        try:
            ours = wanted in environ.read_bytes().split(b"\0")
            if ours and b"simulation_main" in (environ.parent / "cmdline").read_bytes():
                return int(environ.parent.name)
        except OSError:
            continue
    raise AssertionError("no driver")


@pytest.mark.processes
@pytest.mark.parametrize(
    "whom",
    [
        "command",
        pytest.param("driver", marks=pytest.mark.slow),
        "driver at once",
        pytest.param("command at once", marks=pytest.mark.slow),
    ],
)
def test_rounds_that_were_finished_are_in_the_record_of_a_stopped_run(whom: str, tmp_path: Path) -> None:
    """Whoever is told to stop, and even if the command has no time to say goodbye."""
    process = subprocess.Popen(
        command(tmp_path, LONG, table()), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    events, out = tmp_path / "out" / "events.jsonl", tmp_path / "out"
    deadline = time.monotonic() + 180
    try:
        while not (events.is_file() and events.read_text().count('"event": "round"') > 1):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        if whom.startswith("driver"):
            os.kill(_driver(tmp_path), signal.SIGKILL if "at once" in whom else signal.SIGTERM)
        else:
            process.send_signal(signal.SIGINT if whom == "command" else signal.SIGKILL)
        said, _ = process.communicate(timeout=60)
        while still_there(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.2)
    finally:
        process.kill()
    results = read_results(out / "results.json")
    assert results.run.status == ("failed" if whom == "driver at once" else "stopped"), (results.run, said)
    assert len(results.rounds) > 1
    assert (out / "report.html").is_file()
    assert nothing_left(tmp_path)
    assert "Traceback" not in said
    assert process.returncode == {"command": 130, "command at once": -signal.SIGKILL}.get(whom, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_cut_the_stopping_short(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with _undisturbed():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


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
