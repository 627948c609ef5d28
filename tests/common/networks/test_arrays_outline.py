"""A network that gets its values from arrays is not initialised before, and is the same network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedage.common import estimators
from fedage.common.networks.arrays import ModelRefused, network_of, outline, state_to_arrays
from fedage.common.networks.roles import roles_of
from tests.of_estimators import network


class WithConstant(nn.Module):
    """A buffer that the state leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.register_buffer("constant", torch.tensor([3.0]), persistent=False)


class LooksAtValues(nn.Module):
    """A constructor that cannot do without values."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.gain = float(self.linear.weight.detach().abs().sum())


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))


@pytest.mark.parametrize("build", [WithConstant, LooksAtValues, Normalised, lambda: nn.Linear(3, 2)])
def test_the_network_is_that_of_its_arrays(build) -> None:
    first = build()
    arrays = {name: array + 0.5 for name, array in state_to_arrays(first).items()}
    made = network_of(build, arrays)
    for name, array in state_to_arrays(made).items():
        np.testing.assert_array_equal(array, arrays[name])
    assert not any(tensor.is_meta for tensor in (*made.parameters(), *made.buffers()))
    assert all(parameter.requires_grad for parameter in made.parameters())
    assert roles_of(outline(build)) == roles_of(first)
    if isinstance(first, WithConstant):
        assert float(made.constant) == 3.0


@pytest.mark.parametrize("options", [{"image_size": 64, "width": 8}, {"image_size": 64, "width": 8, "norm": "batch"}])
def test_a_registered_network_is_outlined_without_a_random_number(options) -> None:
    estimator = network(estimators.make("chest-ca", options))
    arrays = state_to_arrays(estimator.build(seed=3))
    x = torch.ones(2, 1, 64, 64)
    known = estimator.build(seed=3).eval()(x)
    assert all(parameter.is_meta for parameter in outline(lambda: estimator.build(seed=0)).parameters())
    made = network_of(lambda: estimator.build(seed=0), arrays).eval()
    torch.testing.assert_close(made(x), known, rtol=0, atol=0)


@pytest.mark.parametrize("change", ["missing", "unknown", "shape", "nan"])
def test_arrays_of_another_network_are_refused(change: str) -> None:
    arrays = state_to_arrays(nn.Linear(3, 2))
    if change == "missing":
        del arrays["bias"]
    elif change == "unknown":
        arrays["more"] = arrays["bias"]
    elif change == "shape":
        arrays["bias"] = np.zeros(3, dtype=np.float32)
    else:
        arrays["bias"][0] = np.nan
    with pytest.raises(ModelRefused):
        network_of(lambda: nn.Linear(3, 2), arrays)
