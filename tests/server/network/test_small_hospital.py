"""A hospital of 24 patients beside a large one, as real processes: default minimum count of 10, five folds."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedage.client.audit import Direction, Filters, Kind, show
from fedage.client.audit.log import LOG_FILE
from tests.hospitals_at_work import network, record, until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(1200)]

FOLDS = 5
CAMPAIGN = """
[campaign]
name = "small-hospital"
purpose = "Let a small hospital take part in a campaign with folds"
seed = 4
sites = ["large", "small"]
wait_s = 60
[estimator]
name = "table-mlp"
[estimator.options]
features = ["x*"]
penalty = 4.0
[table]
id = "who"
age = "age"
sex = "sex"
[validation]
folds = 5
[training]
rounds = 1
quorum = 2
round_deadline_s = 60
"""
SIZES = {"large": 95, "small": 24}


def test_a_hospital_of_24_trains_every_model_and_is_held_out_of_two(tmp_path: Path) -> None:
    with network(tmp_path, names=("large", "small"), patients=SIZES) as at:
        file = at.root / "small-hospital.toml"
        file.write_text(CAMPAIGN)
        command, run = at.run(file)
        until(lambda: command.process.poll() is not None, timeout_s=900, what=lambda: command.said)
        assert command.process.returncode == 0, command.said
        words = at.fedage("site", "campaigns", "--home", tmp_path / "small", log="campaigns")
        assert words.process.wait(60) == 0
        log = show(tmp_path / "small" / LOG_FILE, Filters(kind=Kind.TRAIN, direction=Direction.OUT))
    assert "small holds patients out in 2 of 5 folds" in " ".join(command.said.split())
    assert "They are held out in 2 of 5 folds, and all who may train do so in the others." in words.said
    results = record(run)
    assert results.run.status == "finished"
    assert {site.name: site.held_out_in_folds for site in results.sites} == {"large": 5, "small": 2}
    assert [(site.withheld, site.troubles) for site in results.sites] == [((), ())] * 2
    found = results.evaluation.test
    assert {site: metrics.n for site, metrics in found.raw.by_site.items()} == SIZES
    assert {site: metrics.n for site, metrics in found.corrected.by_site.items()} == SIZES
    assert "small holds patients out in 2 of 5 folds" in (run.path / "report.html").read_text()
    assert [item.sites for item in results.preparation] == [("large", "small")] * FOLDS
    assert [done.sites for done in results.rounds] == [("large", "small")] * FOLDS
    told = [line.entry for line in log]
    assert sorted(entry.smallest_cell or 0 for entry in told) == [12, 12, 24, 24, 24]
    withheld = [held.rule for entry in told for held in entry.withheld]
    assert withheld == ["no-patients-in-fold"] * 3
