"""What a site computes ends within seconds of its message being withdrawn, and nothing half-written stays."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedage.client.agent.service import Agent, Serving, serve
from fedage.client.cohort.samples import exams
from fedage.client.compute import contribute
from fedage.client.compute.training import PredictionStopped
from fedage.client.inbox import handlers
from fedage.client.node.relay import relay
from fedage.common import estimators
from fedage.common.estimators import predict
from fedage.common.estimators.chest_ca import ChestCA
from fedage.common.protocol.messages import ANALYSE, DESCRIBE, EVALUATE, TRAIN
from fedage.server.sites.flower_records import read_reply
from tests.client.hospital import Hospital, Template
from tests.of_estimators import built, predict_years

WITHIN_S = 2.0


@pytest.fixture
def hospital(template: Template, tmp_path: Path) -> Hospital:
    return template.copy(tmp_path)


@pytest.fixture
def serving(hospital: Hospital) -> Iterator[tuple[Serving, str]]:
    path = hospital.home / "run" / "a.sock"
    made = serve(Agent(handlers.app, site_home=hospital.home), socket=path)
    yield made, str(path)
    made.stop(grace=2).wait()


class Slow:
    """A function as it is, but each call takes a moment; the calls are counted."""

    def __init__(self, function: Callable[..., Any], *, step_s: float) -> None:
        self._function = function
        self._step_s = step_s
        self.calls = 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        time.sleep(self._step_s)
        return self._function(*arguments, **named)


def slow(patch: pytest.MonkeyPatch, module: Any, name: str, *, step_s: float = 0.15) -> Slow:
    made = Slow(getattr(module, name), step_s=step_s)
    patch.setattr(module, name, made)
    return made


def slow_prediction(patch: pytest.MonkeyPatch) -> Slow:
    patch.setattr(ChestCA, "prediction_batch", 1)
    return slow(patch, predict, "batch_of")


def slow_samples(patch: pytest.MonkeyPatch) -> Slow:
    return slow(patch, exams, "load_image")


def slow_steps(patch: pytest.MonkeyPatch) -> Slow:
    return slow(patch, contribute, "_one", step_s=0.6)


@pytest.mark.parametrize(
    ("kind", "slowed", "most"),
    [
        (EVALUATE, slow_prediction, 40),
        (TRAIN, slow_prediction, 40),
        (DESCRIBE, slow_samples, 40),
        (TRAIN, slow_samples, 40),
        (EVALUATE, slow_steps, 2),
        (ANALYSE, slow_steps, 2),
    ],
)
def test_what_is_withdrawn_stops_within_seconds_and_can_be_asked_again(
    hospital: Hospital,
    serving: tuple[Serving, str],
    kind: str,
    slowed: Callable[[pytest.MonkeyPatch], Slow],
    most: int,
) -> None:
    if slowed is slow_samples:
        shutil.rmtree(hospital.home / "cache")
    withdrawn: Future[None] = Future()
    message = hospital.message(hospital.request(kind, round=1 if kind == TRAIN else 0))
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as pool:
        seen = slowed(patch)
        asked = pool.submit(relay, message, socket=serving[1], withdrawn=withdrawn)
        deadline = time.monotonic() + 20
        while seen.calls < 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        began = time.monotonic()
        withdrawn.set_result(None)
        assert asked.result(10).error.reason == "Withdrawn"
        assert serving[0].agent._turns.idle(timeout_s=20)
        assert time.monotonic() - began < WITHIN_S
        assert seen.calls < most
    if slowed is slow_prediction:
        assert not list(hospital.home.rglob("predictions-*"))
    assert not list(hospital.home.rglob("*.partial"))
    if slowed is slow_samples:
        assert [path.name for path in (hospital.home / "cache").iterdir()] == ["build.lock"]
    reply, _ = read_reply(relay(message, socket=serving[1]))
    assert reply.status == "ok", reply
    hospital.must_be_intact(reply)


def test_who_waits_for_anothers_samples_stops_too_and_the_other_goes_on(
    hospital: Hospital, serving: tuple[Serving, str]
) -> None:
    shutil.rmtree(hospital.home / "cache")
    withdrawn: Future[None] = Future()
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        seen = slow_samples(patch)
        first = pool.submit(relay, hospital.message(hospital.request()), socket=serving[1])
        while seen.calls < 1:
            time.sleep(0.01)
        waiting = hospital.message(hospital.request(ANALYSE), {})
        second = pool.submit(relay, waiting, socket=serving[1], withdrawn=withdrawn)
        while len(serving[0].agent._turns.works()) < 2:
            time.sleep(0.01)
        time.sleep(0.3)
        began = time.monotonic()
        withdrawn.set_result(None)
        assert second.result(10).error.reason == "Withdrawn"
        while len(serving[0].agent._turns.works()) > 1:
            assert time.monotonic() - began < WITHIN_S
            time.sleep(0.01)
        assert read_reply(first.result(60))[0].status == "ok"
        assert 38 <= seen.calls <= 40  # every image was read once


def test_predicting_asks_before_every_batch() -> None:
    estimator = estimators.make("chest-ca", {"image_size": 64, "width": 8})
    asked: list[int] = []

    def stop_at_the_third() -> bool:
        asked.append(1)
        return len(asked) == 3

    images = np.zeros((10, *estimator.shapes()["image"]), np.float32)
    with pytest.raises(PredictionStopped, match="after 4 of 10 patients"):
        predict_years(
            estimator,
            built(estimator, seed=1),
            images,
            batch_size=2,
            device="cpu",
            threads=1,
            should_stop=stop_at_the_third,
        )
