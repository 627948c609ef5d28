"""The arithmetic of bounded steps: hand-computed norms, and what clipping keeps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.estimators.configure import step_limits
from fedage.common.networks.arrays import state_to_arrays
from fedage.common.networks.roles import ArrayRoles, roles_of
from fedage.common.networks.steps import RUNNING_STEP, StepLimits, StepTooLong, clipped_step, learnt_norm, step_between

ROLES = ArrayRoles(learnt=("w", "b"), running=(("m", "v"),), fixed=("f",))
LIMITS = StepLimits(step_norm=5.0, path_norm=20.0)


def model(w: float = 0.0, b: float = 0.0, m: float = 0.0, v: float = 1.0, f: float = 7.0) -> dict[str, np.ndarray]:
    values = {"w": w, "b": b, "m": m, "v": v, "f": f}
    return {name: np.array([value], dtype=np.float32) for name, value in values.items()}


def test_the_norm_is_over_all_parameters_jointly() -> None:
    change = {name: array - model()[name] for name, array in model(3.0, 4.0, 100.0, 50.0).items()}
    assert learnt_norm(change, ROLES) == 5.0
    assert step_between(model(), model(3.0, 4.0), ROLES, limits=LIMITS) == 5.0


@pytest.mark.parametrize(
    ("after", "rounds", "rule"),
    [
        (model(3.01, 4.01), 1, "model-step"),
        (model(6.01, 8.01), 2, "model-step"),
        (model(3e38, 0.0), 1, "model-step"),
        (model(m=RUNNING_STEP * 1.01), 1, "running-statistics"),
        (model(v=math.exp(RUNNING_STEP * 1.01)), 1, "running-statistics"),
        (model(v=-1.0), 9, "running-statistics"),
        (model(f=np.nextafter(np.float32(7), np.float32(8))), 9, "fixed-arrays"),
        (model(w=np.nan), 1, "model-step"),
    ],
)
def test_a_step_beyond_a_bound_is_named(after: dict[str, np.ndarray], rounds: int, rule: str) -> None:
    with pytest.raises(StepTooLong) as refused:
        step_between(model(), after, ROLES, limits=LIMITS, rounds=rounds)
    assert refused.value.rule == rule


def test_missed_rounds_add_their_steps() -> None:
    for rounds in (2, 3, 7):
        reached = model(3.0 * rounds, 4.0 * rounds, RUNNING_STEP * rounds * 0.9)
        assert step_between(model(), reached, ROLES, limits=LIMITS, rounds=rounds) == pytest.approx(5.0 * rounds)


def test_clipping_scales_parameters_together_and_leaves_what_is_within() -> None:
    change = {name: array - model()[name] for name, array in model(30.0, 40.0, 1.0, 2.0).items()}
    within = clipped_step(model(), change, ROLES, step_norm=5.0)
    assert (within["w"][0], within["b"][0]) == (3.0, 4.0)
    assert within["m"] is change["m"]
    assert within["v"] is change["v"]
    small = {name: array * np.float32(0.1) for name, array in change.items()}
    assert all(clipped_step(model(), small, ROLES, step_norm=5.0)[name] is small[name] for name in ROLES.moving)


@pytest.mark.parametrize(("m", "v"), [(1e6, 1.0), (0.0, 1e12), (0.0, -0.999999), (-1e30, 1e30), (50.0, -0.5)])
def test_clipped_running_statistics_are_a_step_that_is_allowed(m: float, v: float) -> None:
    change = {name: np.zeros(1, dtype=np.float32) for name in "wbmvf"}
    change |= {"m": np.array([m], dtype=np.float32), "v": np.array([v], dtype=np.float32)}
    within = clipped_step(model(), change, ROLES, step_norm=5.0)
    after = {name: model()[name].astype(np.float64) + within[name] for name in within}
    step_between(model(), after, ROLES, limits=LIMITS)


def test_a_networks_arrays_have_one_role_each() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm, self.group = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.GroupNorm(2, 4)
            self.register_buffer("means", torch.zeros(3))

    net = Net()
    found = roles_of(net)
    assert found.running == (("norm.running_mean", "norm.running_var"),)
    assert found.fixed == ("means",)
    assert sorted((*found.moving, *found.fixed)) == sorted(state_to_arrays(net))
    assert ArrayRoles.from_json(found.to_json()) == found


FILE = """
[campaign]
name = "norms"
purpose = "Say how far a model may move in a round"
seed = 1
[estimator]
name = "chest-ca"
[training]
rounds = 16
"""


def test_the_file_says_how_far_or_the_estimator_does() -> None:
    assert step_limits(parse_campaign(FILE)) == StepLimits(step_norm=50.0, path_norm=200.0)
    said = parse_campaign(FILE + "max_step_norm = 2.5\n")
    assert step_limits(said) == StepLimits(step_norm=2.5, path_norm=10.0)
    both = parse_campaign(FILE + "max_step_norm = 2.5\nmax_path_norm = 3\n")
    assert step_limits(both) == StepLimits(step_norm=2.5, path_norm=3.0)


@pytest.mark.parametrize("rounds", [1, 16, 17, 60, 10_000])
@pytest.mark.parametrize(("name", "step", "path"), [("chest-ca", 50.0, 200.0), ("table-mlp", 1.0, 8.0)])
def test_no_number_of_rounds_allows_more_than_the_estimator_states(
    name: str, step: float, path: float, rounds: int
) -> None:
    table = '[table]\nage = "age"\n[estimator.options]\nfeatures = ["*"]\n' if name == "table-mlp" else ""
    text = FILE.replace('"chest-ca"\n', f'"{name}"\n{table}').replace("rounds = 16", f"rounds = {rounds}")
    assert step_limits(parse_campaign(text)) == StepLimits(step, min(path, math.sqrt(rounds) * step))
    most = parse_campaign(text + f"max_step_norm = {step}\nmax_path_norm = {path}\n")
    assert step_limits(most) == StepLimits(step, path)
    for line in (f"max_step_norm = {step * 1.001}", f"max_step_norm = {step * 10}", f"max_path_norm = {path * 1.001}"):
        with pytest.raises(CampaignErrors, match=r"must be ≤ .* single patients out; lower it, or leave it out"):
            parse_campaign(text + line + "\n")


def test_a_campaign_that_was_not_parsed_moves_no_further() -> None:
    campaign = parse_campaign(FILE)
    assert campaign.training is not None
    for step, path in ((500.0, 1e5), (None, 1e6), (1e6, None)):
        training = campaign.training.model_copy(update={"max_step_norm": step, "max_path_norm": path})
        assert step_limits(campaign.model_copy(update={"training": training})) == StepLimits(50.0, 200.0)


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ("max_step_norm = 0", "training.max_step_norm"),
        ("max_step_norm = -1.0", "training.max_step_norm"),
        ("max_step_norm = inf", "training.max_step_norm"),
        ("max_step_norm = 50.1", "training.max_step_norm"),
        ("max_step_norm = 500.0", "training.max_step_norm"),
        ("max_path_norm = 200.1", "training.max_path_norm"),
        ("max_path_norm = 1e5", "training.max_path_norm"),
        ("max_step_norm = 50.0\nmax_path_norm = 1e6", "training.max_path_norm"),
        ('max_path_norm = "auto"', "training.max_path_norm"),
        ("max_step_norm = 5.0\nmax_path_norm = 4.0", "training.max_path_norm"),
    ],
)
def test_a_norm_that_is_none_is_a_mistake_with_its_mend(lines: str, key: str) -> None:
    with pytest.raises(CampaignErrors) as errors:
        parse_campaign(FILE + lines + "\n")
    (problem,) = errors.value.problems
    assert problem.key == key
    assert key in problem.message
