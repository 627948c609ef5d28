import math

import pytest
import torch

from fedage.common.networks.coordinate_attention import CoordinateAttention


def _constant(module: CoordinateAttention, *, bias_rows: float, bias_columns: float) -> CoordinateAttention:
    """Zero weights: the gates are the sigmoids of their biases whatever the input."""
    for parameter in module.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.constant_(module.rows.bias, bias_rows)
    torch.nn.init.constant_(module.columns.bias, bias_columns)
    return module


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize(("channels", "squeezed"), [(8, 8), (64, 8), (256, 8), (512, 16)])
def test_keeps_the_shape_and_squeezes_to_a_32nd_but_never_below_8(norm, channels, squeezed):
    module = CoordinateAttention(channels, norm=norm)
    assert module(torch.randn(2, channels, 5, 3)).shape == (2, channels, 5, 3)
    assert module.squeeze.out_channels == squeezed


def test_open_gates_change_nothing_and_half_open_ones_quarter():
    x = torch.randn(2, 8, 4, 6)
    opened = _constant(CoordinateAttention(8, norm="group"), bias_rows=100.0, bias_columns=100.0)
    torch.testing.assert_close(opened(x), x)
    half = _constant(CoordinateAttention(8, norm="group"), bias_rows=0.0, bias_columns=0.0)
    torch.testing.assert_close(half(x), x / 4)


def test_hand_computed_gates():
    # One channel is not zero, the norm is the identity (batch, evaluation), all weights are 1 on channel 0 only.
    # x = [[1, 3], [5, 7]]: row means 2 and 6, column means 3 and 5; h-swish(2) = 2·5/6, (3) = 3, (5) = 5, (6) = 6.
    module = _constant(CoordinateAttention(8, norm="batch"), bias_rows=0.0, bias_columns=0.0).eval()
    torch.nn.init.ones_(module.norm.weight)
    module.norm.eps = 0.0
    with torch.no_grad():
        module.squeeze.weight[0, 0] = 1.0
        module.rows.weight[0, 0] = 1.0
        module.columns.weight[0, 0] = -1.0
    x = torch.zeros(1, 8, 2, 2)
    x[0, 0] = torch.tensor([[1.0, 3.0], [5.0, 7.0]])

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    rows, columns = (sigmoid(2 * 5 / 6), sigmoid(6.0)), (sigmoid(-3.0), sigmoid(-5.0))
    expected = [
        [1 * rows[0] * columns[0], 3 * rows[0] * columns[1]],
        [5 * rows[1] * columns[0], 7 * rows[1] * columns[1]],
    ]
    torch.testing.assert_close(module(x)[0, 0], torch.tensor(expected))
    assert not module(x)[0, 1:].any()


def test_transposing_the_image_is_exchanging_the_two_gates():
    torch.manual_seed(3)
    module = CoordinateAttention(16, norm="group")
    x = torch.randn(2, 16, 4, 7)
    expected = module(x).transpose(2, 3)
    module.rows, module.columns = module.columns, module.rows
    torch.testing.assert_close(module(x.transpose(2, 3)), expected)
