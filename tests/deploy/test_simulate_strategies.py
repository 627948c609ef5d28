"""Strategies that keep something at the sites, in `fedage simulate`: control variates, batch normalisation."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedage.deploy.demo.phantoms import render_all
from fedage.server.record.results import read_results
from tests.deploy.simulated import command, nothing_left
from tests.deploy.simulating import as_csv, simulated
from tests.deploy.test_simulate import IMAGES
from tests.deploy.test_simulate_private import FILE, table

PLAIN = FILE[: FILE.index("[privacy]")].replace("learning_rate = 0.01", "learning_rate = 0.0001").replace("= 3", "= 2")
SCAFFOLD = PLAIN.replace("[training]", '[training]\nstrategy = "scaffold"')
FEDBN = IMAGES.replace("width = 8", 'width = 8\nnorm = "batch"').replace("rounds = 1", 'rounds = 2\nstrategy = "fedbn"')


def test_control_variates_stay_at_simulated_sites(tmp_path: Path) -> None:
    data = as_csv(table(patients=160), tmp_path / "table.csv")
    plain, done = (
        simulated(tmp_path / name, text, data=data, site_column="site")
        for name, text in (("plain", PLAIN), ("scaffold", SCAFFOLD))
    )
    assert done.results.run.status == "finished"
    assert [one.sites for one in done.results.rounds] == [("site-a", "site-b")] * 2
    kept = [load_file(file) for file in sorted((tmp_path / "scaffold" / "work").rglob("own-*"))]
    assert len(kept) == 2
    assert any(not np.array_equal(kept[0][name], kept[1][name]) for name in kept[0])
    assert not list(done.folder.rglob("own-*"))
    models = [load_file(one.folder / "model.safetensors") for one in (plain, done)]
    assert any(not np.array_equal(models[0][name], models[1][name]) for name in models[0])


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(900)
def test_control_variates_in_a_process_of_its_own(tmp_path: Path) -> None:
    frame = table(patients=160)
    done = subprocess.run(command(tmp_path, SCAFFOLD, frame), capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert nothing_left(tmp_path)
    again = simulated(tmp_path / "again", SCAFFOLD, data=tmp_path / "table.csv", site_column="site")
    models = [load_file(one / "model.safetensors") for one in (tmp_path / "out", again.folder)]
    for name, array in models[0].items():
        np.testing.assert_array_equal(models[1][name], array)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(900)
def test_batch_normalisation_stays_in_flowers_engine(tmp_path: Path) -> None:
    render_all(tmp_path / "hospitals", seed=2, patients_per_site=24)
    line = command(tmp_path, FEDBN, table())
    line = [*line[: line.index("--data")], "--data", str(tmp_path / "hospitals"), "--out", str(tmp_path / "out")]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    results = read_results(tmp_path / "out" / "results.json")
    assert [len(one.sites) for one in results.rounds] == [3, 3]
    assert not any("norm-layers" in each.reason for site in results.sites for each in site.withheld)
    model = load_file(tmp_path / "out" / "model.safetensors")
    assert all(np.ptp(array) == 0 for name, array in model.items() if name.endswith("running_mean"))
    assert nothing_left(tmp_path)
