"""SFCN layer for layer: names, shapes, counts and values of the published network."""

import io

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fedage.common.networks.arrays import ModelRefused, network_of, state_to_arrays
from fedage.common.networks.sfcn import SFCN, load_published

CONVOLUTIONS = [
    (32, 1, 3, 3, 3),
    (64, 32, 3, 3, 3),
    (128, 64, 3, 3, 3),
    (256, 128, 3, 3, 3),
    (256, 256, 3, 3, 3),
    (64, 256, 1, 1, 1),
]


def published_shapes(bins: int = 40) -> dict[str, tuple[int, ...]]:
    """As the published checkpoint has them."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, weight in enumerate(CONVOLUTIONS):
        shapes[f"module.feature_extractor.conv_{i}.0.weight"] = weight
        shapes[f"module.feature_extractor.conv_{i}.0.bias"] = weight[:1]
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"module.feature_extractor.conv_{i}.1.{name}"] = weight[:1]
        shapes[f"module.feature_extractor.conv_{i}.1.num_batches_tracked"] = ()
    shapes["module.classifier.conv_6.weight"] = (bins, 64, 1, 1, 1)
    shapes["module.classifier.conv_6.bias"] = (bins,)
    return shapes


def published_state(bins: int = 40, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state as one that was saved under `DataParallel`, with values that mean nothing."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in published_shapes(bins).items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        else:
            values = torch.randn(shape, generator=generator) / max(1, int(np.prod(shape[1:]))) ** 0.5
            state[name] = values.abs() + 0.5 if name.endswith("running_var") else values
    return state


def reference(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The published forward pass written out by functions, in evaluation."""
    for i in range(6):
        at = f"module.feature_extractor.conv_{i}"
        x = functional.conv3d(x, state[f"{at}.0.weight"], state[f"{at}.0.bias"], padding=1 if i < 5 else 0)
        x = functional.batch_norm(
            x, *(state[f"{at}.1.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        )
        if i < 5:
            x = functional.max_pool3d(x, 2, 2)
        x = functional.relu(x)
    x = functional.avg_pool3d(x, x.shape[2:])
    x = functional.conv3d(x, state["module.classifier.conv_6.weight"], state["module.classifier.conv_6.bias"])
    return functional.log_softmax(x, dim=1)


def test_names_shapes_and_counts_are_the_published_ones() -> None:
    state = SFCN(bins=40, shape=(160, 192, 160)).state_dict()
    assert {f"module.{name}": tuple(tensor.shape) for name, tensor in state.items()} == published_shapes()
    assert len(state) == 44
    assert state["feature_extractor.conv_0.1.num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize(
    ("bins", "width", "norm", "count"),
    # Of the published 2,952,936 the head has 64 · 40 + 40; GroupNorm has no other parameters than BatchNorm.
    [(40, 32, "batch", 2_952_936), (40, 32, "group", 2_952_936), (86, 32, "batch", 2_952_936 + 46 * 65)],
)
def test_parameters(bins: int, width: int, norm: str, count: int) -> None:
    module = SFCN(bins=bins, shape=(160, 192, 160), norm=norm, width=width)
    assert sum(parameter.numel() for parameter in module.parameters()) == count


@pytest.mark.slow
def test_shapes_inside_are_the_published_ones() -> None:
    with torch.device("meta"):
        module, x = SFCN(bins=40, shape=(160, 192, 160)).eval(), torch.empty(1, 1, 160, 192, 160)
    seen = []
    for block in (*module.feature_extractor, *module.classifier):
        x = block(x)
        seen.append("×".join(map(str, x.shape[1:])))
    assert seen == [
        *("32×80×96×80", "64×40×48×40", "128×20×24×20", "256×10×12×10", "256×5×6×5", "64×5×6×5"),
        *("64×1×1×1", "64×1×1×1", "40×1×1×1"),
    ]


@pytest.mark.parametrize("prefix", [True, False])
def test_a_published_state_loads_strictly_and_gives_the_published_output(prefix: bool) -> None:
    state = published_state()
    if not prefix:
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    module = SFCN(bins=40, shape=(32, 64, 32))
    load_published(module, torch.load(stream, weights_only=True))
    x = torch.rand(2, 1, 32, 64, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = module.eval()(x)
        expected = reference(published_state(), x).flatten(1)
    assert found.shape == (2, 40)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert module.state_dict()["feature_extractor.conv_0.1.num_batches_tracked"].item() == 7


@pytest.mark.parametrize("kind", ["bins", "entry missing", "entry too many", "another network", "group"])
def test_a_state_of_something_else_is_refused_in_a_line(kind: str) -> None:
    state = published_state(42 if kind == "bins" else 40)
    if kind == "entry missing":
        del state["module.classifier.conv_6.bias"]
    if kind == "entry too many":
        state["module.classifier.conv_7.bias"] = torch.zeros(3)
    if kind == "another network":
        state = dict(nn.Linear(3, 2).state_dict())
    module = SFCN(bins=40, shape=(64, 64, 64), norm="group" if kind == "group" else "batch")
    with pytest.raises(ModelRefused, match=r"the state is not one of this network: .* with 40 bins") as refused:
        load_published(module, state)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_state_through_arrays_keeps_every_bit(norm: str) -> None:
    def build() -> SFCN:
        return SFCN(bins=5, shape=(32, 32, 32), norm=norm, width=8)

    module = build().train()
    module(torch.rand(3, 1, 32, 32, 32))  # moves running statistics
    again = network_of(build, state_to_arrays(module))
    x = torch.rand(2, 1, 32, 32, 32)
    with torch.no_grad():
        assert torch.equal(module.eval()(x), again.eval()(x))


@pytest.mark.parametrize("shape", [(32, 32, 32), (48, 40, 63), (33, 64, 33)])
def test_any_volume_of_at_least_32_a_side_gives_one_distribution(shape: tuple[int, int, int]) -> None:
    module = SFCN(bins=7, shape=shape, norm="group", width=8).eval()
    with torch.no_grad():
        q = module(torch.rand(2, 1, *shape)).exp()
    assert q.shape == (2, 7)
    torch.testing.assert_close(q.sum(dim=1), torch.ones(2))


def test_with_group_norm_a_patient_is_predicted_alike_in_any_batch() -> None:
    module = SFCN(bins=5, shape=(32, 32, 32), norm="group", width=8)
    module.classifier.dropout.p = 0.0
    x = torch.rand(3, 1, 32, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(module.train()(x)[:1], module.train()(x[:1]), rtol=1e-4, atol=1e-5)
