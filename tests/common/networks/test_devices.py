"""Memory layouts by rank, and copies that leave the samples alone. What only a GPU does is skipped without one."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fedage.common.networks.devices import in_layout, lay_out, placed, to_device

CPU = torch.device("cpu")
SHAPES = [(6,), (2, 6), (2, 3, 6), (2, 3, 4, 6), (2, 3, 4, 5, 6), (2, 3, 4, 5, 6, 2)]
STRIDES = [(1,), (6, 1), (18, 6, 1), (72, 1, 18, 3), (360, 1, 90, 18, 3), (720, 240, 60, 12, 2, 1)]
"""Of channels last where the rank is 4 or 5, else of rows: channels, the second axis of 3, have stride 1."""


def numbered(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.arange(float(np.prod(shape))).reshape(shape)


@pytest.mark.parametrize(("shape", "strides"), list(zip(SHAPES, STRIDES, strict=True)), ids=str)
def test_channels_are_last_of_images_and_volumes_and_of_nothing_else(shape, strides):
    tensor = numbered(shape)
    laid = in_layout(tensor)
    assert laid.stride() == strides
    assert torch.equal(laid, tensor)
    assert in_layout(laid) is laid


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (nn.Sequential(nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8)), SHAPES[2]),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), SHAPES[3]),
        (nn.Sequential(nn.Conv3d(3, 8, 3), nn.GroupNorm(2, 8)), SHAPES[4]),
        (nn.Sequential(nn.Linear(6, 8), nn.ReLU()), SHAPES[1]),
    ],
    ids=["rank 3", "rank 4", "rank 5", "rank 2"],
)
def test_a_network_of_any_rank_computes_and_learns_the_same_in_its_layout(network, shape):
    # In double precision: the gradient of a bias before a norm is zero but for rounding, which a layout changes.
    network = copy.deepcopy(network).double()
    batch, plain = numbered(shape).double() / 100, network
    plain(batch).square().mean().backward()
    expected = [parameter.grad.clone() for parameter in plain.parameters()]
    network.zero_grad()
    lay_out(network)
    for parameter in network.parameters():
        assert parameter.stride() == in_layout(parameter.detach()).stride()
    network(in_layout(batch)).square().mean().backward()
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_on_the_cpu_an_array_is_copied_as_it_lies(shape):
    array = numbered(shape).numpy()
    array.flags.writeable = False
    tensor = to_device(array, CPU)
    assert tensor.is_contiguous()
    tensor.add_(1)
    assert np.array_equal(array, numbered(shape).numpy())


def test_on_the_cpu_a_network_keeps_its_layout():
    network = nn.Conv2d(3, 8, 3)
    assert placed(network, CPU).weight.is_contiguous()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize(("shape", "strides"), list(zip(SHAPES, STRIDES, strict=True)), ids=str)
def test_on_a_gpu_an_array_comes_in_its_layout(shape, strides):
    tensor = to_device(numbered(shape).numpy(), torch.device("cuda"))
    assert tensor.stride() == strides
    assert torch.equal(tensor.cpu(), numbered(shape))
