"""Training with privacy for whole sites in a simulation: clipped, noised, accounted for, stated in the record."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedage.common import estimators
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.campaign_file._private import privacy_problems
from fedage.common.campaign_file.describe import campaign_sentences
from fedage.common.estimators.configure import phases_known, step_limits, update_limits
from fedage.common.estimators.private_training import site_mechanism
from fedage.common.privacy.accountant import Mechanism, epsilon
from fedage.server.campaign.export import export_bundle
from fedage.server.cli.privacy_plan import privacy_plan
from tests.deploy.test_simulate_private import FILE, run

SITES = (
    FILE.replace('mode = "sample"', 'mode = "client"')
    .replace("clip_norm = 100.0", "clip_norm = 0.05")
    .replace("learning_rate = 0.01", "learning_rate = 0.0001")
)
STATED = 'start = "stated"\nnoise = 0.0\nhidden = [4]\nage_scale = "linear"\nage_range_years = [20, 80]\n'
RANGES = '[estimator.options.ranges]\n"*" = [-3, 3]\n'
TARGET = SITES + "epsilon = 6.0\n"


def test_epsilon_of_each_site_is_that_of_the_rounds_it_took_part_in(tmp_path: Path) -> None:
    done = run(tmp_path, TARGET)
    assert done.results.run.status == "finished"
    for site in done.results.sites:
        privacy = site.privacy
        assert privacy is not None
        assert 5.9 < privacy.epsilon <= 6.0
        assert (privacy.sampling_rate, privacy.steps, privacy.clip_norm) == (1.0, 1, 0.05)
        assert privacy.adjacency == "replace one site's updates by nothing"
        made = Mechanism(sampling_rate=1.0, noise_multiplier=privacy.noise_multiplier, steps=1)
        assert [one.epsilon_by_site[site.name] for one in done.results.rounds] == pytest.approx(
            [epsilon([made] * k, delta=1e-5) for k in (1, 2, 3)]
        )
    # Neither has noise.
    assert all(one.train_loss is None for one in done.results.rounds)
    assert all(one.validation_mae_years is None for one in done.results.rounds[:-1])
    assert any("for each whole site, towards everybody but the coordinator" in note for note in done.results.notes)
    assert any("Outside this guarantee" in note for note in done.results.notes)
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert "for whole sites, towards everybody but the coordinator, who adds the noise" in page
    assert "adding or removing one patient" not in page
    _, description = export_bundle(done.folder, key=Ed25519PrivateKey.generate())
    spent = max(site.privacy.epsilon for site in done.results.sites if site.privacy is not None)
    assert f"for each whole site, towards everybody but the coordinator: ε = {spent:.3g} at most" in description.card
    assert "trained without differential privacy" not in description.card


def test_a_site_clips_its_update_and_the_model_keeps_its_own_bounds() -> None:
    campaign = parse_campaign(TARGET)
    limits, of_updates = step_limits(campaign), update_limits(campaign)
    assert limits is not None
    assert of_updates is not None
    assert of_updates.step_norm == 0.05 < limits.step_norm
    assert update_limits(parse_campaign(FILE + "epsilon = 6.0\n")) == step_limits(
        parse_campaign(FILE + "epsilon = 6\n")
    )


def test_the_plan_says_what_it_costs_few_and_many_sites() -> None:
    campaign = parse_campaign(TARGET)
    sigma = site_mechanism(campaign, phases_known(campaign)).noise_multiplier
    lines = list(privacy_plan(campaign, features=3))
    assert f"Noise multiplier {sigma:.4g}; ε" in lines[1]
    # 21 learnt parameters (3 × 4 + 4, 4 + 1), σ √21 / 3 of the longest mean update, of which three rounds make three.
    few = next(line for line in lines if line.startswith("3 sites"))
    assert f"{sigma * 21**0.5 / 3:.3g} times the longest possible mean update" in few
    assert f"{sigma * 21**0.5 / 3 / 3**0.5:.3g} times over the whole run" in few
    many = next(line for line in lines if line.startswith("100 sites"))
    assert f"noise of L2 norm {sigma * 0.05 * 21**0.5 / 100:.3g} in a round" in many
    assert "so few sites cannot teach" in lines[lines.index(few) + 1]
    assert "cannot teach" not in lines[lines.index(many) + 1 : lines.index(many) + 2][0]
    assert 'training.weighting = "equal" avoids that' in lines[-1]


def test_an_administrator_reads_whom_to_trust() -> None:
    said = " ".join(campaign_sentences(parse_campaign(TARGET)))
    assert "adds noise to the mean of all sites, which you have to trust it with" in said
    assert "as without differential privacy" in said


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        (TARGET.replace(STATED, "").replace(RANGES, ""), "sums training patients without noise"),
        (TARGET + "secure_aggregation = true\n", "leave secure aggregation off"),
        (TARGET.replace("rounds = 3\n", 'rounds = 3\nkeep = "best"\n'), "a round's error has noise"),
        (TARGET.replace("rounds = 3\n", 'rounds = 3\nstrategy = "scaffold"\n'), "those made without are not covered"),
        (SITES, "needs privacy.epsilon or privacy.noise_multiplier"),
        (TARGET.replace("clip_norm = 0.05\n", ""), "needs privacy.clip_norm"),
    ],
)  # fmt: skip
def test_what_has_no_noise_is_refused(text: str, mend: str) -> None:
    with pytest.raises(CampaignErrors) as refused:
        parse_campaign(text)
    assert mend in str(refused.value)


def test_running_statistics_are_refused_as_nothing_clips_them() -> None:
    estimator = estimators.make("chest-ca", {"norm": "batch"})
    (problem,) = privacy_problems(estimator, mode="client")
    assert "to which neither the clip norm nor the noise applies" in problem.message
    assert not list(privacy_problems(estimators.make("chest-ca", {"norm": "group"}), mode="client"))


@pytest.mark.parametrize("mode", ["sample", "client"])
def test_a_loss_that_couples_patients_is_one_sites_own_affair(mode: str) -> None:
    estimator = estimators.make("breast-4view", {"norm": "group", "triplet": 1.0})
    couples = [
        problem for problem in privacy_problems(estimator, mode=mode) if "relates the samples" in problem.message
    ]
    assert len(couples) == (mode == "sample")
