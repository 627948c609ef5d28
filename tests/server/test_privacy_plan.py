"""What `fedage campaign privacy` says before anything is spent is what the sites will charge."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedage.common.campaign_file import parse_campaign
from fedage.common.errors import FedAgeError
from fedage.common.estimators.configure import phases_known
from fedage.common.estimators.private_training import mechanism_of, noise_of_validation
from fedage.common.privacy.accountant import epsilon
from fedage.server.cli.main import campaign as commands
from fedage.server.cli.privacy_plan import privacy_plan
from tests.deploy.test_simulate_private import FILE
from tests.deploy.test_simulate_private_ridge import FILE as RIDGE

TEXT = FILE + "epsilon = 3.0\n"


def line_of(lines: list[str], patients: int) -> str:
    return next(line for line in lines if line.startswith(f"{patients} patients"))


def test_noise_epsilon_and_what_is_left_are_those_of_the_site() -> None:
    campaign = parse_campaign(TEXT)
    lines = list(privacy_plan(campaign, patients=(100, 1000), features=3, budget=4.0))
    for patients in (100, 1000):
        made = mechanism_of(campaign, phases_known(campaign), patients=round(0.7 * patients))
        said = line_of(lines, patients)
        assert f"an update of {round(0.7 * patients)}," in said
        assert f"noise multiplier {made.noise_multiplier:.4g}" in said
        assert f"{epsilon([made], delta=1e-5):.3g} after 1, " in said
        assert f"{epsilon([made] * 3, delta=1e-5):.3g} after 3" in said
        validation = noise_of_validation(campaign, phases_known(campaign), patients=patients)
        assert validation is not None
        spent = epsilon([*[made] * 3, *validation.together], delta=1e-5)
        assert f"of a budget of 4 {4 - spent:.3g} would be left" in said
        assert f"With validation errors and bias line ε {spent:.3g}" in lines[lines.index(said) + 1]
    assert "has 21 learnt parameters" in lines[1]  # 3 × 4 + 4, 4 + 1


def test_a_budget_that_is_too_small_says_when_it_will_refuse() -> None:
    said = line_of(list(privacy_plan(parse_campaign(TEXT), patients=(100,), budget=2.0)), 100)
    assert "would refuse it after 1 trainings" in said


def test_a_site_without_training_patients_and_a_site_too_small_are_told() -> None:
    lines = list(privacy_plan(parse_campaign(TEXT), patients=(0, 10), features=3000))
    assert lines[2] == "0 patients: none to train on."
    assert "cannot teach the model" in lines[4]


@pytest.mark.parametrize(
    ("more", "models", "left"),
    [("", 1, "would be left"), ("[validation]\nfolds = 4\n", 4, "would be left"), ("", 1, "refuse it after 0 models")],
)
def test_sums_with_noise_cost_what_the_sites_will_charge(more: str, models: int, left: str) -> None:
    campaign = parse_campaign(RIDGE + "epsilon = 2.0\n" + more)
    lines = list(privacy_plan(campaign, patients=(0, 100, 2000), features=8, budget=1.0 if "refuse" in left else 3.0))
    made = mechanism_of(campaign, phases_known(campaign), patients=100)
    assert f"Noise multiplier {made.noise_multiplier:.4g}" in lines[1]
    assert f"{epsilon([made] * models, delta=1e-5):.3g} after {models}" in lines[1]
    assert left in lines[1]
    trained = round(0.7 * 2000) if not more else 1500
    assert f"2000 patients: sums of {trained}; noise {made.noise_multiplier * 4 / trained:.3g} of" in "\n".join(lines)


def test_a_campaign_that_spends_nothing_is_refused_with_the_mend() -> None:
    plain = TEXT.partition("[privacy]")[0]
    with pytest.raises(FedAgeError, match="set privacy"):
        list(privacy_plan(parse_campaign(plain)))


def test_the_command_reads_the_file(tmp_path: Path) -> None:
    file = tmp_path / "campaign.toml"
    file.write_text(TEXT, encoding="utf-8")
    done = CliRunner().invoke(commands, ["privacy", str(file), "--patients", "300", "--features", "3"])
    assert done.exit_code == 0
    assert "300 patients: an update of 210" in done.output
