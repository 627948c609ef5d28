"""`breast-4view` at its paper's size: slow, and a few GiB of memory."""

from __future__ import annotations

import numpy as np
import pytest

from fedage.client.compute.training import train_locally
from fedage.common.campaign.types import Training
from fedage.common.estimators import make
from fedage.common.estimators.base import Samples
from fedage.common.estimators.breast_4view import VIEWS
from tests.of_estimators import network


@pytest.mark.slow
def test_one_step_of_the_published_model_with_the_smallest_batch() -> None:
    estimator = make("breast-4view", {"image_height": 1024, "image_width": 512, "norm": "batch"})
    phase = network(estimator)
    exams = phase.smallest_batch
    rng = np.random.default_rng(0)
    arrays = {name: rng.uniform(-1, 1, (exams, 1, 1024, 512)).astype(np.float32) for name in VIEWS}
    first = phase.start({}, seed=0)
    update = train_locally(
        phase,
        first,
        Samples(arrays),
        {"age_years": np.array([45.0, 58.0, 71.0]), "density": np.array([4.0, np.nan, 1.0])},
        training=Training(rounds=1, batch_size=exams, optimiser="adam"),
        round_number=1,
        rng_seed=1,
        threads=2,
        device="cpu",
    )
    assert sum(array.size for name, array in first.items() if "running" not in name) == 17_090_060
    assert update.mean_loss is not None
    assert np.isfinite(update.mean_loss)
    unmoved = [name for name in first if np.array_equal(first[name], update.weights[name])]
    assert not unmoved
    moved = np.sqrt(sum(np.square(update.weights[k] - first[k]).sum() for k in first if "running" not in k))
    print(f"loss {update.mean_loss:.1f}, step norm {moved:.2f}, {update.seconds:.0f} s")
    assert moved < estimator.max_step_norm
