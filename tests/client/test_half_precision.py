"""Training in float16 with scaled losses, held against float32, on the CPU: the same steps as on a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedage.client.compute.corrections import ControlTerm
from fedage.client.compute.optimiser_steps import Steps
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.estimators.base import Batch
from fedage.common.networks.devices import device_text, gradient_scaler, layers_dtype, site_device_text
from tests.client.hospital import CAMPAIGN

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Phase:
    """A line; its loss is multiplied, so that gradients are as small or as large as wanted."""

    factor: float = 1.0
    couples_samples: bool = False

    def training_batch(self, batch: Batch, **_: object) -> Batch:
        return batch

    def output(self, module: nn.Module, batch: Batch) -> Any:
        return module(batch.inputs["row"])

    def loss(self, output: Any, batch: Batch) -> Any:
        return self.factor * (output[:, 0] - batch.targets["age_years"]).square().mean()


def trained(
    dtype: torch.dtype, *, factor: float = 1.0, parts: int = 1, control: float = 0.0, steps: int = 5
) -> tuple[np.ndarray, Steps, list[float]]:
    torch.manual_seed(0)
    module = nn.Linear(3, 1)
    made = Steps(
        phase=Phase(factor),  # type: ignore[arg-type]
        module=module,
        optimiser=torch.optim.SGD(module.parameters(), lr=0.01 / factor),
        where=CPU,
        generator=torch.Generator(),
        pull=ControlTerm.of(module, {"weight": np.full((1, 3), factor * control, np.float32)}) if control else None,
        scaler=gradient_scaler(CPU, dtype),
        dtype=dtype,
        parts=parts,
    )
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(8, 3)).astype(np.float32), rng.normal(size=8).astype(np.float32)
    batch = Batch({"row": torch.from_numpy(x)}, {}, {"age_years": torch.from_numpy(y)})
    losses = [made.step(batch) for _ in range(steps)]
    return module.weight.detach().numpy().copy(), made, losses


@pytest.mark.parametrize(("factor", "parts", "control"), [(1.0, 1, 0.0), (1e-7, 1, 0.0), (1.0, 3, 0.5), (1e-6, 2, 1.0)])
def test_float16_trains_as_float32_does_also_where_gradients_are_too_small_for_it(
    factor: float, parts: int, control: float
) -> None:
    half, _, losses = trained(torch.float16, factor=factor, parts=parts, control=control)
    single, _, expected = trained(torch.float32, factor=factor, parts=parts, control=control)
    np.testing.assert_allclose(half, single, rtol=2e-2, atol=2e-3)
    np.testing.assert_allclose(losses, expected, rtol=2e-2)
    assert losses[-1] < losses[0] or control


@pytest.mark.parametrize("factor", [1e2, 1e3, 1e4])
def test_a_batch_whose_scaled_gradients_are_too_large_is_taken_with_a_smaller_scale(factor: float) -> None:
    half, steps, losses = trained(torch.float16, factor=factor)
    single, _, _ = trained(torch.float32, factor=factor)
    assert steps.scaler.get_scale() < 65536
    np.testing.assert_allclose(half, single, rtol=2e-2, atol=2e-3)  # so none of the five steps is missing
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("factor", [1e9, 1e20, float("nan")])
def test_a_training_that_diverges_says_so(factor: float) -> None:
    _, _, losses = trained(torch.float16, factor=factor, steps=1)
    assert not np.isfinite(losses).any()


@pytest.mark.parametrize("precision", ["auto", "bfloat16", "float16", "float32"])
def test_a_cpu_computes_in_float32_and_a_gpu_as_the_file_says(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = parse_campaign(CAMPAIGN.replace("rounds = 2", f'rounds = 2\nprecision = "{precision}"'))
    assert campaign.training is not None
    assert layers_dtype(CPU, campaign.training.precision) is torch.float32
    assert not gradient_scaler(CPU, layers_dtype(CPU, precision)).is_enabled()
    for has_bfloat16 in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bfloat16)  # noqa: B023 - called at once
        named = precision if precision != "auto" else "bfloat16" if has_bfloat16 else "float16"
        assert layers_dtype(torch.device("cuda"), precision) is getattr(torch, named)


@pytest.mark.parametrize("precision", ["float64", "half", ""])
def test_another_precision_is_refused(precision: str) -> None:
    with pytest.raises(CampaignErrors, match=r"training\.precision"):
        parse_campaign(CAMPAIGN.replace("rounds = 2", f'rounds = 2\nprecision = "{precision}"'))


def test_a_fall_back_to_the_cpu_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert site_device_text("auto") == "networks are computed on the CPU: torch finds no GPU here"
    assert site_device_text("cpu") == "networks are computed on the CPU, as site.toml says"
    assert "cannot be computed: torch finds no GPU here" in site_device_text("cuda")
    assert device_text("auto", precision="auto") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _where: "A" * 70)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert site_device_text("auto") == f"networks are computed on cuda ({'A' * 50}, float16)"
