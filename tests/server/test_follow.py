"""Following a run: what is left is told from what was done since the sites were there, over all folds."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedage.server.cli.follow import Follower, Pending


def told(folder: Path, *events: dict[str, Any]) -> list[str]:
    lines = [json.dumps({**event, "time": f"2026-01-01T00:{event['at']:02d}:00.000+00:00"}) for event in events]
    (folder / "events.jsonl").write_text("".join(f"{line}\n" for line in lines))
    said = io.StringIO()
    Follower(folder / "events.jsonl", console=Console(file=said, soft_wrap=True, highlight=False)).look()
    return said.getvalue().splitlines()


SITE = {"event": "site", "site": "a", "patients": 9, "device": "cpu"}
ROUND = {"event": "round", "of": 10, "train_loss": 1.0, "sites": ["a"], "seconds": 1.0}


def test_rounds_of_all_folds_are_counted(tmp_path: Path) -> None:
    """10 of 50 rounds in 5 minutes: 20 minutes to go; the minutes before the sites came are not theirs."""
    lines = told(
        tmp_path,
        {"event": "nodes", "online": 1, "expected": 1, "at": 0},
        {**SITE, "at": 10},
        {**ROUND, "number": 10, "fold": 0, "folds": 5, "at": 15},
        {**ROUND, "number": 10, "fold": 4, "folds": 5, "at": 35},
    )
    assert lines[2].endswith("fold 1/5, round 10/10: loss 1.000, 1 sites, 1.0 s, about 20 min of training left")
    assert lines[3].endswith("1.0 s")


def test_folds_of_an_exact_model_are_counted_by_themselves(tmp_path: Path) -> None:
    fold = {"event": "fold", "of": 5, "sites": ["a"]}
    lines = told(tmp_path, {**SITE, "at": 0}, {**fold, "number": 1, "at": 1}, {**fold, "number": 5, "at": 5})
    assert lines[1].endswith("predicted at 1 sites, about 4 min of training left")
    assert "left" not in lines[2]


def test_what_is_waited_for_is_told_by_site_and_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("fedage.server.cli.follow.time.monotonic", lambda: clock[0])
    pending = Pending()

    def for_s(seconds: int) -> list[str]:
        told = []
        for _ in range(seconds):
            clock[0] += 1
            if line := pending.due():
                told.append(line)
        return told

    assert for_s(60) == []
    pending.wait_for("waiting for the run to begin")
    assert for_s(9) == []
    assert for_s(2) == ["waiting for the run to begin (10 s)"]
    pending.take({"event": "asked", "step": "train", "round": 3, "sites": ["north", "south", "west"]})
    pending.take({"event": "answer", "site": "south"})
    said = for_s(100)
    assert said[0] == "waiting for north, west: train, round 3 (10 s)"
    assert [line.split("(")[1] for line in said] == ["10 s)", "20 s)", "40 s)", "80 s)"]
    pending.take({"event": "answer", "site": "west"})
    pending.take({"event": "answer", "site": "north"})
    assert for_s(100) == []
    pending.take({"event": "approval-awaited", "sites": ["north"]})
    assert for_s(11) == ["waiting for north to approve (10 s)"]
    pending.take({"event": "away", "sites": ["south"]})
    assert for_s(11) == ["waiting for south to come back online (10 s)"]
    pending.take({"event": "finished"})
    assert for_s(100) == []
