"""Batch normalisation that stays at two hospitals with pictures, by the real commands and over TLS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.deploy.demo.hospitals import HOSPITALS
from fedage.deploy.demo.phantoms import render_hospital
from tests.client.test_own_training import FEDBN
from tests.hospitals_at_work import network, record

NAMES = ("north", "south")


def pictures(folder: Path, number: int) -> None:
    render_hospital(HOSPITALS[number], out_dir=folder, seed=number, patients=40)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(900)
def test_batch_normalisation_stays_at_two_hospitals(tmp_path: Path) -> None:
    text = FEDBN.replace('sites = ["a", "b"]\nwait_s = 1', 'sites = ["north", "south"]\nwait_s = 60')
    with network(tmp_path, names=NAMES, images=pictures) as work:
        file = work.root / "norms.toml"
        file.write_text(text)
        command, run = work.run(file)
        assert command.process.wait(600) == 0, command.said
        results = record(run)
        assert results.run.status == "finished"
        assert [done.sites for done in results.rounds] == [NAMES] * 2
        assert evaluation_results.evaluation(results).test.raw.by_site  # each with its own
        assert not any("norm-layers" in each.reason for site in results.sites for each in site.withheld)
        model = load_file(run.path / "model.safetensors")
        kept = []
        for name in NAMES:
            (own,) = (work.root / name).rglob("own-*.safetensors")
            kept.append({key.removeprefix("2|"): x for key, x in load_file(own).items() if key.startswith("2|")})
        assert sum(name.endswith("running_mean") for name in kept[0]) > 3
        for name, array in kept[0].items():
            assert np.ptp(model[name]) == 0  # as before any training
            assert not np.array_equal(array, kept[1][name])
        assert not list(work.coordinator.root.rglob("own-*"))
        refused = work.fedage("campaign", "export", run.path, "--home", work.coordinator.root, log="export")
        assert refused.process.wait(60) == 2
        assert "predicts nowhere else" in " ".join(refused.said.split())
