"""A hospital that is admitted and started while a campaign runs, by the real commands, and what watching shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.hospitals_at_work import network, record, rounds_done, until


@pytest.mark.slow
def test_a_hospital_that_is_admitted_while_a_campaign_runs_takes_part(tmp_path: Path) -> None:
    with network(tmp_path, names=("north", "south")) as work:
        file = work.campaign("late", rounds=60, quorum=2)
        text = file.read_text().replace('"south"', '"south", "west"').replace("wait_s = 60", "wait_s = 5")
        file.write_text(text)
        command, run = work.run(file)
        until(lambda: rounds_done(run) >= 2, timeout_s=120, what=lambda: command.said)
        watching = work.fedage("campaign", "watch", "--home", work.coordinator.root, log="watch")
        work.make_site("west", seed=5)
        work.start_site("west")
        assert command.process.wait(400) == 0, command.said
        assert watching.process.wait(30) == 0, watching.said
        results = record(run)
        assert results.run.status == "finished"
        took_part = [done.sites for done in results.rounds]
        assert took_part[0] == ("north", "south")
        assert took_part[-1] == ("north", "south", "west")
        west = next(site for site in results.sites if site.name == "west")
        assert any("takes part from here on" in trouble for trouble in west.troubles)
        assert results.analyses["evaluation:test"].sites == ("north", "south", "west")
        assert load_file(run.path / "model.safetensors")
        for words in ("west", "loss", "validation MAE", "s a round", "finished"):
            assert words in watching.said, watching.said
