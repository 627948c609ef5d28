"""Keys of a strategy belong to that strategy."""

from __future__ import annotations

import pytest

from fedage.common.campaign_file import parse_campaign
from tests.common.campaign.texts import GOOD, messages


@pytest.mark.parametrize(
    ("strategy", "keys"),
    [
        ("fedavg", ""),
        ("fedbn", ""),
        ("fedprox", "proximal = 0.1"),
        ("fedavgm", "server_learning_rate = 0.5\nserver_momentum = 0.5"),
        ("fedadam", "server_learning_rate = 0.05\nserver_beta_1 = 0.8\nserver_beta_2 = 0.9\nserver_tau = 0.01"),
    ],
)
def test_a_strategy_has_its_keys_and_no_others(strategy: str, keys: str) -> None:
    training = parse_campaign(f'{GOOD}strategy = "{strategy}"\n{keys}\n').training
    assert training is not None
    assert training.strategy == strategy
    for key in ("proximal = 0.1", "server_momentum = 0.5", "server_tau = 0.01", "server_learning_rate = 1.0"):
        name = key.partition(" ")[0]
        if name not in keys:
            (found,) = messages(f'{GOOD}strategy = "{strategy}"\n{keys}\n{key}\n')
            assert f"training.{name} = " in found
            assert f'has no effect with training.strategy = "{strategy}"' in found
