import pytest
import torch

from fedage.common.networks.norm import norm_layer
from fedage.common.networks.resnet import ResNet18


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_parameter_count_is_resnet_18_plus_eight_attentions(norm):
    # The published 11,689,512, less the 1000-class head and two of three input channels, plus our head of one output.
    body = 11_689_512 - (512 * 1000 + 1000) - 2 * 64 * 49 + 513
    # C channels squeezed to m: F₁ Cm + m, norm 2m, two of mC + C; two blocks a stage.
    attention = 2 * sum(c * m + m + 2 * m + 2 * (m * c + c) for c, m in [(64, 8), (128, 8), (256, 8), (512, 16)])
    assert body + attention == 11_245_489
    assert _count(ResNet18(norm=norm)) == 11_245_489


def test_halves_five_times():
    network = ResNet18(norm="group", width=8).eval()
    assert network.stages(network.stem(torch.randn(1, 1, 96, 64))).shape == (1, 64, 3, 2)
    assert network(torch.randn(3, 1, 64, 64)).shape == (3, 1)


@pytest.mark.parametrize(("channels", "groups"), [(8, 1), (64, 8), (128, 16), (256, 32), (512, 32)])
def test_groups(channels, groups):
    assert norm_layer(channels, norm="group").num_groups == groups


@pytest.mark.parametrize("channels", [4, 12, 264])
def test_group_norm_refuses_channels_that_do_not_fill_its_groups(channels):
    with pytest.raises(ValueError, match="multiple of 8"):
        norm_layer(channels, norm="group")


def test_group_norm_makes_a_prediction_independent_of_its_batch_and_batch_norm_does_not():
    torch.manual_seed(0)
    x = torch.randn(4, 1, 64, 64)
    alone_differs = {}
    for norm in ("group", "batch"):
        network = ResNet18(norm=norm, width=8).train()
        alone_differs[norm] = not torch.allclose(network(x)[:2], network(x[:2]), atol=1e-6)
    assert alone_differs == {"group": False, "batch": True}
