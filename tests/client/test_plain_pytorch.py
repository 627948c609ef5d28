"""A site's local training is plain PyTorch to the bit: same network, same batches, same steps, and nothing added."""

import numpy as np
import pytest
import torch

from fedage.client.compute.training import train_locally
from fedage.common.campaign.types import Training
from fedage.common.estimators import make
from fedage.common.estimators.base import Batch, Samples
from fedage.common.networks.arrays import load_arrays, state_to_arrays
from fedage.common.protocol.messages import derived_seed
from tests.of_estimators import network

ESTIMATORS = {
    "chest-ca": {"image_size": 64, "width": 8},
    "brain-sfcn": {"shape": [16, 16, 16], "width": 8, "poolings": 3, "spacing_mm": 8.0},
    "breast-4view": {
        "image_height": 64, "image_width": 32, "width": 8, "local_channels": 8, "local_blocks": 1, "draws": 2,
        "age_min_years": 40, "age_max_years": 80,
    },
}  # fmt: skip
OPTIMISERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=0.02),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, weight_decay=0.02),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.02),
}


def known(name: str) -> tuple[Samples, dict[str, np.ndarray]]:
    """Seven patients; of `breast-4view` two lack a view and one has no known density."""
    rng = np.random.default_rng(0)
    shapes = make(name, ESTIMATORS[name]).shapes()
    arrays = {array: rng.random((7, *shape), dtype=np.float32) for array, shape in shapes.items()}
    targets = {"age_years": rng.uniform(40, 80, 7)}
    if name != "breast-4view":
        return Samples(arrays), targets
    present = {array: np.ones(7, dtype=bool) for array in ("L-CC", "R-MLO")}
    for patient, (array, there) in enumerate(present.items()):
        there[patient] = False
        arrays[array][patient] = 0
    return Samples(arrays, present), targets | {"density": np.array([1.0, 2.0, np.nan, 4.0, 3.0, 2.0, 1.0])}


@pytest.mark.parametrize(
    ("name", "options", "optimiser"),
    [
        ("brain-sfcn", {"norm": "batch"}, "adamw"),
        ("brain-sfcn", {"norm": "group"}, "sgd"),
        ("brain-sfcn", {"norm": "batch"}, "adam"),
        ("chest-ca", {"norm": "group"}, "adamw"),
        ("chest-ca", {"norm": "batch"}, "sgd"),
        ("breast-4view", {"norm": "batch"}, "adamw"),
        ("breast-4view", {"norm": "group"}, "sgd"),
        ("breast-4view", {"norm": "group", "triplet": 0, "density": 0}, "adam"),
    ],
)
def test_a_round_at_one_site_without_noise(name: str, options: dict[str, object], optimiser: str) -> None:
    phase = network(make(name, {**ESTIMATORS[name], **options}))
    samples, targets = known(name)
    first = phase.start({}, seed=3)
    training = Training(
        rounds=1, local_epochs=2, batch_size=3, optimiser=optimiser, learning_rate=0.01, weight_decay=0.02
    )
    update = train_locally(
        phase, first, samples, targets, training=training, round_number=1, rng_seed=5, threads=1, device="cpu",
    )  # fmt: skip

    # A last batch of one joins the one before where BatchNorm needs two patients, or the triplet loss three.
    couples = options["norm"] == "batch" or (name == "breast-4view" and "triplet" not in options)
    starts = [0, 3] if couples else [0, 3, 6]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        module = phase.build(seed=0).train()
        load_arrays(module, first)
        torch.manual_seed(derived_seed("layers", 5))  # dropout draws from it
        steps = OPTIMISERS[optimiser](module.parameters())
        orders, draws = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
        for _ in range(2):
            order = torch.randperm(7, generator=orders).numpy()
            for start, end in zip(starts, [*starts[1:], 7], strict=True):
                rows = order[start:end]
                batch = Batch(
                    {array: torch.from_numpy(np.asarray(x)[rows]) for array, x in samples.arrays.items()},
                    {array: torch.from_numpy(samples.has(array)[rows]) for array in samples.arrays},
                    {array: torch.from_numpy(y[rows].astype(np.float32)) for array, y in targets.items()},
                )
                batch = phase.training_batch(batch, generator=draws)
                steps.zero_grad()
                phase.loss(phase.output(module, batch), batch).backward()
                steps.step()
        plain = state_to_arrays(module)
    finally:
        torch.set_num_threads(threads)
    assert update.n == 7
    assert any(not np.array_equal(array, first[key]) for key, array in plain.items())
    assert {key: value.tobytes() for key, value in update.weights.items()} == {
        key: value.tobytes() for key, value in plain.items()
    }


@pytest.mark.parametrize("before", [1, 2, 3])
def test_dropout_draws_from_the_training_s_seed_and_not_from_the_process(before: int) -> None:
    phase = network(make("brain-sfcn", {**ESTIMATORS["brain-sfcn"], "norm": "group"}))
    x = np.random.default_rng(0).random((4, 1, 16, 16, 16), dtype=np.float32)
    training = Training(rounds=1, batch_size=4, learning_rate=0.01)

    def trained(seed: int) -> dict[str, bytes]:
        found = train_locally(
            phase, phase.start({}, seed=3), Samples({"t1w": x}), {"age_years": np.array([40.0, 50.0, 60.0, 70.0])},
            training=training, round_number=1, rng_seed=seed, threads=1, device="cpu",
        )  # fmt: skip
        return {name: array.tobytes() for name, array in found.weights.items()}

    torch.manual_seed(before)
    state = torch.get_rng_state()
    one = trained(5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(before + 100)
    assert trained(5) == one
    assert trained(6) != one
