"""A bundle made to single patients out, which an approved file names as the model that its rounds begin with.

The attack is that of `test_model_imprint`: hidden units that let those through who lie beyond a value. The first model
of such a campaign does not follow from a seed, so that the bounds on steps alone do not hold it back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from fedage.common.bundle.container import write_bundle
from fedage.common.campaign_file import parse_campaign
from fedage.common.estimators.table_mlp import TableMLP
from fedage.common.networks.steps import learnt_norm
from fedage.common.protocol.basis import Basis, join_basis
from fedage.common.protocol.messages import TRAIN, Reply, Request, join_model, model_of
from fedage.server.sites.flower_records import request_content
from tests.attacks import table_attacker, test_model_imprint
from tests.attacks.table_attacker import FILE, Attacker
from tests.attacks.test_model_imprint import UNITS, best_outside, imprinted, records, whole_records
from tests.machinery import InProcessGrid, answer_of
from tests.of_bundles import described
from tests.of_estimators import roles

KEY = Ed25519PrivateKey.generate()
FEATURES = 10
Arrays = Mapping[str, NDArray[Any]]


@pytest.fixture(autouse=True)
def features_in_the_order_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a bundle has them: with more than ten, f10 would come before f2."""
    for module in (table_attacker, test_model_imprint):
        monkeypatch.setattr(module, "FEATURES", FEATURES)


def begun_with(attacker: Attacker, model: Arrays) -> tuple[Reply, dict[str, NDArray[Any]]]:
    """The site's first update in a campaign that begins with a bundle of this model."""
    names = list(attacker.names)
    options = {"features": names, "penalty": 10.0, "hidden": [64], "age_scale": "linear"}
    arrays = {name: np.asarray(array) for name, array in model.items()}
    content = write_bundle(described("table-mlp", options, arrays), arrays, key=KEY)
    text = FILE.format(rounds=2, step_norm=TableMLP.max_step_norm, path_norm=TableMLP.max_path_norm)
    text = text.replace('features = ["*"]', f"features = {names}".replace("'", '"'))
    text = text.replace("rounds = 2", f'rounds = 2\nstart_bundle = "{hashlib.sha256(content).hexdigest()}"')
    campaign = parse_campaign(text)
    attacker.site.offer(text, digest=campaign.digest)
    payload = {**join_model(arrays), **join_basis(Basis(bundle=content))}
    request = Request(kind=TRAIN, digest=campaign.digest, run=attacker.new_run(), round=1)
    grid = InProcessGrid([attacker.site])
    message = grid.create_message(request_content(request, payload, key=None), TRAIN, 1, "1", 60.0)
    (answer,) = grid.pull_messages(grid.push_messages([message]))
    reply, update = answer_of(answer)
    return reply, model_of(update)


def norm(attacker: Attacker, model: Arrays) -> float:
    arrays = roles(attacker.campaign, attacker.names)
    assert arrays is not None
    return learnt_norm(model, arrays)


def test_a_bundle_of_the_usual_size_is_trained_on(tmp_path: Path) -> None:
    attacker = Attacker(tmp_path)
    reply, update = begun_with(attacker, best_outside(attacker)["first"])
    assert (reply.status, bool(update)) == ("ok", True), reply.reason


@pytest.mark.parametrize("slope", [100.0, 20.0, 5.0, float("nan")])
def test_one_with_sharp_units_is_refused(tmp_path: Path, slope: float) -> None:
    """Without the rule one update of slope 100 gives 15 of 27 whole records, of slope 20 four."""
    attacker = Attacker(tmp_path)
    direction = np.random.default_rng(7).normal(size=FEATURES)
    direction /= np.linalg.norm(direction)
    first = best_outside(attacker)["first"]
    model = imprinted(first, slope=slope, thresholds=np.linspace(-2, 2, UNITS), direction=direction, out=1.0)
    reply, update = begun_with(attacker, model)
    assert (reply.status, reply.rule, update) == ("refused", "first-model", {})


@pytest.mark.parametrize("units", [3, 8, 16, 64])
def test_the_largest_that_is_taken_gives_few_records(tmp_path: Path, units: int) -> None:
    """Units around the middle of one feature, as steep as the bound lets them be."""
    attacker = Attacker(tmp_path)
    first = best_outside(attacker)["first"]
    gap = np.sqrt(2 * np.pi) / len(attacker.part("is_train"))
    thresholds = (np.arange(units) - (units - 1) / 2) * gap

    def made(slope: float) -> Arrays:
        return imprinted(first, slope=slope, thresholds=thresholds, direction=np.eye(FEATURES)[0], out=0.3)

    allowed = 0.99 * (norm(attacker, first) + TableMLP.max_path_norm)
    low, high = 0.0, 1e3
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if norm(attacker, made(middle)) <= allowed else (low, middle)
    reply, update = begun_with(attacker, made(low))
    assert reply.status == "ok", reply.reason
    assert whole_records(records(update, units=units), attacker, first) <= 1
