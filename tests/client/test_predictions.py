"""A run has one model and one cohort: what a second one would tell by subtraction is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedage.client.compute import predictions
from fedage.client.disclosure.guard import Withheld
from fedage.common import estimators
from fedage.common.campaign_file import parse_campaign
from fedage.common.estimators.configure import initial_seed
from fedage.common.networks.arrays import state_to_arrays
from fedage.common.protocol.messages import (
    ANALYSE,
    DESCRIBE,
    EVALUATE,
    TRAIN,
    Payload,
    Reply,
    Request,
    join_iterates,
    join_model,
)
from fedage.common.statistics.cohort import Cohort
from fedage.server.sites.flower_records import read_reply, request_content
from tests.machinery import InProcessGrid, MemorySite, memory_site
from tests.of_estimators import network

FILE = """
[campaign]
name = "predictions"
purpose = "Try to have a run predict twice"
seed = 7
[estimator]
name = "chest-ca"
[estimator.options]
image_size = 64
width = 8
[training]
rounds = 1
[privacy]
minimum_count = 5
"""
COHORT = Cohort({"age_years": np.array([50.0, 60.0]), "event": np.array([0.0, 1.0])})


def digest(cohort: Cohort = COHORT) -> str:
    return predictions.cohort_digest(cohort, snapshot="s")


def test_predictions_are_kept_once_by_model_and_cohort(tmp_path: Path) -> None:
    told = np.array([51.0, np.nan])
    here = {"run": "r1", "model": "m", "snapshot": digest()}
    assert not predictions.are_kept(tmp_path, **here)
    predictions.keep(tmp_path, **here, columns={"predicted_years": told})
    assert predictions.are_kept(tmp_path, **here)
    predictions.keep(tmp_path, **here, columns={"predicted_years": told + 1})
    found = predictions.with_predictions(COHORT, tmp_path, run="r1", snapshot=digest())
    assert found["predicted_years"][0] == 51.0
    assert found["raw_gap_years"][0] == 1.0
    for change, rule in (({"model": "n"}, "already-predicted"), ({"snapshot": "t"}, "cohort-changed")):
        with pytest.raises(Withheld, match=rule):
            predictions.are_kept(tmp_path, **{**here, **change})
        with pytest.raises(Withheld, match=rule):
            predictions.keep(tmp_path, **{**here, **change}, columns={"predicted_years": told})
    assert not predictions.are_kept(tmp_path, **{**here, "run": "r2", "model": "n"})
    assert [path.name for path in tmp_path.iterdir()] == ["predictions-r1.npz"]


def test_a_cohort_of_the_same_size_is_not_the_same_cohort(tmp_path: Path) -> None:
    predictions.keep(tmp_path, run="r1", columns={"predicted_years": np.zeros(2)}, model="m", snapshot=digest())
    others = [
        COHORT.with_columns(age_years=np.array([50.0, 61.0])),
        COHORT.with_columns(event=np.array([1.0, 1.0])),
        COHORT.with_columns(more=np.zeros(2)),
    ]
    for other in others:
        with pytest.raises(Withheld, match="cohort-changed"):
            predictions.with_predictions(other, tmp_path, run="r1", snapshot=digest(other))
    assert digest() != predictions.cohort_digest(COHORT, snapshot="other patients")


def weights() -> Payload:
    campaign = parse_campaign(FILE)
    assert campaign.estimator is not None
    return state_to_arrays(
        network(estimators.make("chest-ca", campaign.estimator.options)).build(seed=initial_seed(campaign, fold=0))
    )


def ask(site: MemorySite, kind: str, payload: Payload, *, run: str = "r1") -> Reply:
    campaign = FILE if kind == DESCRIBE else ""
    request = Request(kind=kind, digest=parse_campaign(FILE).digest, run=run, campaign=campaign, round=1)
    grid = InProcessGrid([site])
    sent = grid.create_message(request_content(request, payload, key=None), kind, 1, "1", 60.0)
    (reply,) = grid.pull_messages(grid.push_messages([sent]))
    return read_reply(reply)[0]


def test_a_second_model_in_the_same_run_is_refused_by_the_site(tmp_path: Path) -> None:
    site = memory_site("solo", tmp_path)
    site.offer(FILE, digest=parse_campaign(FILE).digest)
    steps = join_iterates({"evaluation:test": {}})
    first = {**join_model(weights()), **steps}
    assert ask(site, EVALUATE, first).status == "ok"
    assert ask(site, EVALUATE, first).status == "ok"
    tweaked = {name: array.copy() for name, array in weights().items()}
    next(array for array in tweaked.values() if array.size).flat[0] += 1e-3
    refused = ask(site, EVALUATE, {**join_model(tweaked), **steps})
    assert (refused.status, refused.rule) == ("refused", "already-predicted")
    assert ask(site, EVALUATE, {**join_model(tweaked), **steps}, run="r2").status == "ok"

    assert ask(site, ANALYSE, steps).status == "ok"
    values = dict(site.found.cohort.columns)
    site.found = replace(site.found, cohort=Cohort({**values, "event": 1 - values["event"]}))
    for kind, payload in ((ANALYSE, steps), (EVALUATE, first)):
        refused = ask(site, kind, payload)
        assert (refused.status, refused.rule) == ("refused", "cohort-changed")


def test_training_answers_for_its_models_validation_and_nothing_else(tmp_path: Path) -> None:
    """Else any model of a round could be compared by thresholds, or its gaps analysed, which are for the run's one."""
    site = memory_site("solo", tmp_path)
    site.offer(FILE, digest=parse_campaign(FILE).digest)
    model = join_model(weights())
    assert ask(site, TRAIN, {**model, **join_iterates({"evaluation:validation": {}})}).status == "ok"
    mean = {"mean_age": np.asarray(60.0)}
    for steps in ({"evaluation:test": mean}, {"evaluation:validation": {}, "bias": {}}, {"predicted-by-age": {}}):
        refused = ask(site, TRAIN, {**model, **join_iterates(steps)})
        assert (refused.status, refused.rule) == ("refused", "unknown-step")


def test_a_small_part_does_not_follow_from_the_others(tmp_path: Path) -> None:
    site = memory_site("solo", tmp_path, count=80)
    values = dict(site.found.cohort.columns)
    test = np.flatnonzero(values["is_test"] == 1)
    values["is_train"][test[3:]], values["is_test"][test[3:]] = 1.0, 0.0
    site.found = replace(site.found, cohort=Cohort(values), rejected_samples={"blank": 2, "tiny": 9, "odd": 0})
    site.offer(FILE, digest=parse_campaign(FILE).digest)
    info = ask(site, DESCRIBE, {}).info
    assert info["patients"] == 80
    assert info["parts"] == {"train": 57, "validation": None, "test": None}
    assert info["rejected_samples"] == {"blank": None, "tiny": 9, "odd": 0}
