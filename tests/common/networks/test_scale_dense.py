"""ScaleDense and TSAN's two networks: published sizes and shapes, and a first stage that nothing changes."""

import pytest
import torch
from torch import nn

from fedage.common.networks.arrays import network_of, outline, shapes_of, state_to_arrays
from fedage.common.networks.roles import roles_of
from fedage.common.networks.scale_dense import (
    FirstStage,
    ScaleBlock,
    ScaleDense,
    SecondStage,
    frozen_arrays,
    initialise,
    rounded_half_up,
)

SHAPE = (16, 18, 14)


def first(**options) -> FirstStage:
    return FirstStage(**{"width": 8, "blocks": 1, "sex": True, **options})


def second(**options) -> SecondStage:
    return SecondStage(first(), **{"width": 8, "blocks": 1, "sex": True, "step_years": 5.0, **options})


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_published_sizes() -> None:
    whole = outline(lambda: first(blocks=5))
    assert parameters(whole) == 102_377_762
    following = outline(lambda: SecondStage(first(blocks=5), width=8, blocks=5, sex=True, step_years=5.0))
    assert parameters(following) == 102_378_610
    trunk = outline(lambda: ScaleDense(width=8, blocks=5))
    assert parameters(trunk.stem) == 2_752
    assert [parameters(block) for block in trunk.blocks] == [14_193, 125_715, 1_125_369, 10_110_123, 90_936_513]
    assert parameters(whole) - parameters(outline(lambda: first(blocks=5, sex=False))) == 184 + 8 * 16


def test_the_published_shapes_of_a_full_volume() -> None:
    trunk = ScaleDense(width=8, blocks=2).eval()
    with torch.no_grad():
        x = trunk.stem(torch.rand(1, 1, 91, 109, 91))
        assert x.shape == (1, 8, 81, 99, 81)
        for block, expected in zip(trunk.blocks, [(24, 40, 49, 40), (72, 20, 24, 20)], strict=True):
            x = block(x)
            assert x.shape == (1, *expected)
    assert outline(lambda: ScaleDense(width=8, blocks=5)).channels == 1944


def test_a_block_keeps_what_came_beside_what_it_learns() -> None:
    block, x = ScaleBlock(8).eval(), torch.randn(2, 8, 4, 6, 4)
    with torch.no_grad():
        y = block(x)
    assert torch.equal(y[:, :8], nn.functional.max_pool3d(x, 2))
    assert y.shape == (2, 24, 2, 3, 2)


@pytest.mark.parametrize(
    ("years", "rounded"), [(62.4, 60.0), (62.5, 65.0), (67.5, 70.0), (2.49, 0.0), (2.5, 5.0), (0.0, 0.0)]
)
def test_an_age_is_rounded_half_up(years: float, rounded: float) -> None:
    assert rounded_half_up(torch.tensor([years]), 5.0).item() == rounded


def test_the_first_stage_predicts_no_age_below_zero_and_begins_at_its_bias() -> None:
    torch.manual_seed(0)
    x, sex = torch.rand(3, 1, *SHAPE), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    module = first(first_age_years=45.0).eval()
    with torch.no_grad():
        assert module(x, sex).mean().item() == pytest.approx(45.0, abs=10)
        module.head.last[-1].bias.fill_(-500.0)
        assert module(x, sex).tolist() == [0.0, 0.0, 0.0]


def test_the_second_stage_adds_to_the_rounded_age_of_the_first() -> None:
    torch.manual_seed(1)
    x, sex = torch.rand(4, 1, *SHAPE), torch.tensor([[1.0, 0.0]] * 4)
    trained = first(first_age_years=52.0)
    module = SecondStage(trained, width=8, blocks=1, sex=True, step_years=5.0).eval()
    with torch.no_grad():
        before = rounded_half_up(trained.eval()(x, sex), 5.0)
        for parameter in module.head.last[-1].parameters():
            parameter.zero_()
        assert torch.equal(module(x, sex), before)
        module.head.last[-1].bias.fill_(-1.5)
        assert torch.equal(module(x, sex), before - 1.5)


def test_the_frozen_stage_is_changed_by_no_step_and_looks_at_no_batch() -> None:
    torch.manual_seed(2)
    module = second().train()
    roles = roles_of(module)
    assert set(roles.fixed) == {name for name in shapes_of(module) if name.startswith("first.")}
    assert not any(name.startswith("first.") for name in roles.moving)
    x, sex = torch.rand(4, 1, *SHAPE), torch.tensor([[0.0, 1.0]] * 4)
    alone = torch.cat([module.first(x[k : k + 1], sex[k : k + 1]) for k in range(4)])
    assert torch.allclose(module.first(x, sex), alone, atol=1e-4)
    kept = {name: module.state_dict()[name].clone() for name in roles.fixed}
    module(x, sex).square().mean().backward()
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    assert all(torch.equal(module.state_dict()[name], array) for name, array in kept.items())


def test_the_second_stage_travels_whole() -> None:
    torch.manual_seed(3)
    module, x = second().eval(), torch.rand(2, 1, *SHAPE)
    sex = torch.tensor([[1.0, 0.0]] * 2)
    again = network_of(second, state_to_arrays(module)).eval()
    with torch.no_grad():
        assert torch.equal(module(x, sex), again(x, sex))
    trained = first()
    named = frozen_arrays(state_to_arrays(trained), prefix="first")
    assert set(named) == set(roles_of(module).fixed)


def test_the_published_initialisation() -> None:
    torch.manual_seed(4)
    conv, linear = nn.Conv3d(16, 64, 3), nn.Linear(300, 100)
    for module in (conv, linear):
        initialise(module)
        assert not module.bias.any()
    assert conv.weight.std().item() == pytest.approx((2 / (16 * 27)) ** 0.5, rel=0.03)
    assert linear.weight.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.03)
