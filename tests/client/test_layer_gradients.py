"""Gradients at the layers: those of each patient alone, whatever the network; other engines where they are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fedage.client.compute.patient_gradients import ClippedGradients
from fedage.common import estimators
from fedage.common.estimators.base import Batch, RoundsPhase

CPU = torch.device("cpu")


class Twice(nn.Module):
    """One layer used twice, and one whose weight is another's too."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6, bias=False), nn.Linear(6, 1)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.c(self.b(self.a(torch.tanh(self.a(x))))))


class Beside(nn.Module):
    """A layer whose weight is used without its forward step."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.b(functional.linear(x, self.a.weight).relu_()))


class Folded(nn.Module):
    """Two views of a row, put into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.b(self.a(x.reshape(-1, 3)).relu_()).reshape(len(x), 2).sum(1, keepdim=True))


class Bare(nn.Module):
    """A parameter of no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.scale = nn.Linear(6, 1), nn.Parameter(torch.ones(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.a(x * self.scale))


def _convolutions(axes: int, **options: Any) -> nn.Module:
    kind: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    return nn.Sequential(
        kind(1, 8, 3, stride=2, padding=1),
        nn.GroupNorm(2, 8),
        nn.ReLU(inplace=True),
        kind(8, 8, 3, bias=False, **options),
        nn.GroupNorm(1, 8),
        nn.Flatten(),
        nn.LazyLinear(1),
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "1D": (lambda: _convolutions(1), (1, 33)),
    "2D, dilated": (lambda: _convolutions(2, padding=2, dilation=2), (1, 30, 28)),
    "2D, by channel": (lambda: _convolutions(2, padding=1, groups=8), (1, 18, 12)),
    "3D": (lambda: _convolutions(3, padding=(1, 0, 1)), (1, 12, 11, 10)),
    "layer norm": (lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 1)), (6,)),
    "tokens": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 2), nn.Flatten(), nn.Linear(10, 1)),
        (5, 6),
    ),
    "twice": (Twice, (6,)),
    "beside": (Beside, (6,)),
    "folded": (Folded, (6,)),
    "bare": (Bare, (6,)),
}
OTHERWISE = {"beside", "folded", "bare"}


@dataclass(frozen=True)
class Of:
    network: str

    def build(self) -> nn.Module:
        make, shape = NETWORKS[self.network]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            module = make()
            with torch.no_grad():
                module(torch.randn(2, *shape))
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=0.3)
        return module.train()

    def output(self, module: nn.Module, batch: Batch) -> Any:
        return {"age": module(batch.inputs["x"]).squeeze(1)}

    def loss(self, output: Any, batch: Batch) -> torch.Tensor:
        # As losses with missing targets are: a mean over those who have one, so that it is no mean of the rows'.
        known = torch.isfinite(batch.targets["age_years"])
        error = torch.where(known, output["age"] - batch.targets["age_years"].nan_to_num(0.0), 0.0)
        return torch.as_tensor(error.square().sum() / known.sum().clamp(min=1))


def batch_of(x: torch.Tensor, *, name: str = "x") -> Batch:
    ages = 10 * torch.from_numpy(np.random.default_rng(1).normal(size=len(x))).float()
    if name == "x":
        ages[2] = torch.nan
    return Batch({name: x}, {name: torch.ones(len(x), dtype=torch.bool)}, {"age_years": ages})


def summed(
    phase: Any, module: nn.Module, batch: Batch, patients: list[int], *, clip: float, **engine: bool
) -> tuple[np.ndarray, bool | None]:
    gradients = ClippedGradients(phase, module, clip_norm=clip, where=CPU)
    vars(gradients).update({f"_{name}": value for name, value in engine.items()})
    total = gradients.zeros()
    gradients.add(total, batch, np.array(patients, dtype=np.intp))
    return torch.cat([total[name].ravel() for name in sorted(total)]).numpy(), gradients._by_layer


@pytest.mark.parametrize("network", list(NETWORKS))
@pytest.mark.parametrize("patients", [[0, 1, 2, 3, 4], [0, 0, 0, 0, 0], [0, 0, 1, 1, 2]])
@pytest.mark.parametrize("clip", [0.5, 1e9])
def test_they_are_those_of_one_patient_at_a_time(network: str, patients: list[int], clip: float) -> None:
    phase = Of(network)
    batch = batch_of(torch.from_numpy(np.random.default_rng(0).normal(size=(5, *NETWORKS[network][1]))).float())
    if len(set(patients)) < 5:  # the mean of a patient's rows is taken over those that tell an age by one engine only
        batch.targets["age_years"][2] = 3.0
    slow, _ = summed(phase, phase.build(), batch, patients, clip=clip, by_layer=False, by_row=False)
    fast, by_layer = summed(phase, phase.build(), batch, patients, clip=clip)
    assert by_layer is (network not in OTHERWISE)
    np.testing.assert_allclose(fast, slow, rtol=1e-5, atol=1e-5 * np.abs(slow).max())
    if clip < 1:
        assert np.linalg.norm(fast) <= clip * len(set(patients))


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("network", ["2D, dilated", "3D", "tokens", "twice"])
def test_a_patient_adds_at_most_the_clip_norm_with_one_exam_and_with_five(network: str, count: int) -> None:
    phase = Of(network)
    batch = batch_of(30 * torch.from_numpy(np.random.default_rng(0).normal(size=(5, *NETWORKS[network][1]))).float())
    batch = Batch(
        *({k: one[:count] for k, one in part.items()} for part in (batch.inputs, batch.present, batch.targets))
    )
    made, _ = summed(phase, phase.build(), batch, [0] * count, clip=0.5, by_layer=True)
    assert 0.5 * (1 - 1e-5) < np.linalg.norm(made) <= 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "image", "shape"),
    [
        ("chest-ca", {"image_size": 64, "width": 8}, "image", (1, 64, 64)),
        ("brain-sfcn", {"norm": "group", "shape": [32] * 3, "width": 8, "poolings": 3}, "t1w", (1, 32, 32, 32)),
    ],
)
def test_our_networks_are_taken_at_the_layers(
    name: str, options: dict[str, Any], image: str, shape: tuple[int, ...]
) -> None:
    estimator = estimators.make(name, options)
    phase = next(one for one in estimator.phases if isinstance(one, RoundsPhase))
    module = phase.build(seed=1).eval()  # no dropout, which draws anew each time
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, *shape))).float()
    batch = batch_of(x, name=image)
    batch.targets["age_years"][:] = 50 + batch.targets["age_years"]
    slow, _ = summed(phase, module, batch, [0, 1, 2], clip=1.0, by_layer=False, by_row=False)
    fast, by_layer = summed(phase, module, batch, [0, 1, 2], clip=1.0)
    assert by_layer is True
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-5 * np.abs(slow).max())


def test_a_network_that_mixes_rows_is_not_taken_at_the_layers() -> None:
    class Mixing(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x - x.mean(dim=0))

    for mixing in (Mixing(6, 1), nn.Sequential(nn.Linear(6, 6), nn.Softmax(dim=0), nn.Linear(6, 1))):
        NETWORKS["mixing"] = (lambda mixing=mixing: mixing, (6,))  # type: ignore[misc]
        try:
            x = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 6))).float()
            assert summed(Of("mixing"), Of("mixing").build(), batch_of(x), [0, 1, 2, 3, 4], clip=1.0)[1] is False
        finally:
            del NETWORKS["mixing"]
