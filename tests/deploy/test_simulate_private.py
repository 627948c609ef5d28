"""Training with privacy for each patient in a simulation: noised, accounted for by site, stated in the record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import load_file

from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.privacy.accountant import Mechanism, epsilon, noise_for
from fedage.server.campaign.export import export_bundle
from tests.deploy.simulating import Simulated, as_csv, simulated

FILE = """
[campaign]
name = "private"
purpose = "Train a small network with privacy for each patient"
seed = 5

[estimator]
name = "table-mlp"
[estimator.options]
features = ["x*"]
start = "stated"
noise = 0.0
hidden = [4]
age_scale = "linear"
age_range_years = [20, 80]
[estimator.options.ranges]
"*" = [-3, 3]

[table]
id = "who"
age = "age"

[training]
rounds = 3
batch_size = 16
optimiser = "sgd"
learning_rate = 0.01

[privacy]
mode = "sample"
delta = 1e-5
clip_norm = 100.0
"""


def table(*, patients: int = 400, seed: int = 0) -> pd.DataFrame:
    chance = np.random.default_rng(seed)
    x = chance.normal(size=(patients, 3))
    age = np.clip(50 + 8 * x[:, 0] - 4 * x[:, 1] + chance.normal(size=patients), 20, 80)
    site = [f"site {'ab'[k % 2]}" for k in range(patients)]
    return pd.DataFrame(x, columns=["x1", "x2", "x3"]).assign(
        who=[f"p{k}" for k in range(patients)], site=site, age=age
    )


def run(folder: Path, text: str) -> Simulated:
    return simulated(folder, text, data=as_csv(table(), folder / "table.csv"), site_column="site")


def test_a_target_epsilon_is_reached_at_each_site_and_the_record_says_what_it_covers(tmp_path: Path) -> None:
    done = run(tmp_path, FILE + "epsilon = 6.0\n")
    assert done.results.run.status == "finished"
    for site in done.results.sites:
        privacy = site.privacy
        assert privacy is not None
        assert 5.9 < privacy.epsilon <= 6.0
        n = site.patients_by_part["train"]
        assert privacy.sampling_rate == 16 / n
        made = Mechanism(
            sampling_rate=privacy.sampling_rate, noise_multiplier=privacy.noise_multiplier, steps=privacy.steps
        )
        # Alone, the validation would cost 0.4 of ε: its two rounds together, the finished model's error, its line.
        one = noise_for(0.4 * 6.0, delta=1e-5, rate=1.0, steps=1) * 3**0.5
        finished, judged = (Mechanism(sampling_rate=1.0, noise_multiplier=one * k**0.5, steps=1) for k in (1, 2))
        assert privacy.epsilon == pytest.approx(
            epsilon([made] * 3 + [judged] * 2 + [finished] * 2, delta=1e-5), rel=1e-3
        )
        assert [done_round.epsilon_by_site[site.name] for done_round in done.results.rounds] == pytest.approx(
            [epsilon([made] * k + [judged] * (k - 1), delta=1e-5) for k in (1, 2, 3)]
        )
    assert all(one.train_loss is None for one in done.results.rounds)
    assert all(one.validation_mae_years is not None for one in done.results.rounds)
    told = " ".join(done.results.notes)
    assert "its errors on validation patients and the age-bias lines told are covered" in told
    assert "Outside this guarantee: how far predicted ages of test patients are off" in told
    assert "evaluation:validation: with noise of differential privacy, whose SD is about" in told
    assert evaluation_results.evaluation(done.results).test.raw.overall is not None
    _, description = export_bundle(done.folder, key=Ed25519PrivateKey.generate())
    spent = max(site.privacy.epsilon for site in done.results.sites if site.privacy is not None)
    assert f"for each patient of each site: ε = {spent:.3g} at most, δ = 1e-05" in description.card


def test_noise_is_of_the_simulation_and_not_of_the_campaigns_seed(tmp_path: Path) -> None:
    models = []
    for name in "ab":
        (tmp_path / name).mkdir()
        folder = run(tmp_path / name, FILE + "noise_multiplier = 1.0\n").folder
        models.append(load_file(folder / "model.safetensors"))
    assert any(np.abs(models[0][name] - models[1][name]).max() > 1e-3 for name in models[0])


def test_the_report_shows_what_each_site_has_spent(tmp_path: Path) -> None:
    done = run(tmp_path, FILE.replace("rounds = 3", "rounds = 2") + "noise_multiplier = 2.0\n")
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert 'id="table-privacy"' in page
    assert "Differential privacy of the updates" in page
    assert "ε, of the site that spent most" in page or "of the site that spent most" in page
    for site in done.results.sites:
        assert site.privacy is not None
        assert site.privacy.epsilon is not None
        assert f"{site.privacy.epsilon:.3f}" in page


@pytest.mark.parametrize(("more", "told"), [("", False), ("validation_share = 0\n", True), ("mode", True)])
def test_without_noise_the_validation_is_outside_and_no_round_of_it_is_told(
    tmp_path: Path, more: str, told: bool
) -> None:
    text = FILE.replace("rounds = 3", "rounds = 2") + "noise_multiplier = 1.0\n"
    if more == "mode":
        text = text.replace('"sample"', '"client"').replace("clip_norm = 100.0", "clip_norm = 0.01")
    else:
        text += more
    done = run(tmp_path, text)
    rounds = [one.validation_mae_years for one in done.results.rounds]
    assert (rounds[0] is None) is told
    assert rounds[1] is not None
    bare = "Outside this guarantee: how far predicted ages are off, the age-bias line and all other analyses"
    assert any(bare in note for note in done.results.notes) is told
    line = done.results.analyses["bias"].result
    assert line is None or (line.slope_noise_sd is None) is told  # type: ignore[attr-defined]
