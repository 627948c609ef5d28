"""A policy that is broken for a moment: nothing is answered meanwhile, and a message waits for it a little."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fedage.client.consent.policy import file as policy_file
from fedage.client.consent.policy.file import PolicyFile
from fedage.client.consent.policy.parse import PolicyErrors
from fedage.client.site.cancel import Cancellation, Cancelled, cancellable

GOOD = "[disclosure]\nminimum_count = 20\n"


def _fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


BROKEN: dict[str, Callable[[Path], object]] = {
    "a typing mistake": lambda path: path.write_text("[disclosure]\nminimum_cuont = 20\n"),
    "cut off": lambda path: path.write_text("[disclosure]\nminimum_count ="),
    "empty": lambda path: path.write_text(""),
    "away": lambda path: path.unlink(),
    "a pipe": _fifo,
}


@pytest.fixture
def policy(tmp_path: Path) -> PolicyFile:
    (tmp_path / "policy.toml").write_text(GOOD)
    found = PolicyFile(tmp_path)
    assert found.current().disclosure.minimum_count == 20
    return found


def _mend(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.write_text(GOOD)


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_message_waits_until_it_is_mended(policy: PolicyFile, broken: Callable[[Path], object]) -> None:
    broken(policy.path)
    with pytest.raises(PolicyErrors):
        policy.current()
    mending = threading.Timer(0.3, _mend, [policy.path])
    mending.start()
    with cancellable(Cancellation(lifetime_s=60)):
        policy.wait_until_readable()
    mending.join()
    assert policy.current().disclosure.minimum_count == 20


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_one_that_stays_broken_allows_nothing(
    policy: PolicyFile, broken: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_file, "GRACE_S", 0.3)
    broken(policy.path)
    with cancellable(Cancellation(lifetime_s=60)):
        policy.wait_until_readable()
    with pytest.raises(PolicyErrors):
        policy.current()
    assert policy.digest() is None or broken in (BROKEN["a typing mistake"], BROKEN["cut off"], BROKEN["empty"])


def test_nobody_waits_longer_than_half_of_a_messages_time_or_outside_an_agent(policy: PolicyFile) -> None:
    policy.path.write_text("")
    before = time.monotonic()
    policy.wait_until_readable()
    with cancellable(Cancellation(lifetime_s=0.8)):
        policy.wait_until_readable()
    assert time.monotonic() - before < 5


def test_a_message_that_is_cancelled_waits_no_longer(policy: PolicyFile) -> None:
    policy.path.write_text("")
    cancellation = Cancellation(lifetime_s=60)
    threading.Timer(0.2, cancellation.cancel).start()
    with cancellable(cancellation), pytest.raises(Cancelled):
        policy.wait_until_readable()
