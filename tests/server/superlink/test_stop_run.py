"""Stopping a run in the SuperLink, which may end by itself at the same moment."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from fedage.common.errors import FedAgeError
from fedage.server.superlink import control
from fedage.server.superlink.home import CoordinatorHome

HOME = cast(CoordinatorHome, Path("nowhere"))


@pytest.mark.parametrize(
    ("statuses", "refuses", "stops", "fails"),
    [
        (["finished:completed"], False, 0, False),
        (["running"], False, 1, False),
        (["pending"], False, 1, False),
        (["running", "finished:failed"], True, 1, False),  # it ended between the question and the stop
        (["starting", "finished:stopped"], True, 1, False),
        (["running", "running"], True, 1, True),
        (["running", ""], True, 1, True),
    ],
)
def test_a_run_that_ends_meanwhile_is_stopped(
    statuses: list[str], refuses: bool, stops: int, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, stopped = iter(statuses), list[tuple[str, ...]]()

    def flwr(_home: CoordinatorHome, *words: str) -> None:
        stopped.append(words)
        if refuses:
            raise FedAgeError("the SuperLink did not take flwr stop: [code: 18] Run is already finished")

    monkeypatch.setattr(control, "run_status", lambda _home, _run: next(told))
    monkeypatch.setattr(control, "_flwr", flwr)
    if fails:
        with pytest.raises(FedAgeError, match="did not take"):
            control.stop_run(HOME, 7)
    else:
        control.stop_run(HOME, 7)
    assert stopped == [("stop", "7", control.CONNECTION)] * stops
    assert list(told) == []
