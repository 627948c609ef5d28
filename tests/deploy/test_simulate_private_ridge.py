"""A ridge regression from sums with noise: exact without it but for its bounds, noised, charged and told with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.privacy.accountant import Mechanism, epsilon, noise_for
from tests.deploy.test_simulate_private import run

FILE = """
[campaign]
name = "private-ridge"
purpose = "Solve a ridge regression with privacy for each patient"
seed = 5

[estimator]
name = "table-ridge"
[estimator.options]
features = ["x*"]
start = "stated"
age_scale = "linear"
age_range_years = [20, 80]
[estimator.options.ranges]
"*" = [-3, 3]

[table]
id = "who"
age = "age"

[privacy]
mode = "sample"
delta = 1e-5
clip_norm = 3.0
"""


def test_a_target_epsilon_is_spent_at_each_site_told_and_the_model_still_learns(tmp_path: Path) -> None:
    done = run(tmp_path, FILE + "epsilon = 8.0\n")
    assert done.results.run.status == "finished"
    # Alone, the validation would cost 0.4 of ε.
    one = noise_for(0.4 * 8.0, delta=1e-5, rate=1.0, steps=1)
    validation = Mechanism(sampling_rate=1.0, noise_multiplier=one * 2**0.5, steps=2)
    noise = noise_for(8.0, delta=1e-5, rate=1.0, steps=1, beside=(validation,))
    for site in done.results.sites:
        assert site.privacy is not None
        assert (site.privacy.sampling_rate, site.privacy.steps) == (1.0, 1)
        assert site.privacy.noise_multiplier == noise
        made = Mechanism(sampling_rate=1.0, noise_multiplier=noise, steps=1)
        assert site.privacy.epsilon == epsilon([made, validation], delta=1e-5) <= 8.0
    assert any("with differential privacy for each patient" in note for note in done.results.notes)
    assert len(load_file(done.folder / "model.safetensors")["coefficients"]) == 3
    test = evaluation_results.evaluation(done.results).test.raw.overall
    assert test is not None
    # 7.1 for the mean age, 0.8 for what x does not tell; of 25 runs, each with noise of its own, 0.9 to 2.1, SD 0.3.
    assert test.mae_years < 3.5


def test_each_fold_of_a_campaign_has_noise_of_its_own_and_all_are_charged(tmp_path: Path) -> None:
    done = run(tmp_path, FILE + "noise_multiplier = 2.0\nvalidation_share = 0\n[validation]\nfolds = 3\n")
    one = Mechanism(sampling_rate=1.0, noise_multiplier=2.0, steps=1)
    for site in done.results.sites:
        assert site.privacy is not None
        assert site.privacy.epsilon == epsilon([one] * 3, delta=1e-5)


def test_the_noise_is_the_sites_and_not_of_the_campaigns_seed(tmp_path: Path) -> None:
    models = []
    for name in "ab":
        (tmp_path / name).mkdir()
        models.append(load_file(run(tmp_path / name, FILE + "noise_multiplier = 2.0\n").folder / "model.safetensors"))
    assert np.abs(models[0]["coefficients"] - models[1]["coefficients"]).max() > 1e-3


def test_sums_hidden_from_the_coordinator_have_noise_too(tmp_path: Path) -> None:
    hidden = "noise_multiplier = 2.0\nsecure_aggregation = true\nminimum_sites = 2\n"
    done = run(tmp_path, FILE + hidden)
    assert done.results.run.status == "finished"
    assert all(site.privacy is not None for site in done.results.sites)


STATED = FILE[FILE.index('start = "stated"') : FILE.index("[table]")]
PRIVACY = FILE[FILE.index("[privacy]") :]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (FILE, "needs privacy.epsilon or privacy.noise_multiplier"),
        (FILE.replace("age_scale", "inner_folds = 3\nage_scale") + "epsilon = 3.0\n", "inner_folds has no effect"),
        (FILE.replace("[-3, 3]", "[3, -3]") + "epsilon = 3.0\n", "the smaller one first"),
        (FILE.replace(STATED, "") + "epsilon = 3.0\n", "sums training patients without noise"),
        (FILE.replace(PRIVACY, ""), "for sums with noise only"),
        (FILE.replace('"sample"', '"client"') + "epsilon = 3.0\n", "that of whole sites is of updates"),
    ],
)
def test_what_a_file_must_not_say(text: str, why: str) -> None:
    with pytest.raises(CampaignErrors, match=why):
        parse_campaign(text)
