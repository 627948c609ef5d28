"""What holds for every network that is trained in rounds: it travels whole, and its paper's size takes a step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from fedage.client.compute.training import train_locally
from fedage.client.inbox.flower_records import read_payload
from fedage.common.analyses.preparation.table_preparation import INNER_PLACE
from fedage.common.campaign.types import Training
from fedage.common.estimators import make
from fedage.common.estimators.base import ROW, Estimator, RoundsPhase, Samples
from fedage.common.networks.arrays import network_of, state_to_arrays
from fedage.common.protocol.messages import TRAIN, Request, join_model, split_payload
from fedage.common.statistics.cohort import Cohort
from fedage.server.sites.flower_records import request_content
from tests.of_estimators import network, prepared

SMALL: dict[str, dict[str, Any]] = {
    "breast-4view": {"image_height": 64, "image_width": 32, "width": 8, "local_channels": 8, "local_blocks": 1},
    "brain-clinical2d": {"shape": [16, 16, 24], "slices": [18, 24], "width": 8, "poolings": 3, "spacing_mm": 8.0},
    "brain-outcome": {"shape": [16, 16, 16], "width": 8, "poolings": 3, "spacing_mm": 8.0, "norm": "batch"},
    "brain-patches": {"shape": [24, 24, 24], "patch": 12, "per_axis": 2, "blocks": 2, "width": 8},
    "brain-sfcn": {"shape": [16, 16, 16], "width": 8, "poolings": 3, "spacing_mm": 8.0, "norm": "batch"},
    "brain-tsan": {"shape": [24, 24, 24], "blocks": 2},
    "chest-ca": {"image_size": 64, "width": 8, "norm": "batch", "sex_input": True},
}
REGIONS = tuple(f"region_{k}" for k in range(20))


def in_records(weights: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The model as a site reads it of a message that has been through Flower's own bytes."""
    request = Request(kind=TRAIN, digest="0" * 64, run="r")
    sent = recorddict_to_proto(request_content(request, join_model(weights), key=None)).SerializeToString()
    content = recorddict_from_proto(ProtoRecordDict.FromString(sent))
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    return split_payload(read_payload(Message(content, dst_node_id=1, message_type=TRAIN)))[0]


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_state_through_flower_s_records_keeps_every_bit(name: str) -> None:
    estimator = make(name, SMALL[name])
    # The last one: of two stages the one that carries the other.
    phase = [one for one in estimator.phases if isinstance(one, RoundsPhase)][-1]
    module = phase.build(seed=1)
    rng = np.random.default_rng(0)
    weights = {
        key: rng.standard_normal(array.shape).astype(np.float32) for key, array in state_to_arrays(module).items()
    }
    first = next(iter(weights))
    weights[first].flat[:4] = [np.float32(1e-42), np.float32(-0.0), np.float32(np.pi), np.finfo(np.float32).max]
    assert any("running_var" in key for key in weights)
    received = in_records(weights)
    again = state_to_arrays(network_of(lambda: phase.build(seed=0), received))
    assert {key: array.tobytes() for key, array in again.items()} == {
        key: array.tobytes() for key, array in weights.items()
    }


def stepped(estimator: Estimator, first: dict[str, NDArray[Any]], inputs: Samples, *, count: int, threads: int) -> None:
    """One step of the phase's training must move every parameter to finite values within the site's bound."""
    ages, phase = np.linspace(9.0, 15.0, count), network(estimator)
    update = train_locally(
        phase, first, inputs, {"age_years": ages}, training=Training(rounds=1, batch_size=count, optimiser="adam"),
        round_number=1, rng_seed=1, threads=threads, device="cpu",
    )  # fmt: skip
    assert update.mean_loss is not None
    assert np.isfinite(update.mean_loss)
    assert all(np.isfinite(array).all() for array in update.weights.values())
    moved = np.sqrt(sum(np.square(update.weights[k] - first[k]).sum() for k in first if "running" not in k))
    assert 0 < moved < estimator.max_step_norm


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_step_of_chest_ca_at_its_full_size_with_the_smallest_batch(norm: str) -> None:
    estimator = make("chest-ca", {"norm": norm, "age_in": "months", "centre_years": 8.0, "sex_input": True})
    phase = network(estimator)
    count = phase.smallest_batch + (norm == "batch")
    assert count == (2 if norm == "batch" else 1)
    side = estimator.shapes()["image"][1]
    assert side == 256
    x = np.random.default_rng(0).standard_normal((count, 1, side, side)).astype(np.float32)
    inputs = Samples({"image": x, ROW: np.ones((count, 1))})
    stepped(estimator, dict(phase.start({}, seed=0)), inputs, count=count, threads=2)


def test_a_step_of_cortex_vnn_at_its_full_size_with_the_smallest_batch() -> None:
    estimator = make("cortex-vnn", {"features": REGIONS, "age_scale": "linear"})
    rng = np.random.default_rng(0)
    age = rng.uniform(5, 20, 60)
    x = 3 - 0.02 * age[:, None] + 0.1 * rng.standard_normal((60, len(REGIONS)))
    columns = {"age_years": age, "is_train": np.ones(60), INNER_PLACE: rng.random(60)}
    columns |= {f"feature:{name}": x[:, k] for k, name in enumerate(REGIONS)}
    result = prepared(estimator, {"all": Cohort(columns)})
    phase = network(estimator)
    first = dict(phase.start(estimator.phases[0].solve(result, {}, seed=0), seed=0))
    taps = sum(array.size for name, array in first.items() if name in dict(phase.build(seed=0).named_parameters()))
    assert taps == 290
    stepped(estimator, first, Samples({ROW: x[: phase.smallest_batch]}), count=phase.smallest_batch, threads=1)
