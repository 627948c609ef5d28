"""3D encoders: the published parameter counts and shapes, and that other sizes work."""

import pytest
import torch
from torch import nn

from fedage.common.networks.encoders import ProjectedEncoder


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_resnet18_is_the_published_one() -> None:
    with torch.device("meta"):
        module = ProjectedEncoder("resnet18", dimensions=128, centred=False)
        shapes = []
        for stage in (module.encoder.conv1, module.encoder.maxpool, module.encoder.layer2, module.encoder.layer4):
            stage.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:])))
        assert module(torch.empty(1, 1, 121, 145, 121)).shape == (1, 128)
    assert (count(module.encoder), count(module.projection)) == (33_160_000, 328_320)
    assert shapes == [(64, 61, 73, 61), (64, 31, 37, 31), (128, 16, 19, 16), (512, 4, 5, 4)]


def test_densenet121_is_the_published_one_without_its_head() -> None:
    with torch.device("meta"):
        module = ProjectedEncoder("densenet121", dimensions=128, centred=False)
        assert module(torch.empty(1, 1, 121, 145, 121)).shape == (1, 128)
    assert count(module.encoder) == 11_243_649 - 1_025


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
@pytest.mark.parametrize("shape", [(32, 32, 32), (32, 40, 48)])
def test_small_volumes_and_widths(name, shape) -> None:
    module = ProjectedEncoder(name, dimensions=4, width=8)
    z = module(torch.rand(3, 1, *shape))
    assert z.shape == (3, 4)
    assert torch.isfinite(z).all()
    z.sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "offset"), [("resnet18", 0.0), ("resnet18", 1.0), ("resnet18", 5.0), ("densenet121", 1.0)]
)
def test_patients_of_a_batch_point_in_all_directions_and_without_centring_in_one(name: str, offset: float) -> None:
    torch.manual_seed(0)
    volumes = torch.rand(12, 1, 32, 32, 32) + offset
    volumes *= torch.linspace(0.5, 1.5, 12).view(-1, 1, 1, 1, 1)
    common = {}
    for centred in (True, False):
        torch.manual_seed(1)
        module = ProjectedEncoder(name, dimensions=8, width=8, centred=centred)
        with torch.no_grad():
            unit = torch.nn.functional.normalize(module(volumes), dim=1)
        common[centred] = float(unit.mean(dim=0).norm())
    assert common[True] < 0.5 < common[False]


def test_centring_adds_no_parameter() -> None:
    with torch.device("meta"):
        plain, centred = (ProjectedEncoder("resnet18", dimensions=16, width=8, centred=on) for on in (False, True))
    assert count(plain) == count(centred)
    assert {name for name in centred.state_dict() if name not in plain.state_dict()} == {
        "centring.running_mean",
        "centring.running_var",
        "centring.num_batches_tracked",
    }
