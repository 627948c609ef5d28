"""Rounds that end early, and the model of the round with the least validation error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedage.common.campaign.types import Training
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.server.campaign.best_round import BestRound
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.events import read_events
from fedage.server.record.results import Results, read_results
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import InProcessGrid
from tests.server.test_conduct_folds import NETWORK, K, tables
from tests.server.test_quorum import PARTS
from tests.server.test_resume import Coordinator

TEXT = NETWORK.replace("round_deadline_s = 1", 'round_deadline_s = 60\noptimiser = "sgd"\nlearning_rate = 0.3') + PARTS


def run(folder: Path, text: str) -> tuple[Results, dict[str, np.ndarray], list[str]]:
    grid = InProcessGrid(tables(folder))
    place = Place(folder=folder / "run", run="r1", environment="simulation", guard=True)
    conduct(PollingGrid(grid, poll_s=0.01), parse_campaign(text), place, key=None, admitted=grid.names)
    events = [str(event["event"]) for event in read_events(folder / "run" / "events.jsonl")]
    return read_results(folder / "run" / "results.json"), load_file(folder / "run" / "model.safetensors"), events


@pytest.mark.parametrize(
    ("maes", "patience", "ends_after", "best"),
    [
        ([5.0, 4.0, 3.0, 2.0], 1, None, 3),
        ([5.0, 4.0, 4.5, 4.4], 2, 3, 1),
        ([5.0, 6.0], 1, 1, 0),
        ([5.0, 5.0, 5.0], 2, 2, 0),
        ([5.0, None, 6.0, 4.0], 2, 2, 0),
        ([None, None, None], 1, None, -1),
        ([5.0, 6.0, 7.0, 8.0, 9.0], None, None, 0),
    ],
)
def test_how_long_a_run_has_patience(
    maes: list[float | None], patience: int | None, ends_after: int | None, best: int
) -> None:
    found = BestRound(Training(rounds=9, patience_rounds=patience, keep="best"))
    ended = None
    for number, mae in enumerate(maes):
        found.see(number, {"w": np.full(1, number, np.float32)}, mae)
        if found.is_over():
            ended = number
            break
    assert (ended, found.number) == (ends_after, best)
    kept = found.model({"w": np.full(1, -7, np.float32)})["w"][0]
    assert kept == (-7 if best < 0 else best)
    again = BestRound(Training(rounds=9, keep="best"))
    again.restore(found.arrays())
    assert again.model({"w": np.full(1, -7, np.float32)})["w"][0] == kept


def test_the_model_of_the_best_round_is_kept_and_judged_and_is_that_of_a_run_that_ended_there(tmp_path: Path) -> None:
    text = TEXT.replace("rounds = 2", "rounds = 6")
    plain, last, _ = run(tmp_path / "last", text)
    kept, best, events = run(tmp_path / "best", text.replace("rounds = 6", 'rounds = 6\nkeep = "best"'))
    errors = [done.validation_mae_years or np.inf for done in plain.rounds[:-1]]
    chosen = int(np.argmin(errors)) + 1
    assert chosen < 5, errors  # else this tries nothing
    assert [done.kept for done in kept.rounds] == [done.number == chosen for done in kept.rounds]
    assert kept.rounds[-1].validation_mae_years is None  # the analyses are of another model
    assert "kept-best" in events
    until_there, model, _ = run(tmp_path / "until there", TEXT.replace("rounds = 2", f"rounds = {chosen}"))
    for name, array in model.items():
        np.testing.assert_array_equal(best[name], array)
    assert any(not np.array_equal(best[name], last[name]) for name in last)
    assert kept.analyses["evaluation:test"] == until_there.analyses["evaluation:test"]
    assert all(done.kept is None for done in plain.rounds)


def test_rounds_end_once_they_bring_nothing(tmp_path: Path) -> None:
    text = TEXT.replace("rounds = 2", 'rounds = 30\nkeep = "best"\npatience_rounds = 2')
    found, _, events = run(tmp_path, text)
    assert len(found.rounds) < 30
    assert found.run.status == "finished"
    assert "stopped-early" in events
    (number,) = [done.number for done in found.rounds if done.kept] or [0]
    # The error of the last round's model was never told, the one before was not less than the best.
    assert len(found.rounds) == number + 3


def test_a_resumed_run_keeps_the_same_round(tmp_path: Path) -> None:
    text = TEXT.replace("rounds = 2", 'rounds = 6\nkeep = "best"')
    whole, coordinator = (Coordinator(tmp_path / name, text=text) for name in ("whole", "cut off"))
    assert whole.conduct()
    assert not coordinator.conduct(cut_off_at=3 * 11)
    assert coordinator.conduct()
    models = [load_file(each.run.path / "model.safetensors") for each in (whole, coordinator)]
    for name, array in models[0].items():
        np.testing.assert_array_equal(models[1][name], array)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            NETWORK.replace("rounds = 2", "rounds = 2\npatience_rounds = 3") + K,
            "patience_rounds = 3: not possible",
        ),
        (NETWORK.replace("rounds = 2", 'rounds = 2\nkeep = "best"') + K, 'keep = "best": not possible with validation'),
        (TEXT.replace("rounds = 2", "rounds = 2\npatience_rounds = 0"), "training.patience_rounds"),
    ],
)
def test_a_file_whose_choice_would_be_judged_by_those_who_chose_is_refused(text: str, told: str) -> None:
    with pytest.raises(CampaignErrors, match=told):
        parse_campaign(text)
