"""A coordinator that lies in a phase after training: about the model that was trained, the sums, and what follows.

The estimator is another package's: an encoder in rounds, then an exact ridge regression on its embedding. What an
honest run sent is sent again with a change, to a site that was in none of it; nothing may come back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from numpy.typing import NDArray

from fedage.client.inbox.flower_records import read_payload, read_request
from fedage.common.campaign_file import parse_campaign
from fedage.common.estimators.base import Samples
from fedage.common.protocol.messages import ANALYSE, DESCRIBE, EVALUATE, Reply, Request
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.sites.flower_records import request_content
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import InProcessGrid, MemorySite, answer_of
from tests.plugins.pictures import TRAINED, cohort_of, pictures, site_with

pytestmark = pytest.mark.usefixtures("installed")

Payload = dict[str, NDArray[Any]]
TEXT = TRAINED.format(name="trial-contrastive", rounds=2) + "batch_size = 24\nmax_step_norm = 5.0\n"
PROBE = "probe"


def member(name: str, seed: int, folder: Path) -> MemorySite:
    columns = cohort_of(70, seed)
    return site_with(name, folder, columns, Samples({"image": pictures(columns["age_years"], seed)}), seed)


@dataclass
class Honest:
    """What an honest run sent to its first site."""

    analyses: list[Payload]
    evaluation: Payload


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, installed: Path) -> Honest:
    folder = tmp_path_factory.mktemp("honest")
    members = [member(name, seed, folder) for seed, name in enumerate("abc")]
    seen: list[tuple[str, Payload]] = []

    def listen(message: Message, node: int) -> Message:
        if node == 1:
            seen.append((read_request(message)[0].kind, dict(read_payload(message))))
        return message

    grid = InProcessGrid(members, meddle=listen)
    place = Place(folder=folder / "run", run="r1", environment="simulation", guard=True)
    place.folder.mkdir()
    conduct(PollingGrid(grid, poll_s=0.01), parse_campaign(TEXT), place, key=None, admitted=grid.names)
    (evaluation,) = (payload for kind, payload in seen if kind == EVALUATE)
    probing = [p for kind, p in seen if kind == ANALYSE and any(name.startswith(f"{PROBE}|") for name in p)]
    return Honest(probing, evaluation)


@pytest.fixture
def fresh(tmp_path: Path) -> MemorySite:
    site = member("a", 0, tmp_path)
    campaign = parse_campaign(TEXT)
    send(site, Request(kind=DESCRIBE, digest=campaign.digest, run="r2", campaign=TEXT), {})
    return site


def send(site: MemorySite, request: Request, payload: Payload) -> tuple[Reply, Payload]:
    grid = InProcessGrid([site])
    message = grid.create_message(request_content(request, payload, key=None), request.kind, 1, "1", 60.0)
    (answer,) = grid.pull_messages(grid.push_messages([message]))
    reply, arrays = answer_of(answer)
    return reply, dict(arrays)


def ask(site: MemorySite, kind: str, payload: Payload, *, run: str = "r2") -> tuple[Reply, Payload]:
    return send(site, Request(kind=kind, digest=parse_campaign(TEXT).digest, run=run), payload)


def test_the_control_an_honest_evaluation_is_answered_by_a_site_that_was_in_no_training(
    honest: Honest, fresh: MemorySite
) -> None:
    reply, sums = ask(fresh, EVALUATE, honest.evaluation)
    assert reply.status == "ok", reply
    assert "evaluation:test" in sums


def without(prefix: str) -> Callable[[Payload], Payload]:
    return lambda payload: {name: array for name, array in payload.items() if not name.startswith(prefix)}


def changed(name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Payload], Payload]:
    return lambda payload: {**payload, name: change(payload[name])}


@pytest.mark.parametrize(
    ("meddle", "rule"),
    [
        (changed("model:ridge.coefficients", lambda a: 2 * a), "first-model"),
        (changed("model:ridge.intercept", lambda a: a + 0.01), "first-model"),
        (changed("model:layers.1.bias", lambda a: a + np.float32(0.01)), "first-model"),
        (without("trained:"), "first-model"),
        (without("preparation:"), "first-model"),
        (changed(f"preparation:{PROBE}|total", lambda a: 0.5 * a), "first-model"),
        (changed(f"preparation:{PROBE}|total", lambda a: -a), "first-model"),
        (changed(f"preparation:{PROBE}|total", lambda a: a[:-1]), "first-model"),
        (changed("trained:layers.1.bias", lambda a: a + np.float32(50.0)), "model-step"),
        (changed("trained:layers.1.bias", lambda a: a * np.float32(np.nan)), "model"),
    ],
)
def test_a_lie_about_the_finished_model_gets_nothing(
    honest: Honest, fresh: MemorySite, meddle: Callable[[Payload], Payload], rule: str
) -> None:
    reply, sums = ask(fresh, EVALUATE, meddle(honest.evaluation))
    assert (reply.status, reply.rule, sums) == ("refused", rule, {})


def test_sums_of_an_embedding_need_the_model_that_was_trained(honest: Honest, fresh: MemorySite) -> None:
    """Without it there are no columns; with one too far away, or with two of them in a run, nothing leaves."""
    first = honest.analyses[0]
    reply, sums = ask(fresh, ANALYSE, without("model:")(first), run="none")
    assert sums == {}, reply
    far = changed("model:layers.1.bias", lambda a: a + np.float32(50.0))
    reply, sums = ask(fresh, ANALYSE, far(first), run="far")
    assert (reply.status, reply.rule, sums) == ("refused", "model-step", {})
    reply, sums = ask(fresh, ANALYSE, first, run="two")
    assert PROBE in sums
    near = changed("model:layers.1.bias", lambda a: a + np.float32(0.01))
    reply, sums = ask(fresh, ANALYSE, near(first), run="two")
    assert (reply.status, sums) == ("refused", {})


def test_sums_that_are_not_agreed_columns_are_refused(honest: Honest, fresh: MemorySite) -> None:
    """The agreement on columns comes first in this phase too: sums of products are not to be had without it."""
    ask(fresh, ANALYSE, honest.analyses[0])
    last = {name: array for name, array in honest.analyses[-1].items() if name != f"{PROBE}|columns"}
    reply, sums = ask(fresh, ANALYSE, last)
    assert sums == {}
    assert reply.info["withheld"][PROBE]["rule"] == "influence-agreement"
