"""Means and variances that a site computes for a model whose sites keep theirs: on its images, without ages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import nn

from fedage.client.compute.own_statistics import FEWEST, TooFewForStatistics, with_own_statistics
from fedage.client.compute.training import PredictionStopped
from fedage.client.inbox.start_bundle import with_start_bundle
from fedage.client.prediction.run import predict
from fedage.common.bundle.card import model_card
from fedage.common.bundle.container import BundleRefused, read_bundle, write_bundle
from fedage.common.bundle.fits import require_no_own_statistics
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.estimators import make
from fedage.common.estimators.base import Samples
from fedage.common.networks.arrays import ModelRefused, state_to_arrays
from fedage.common.networks.roles import roles_of
from fedage.common.protocol.basis import Basis
from fedage.common.protocol.messages import EVALUATE, RequestRefused, join_bundle, join_iterates
from fedage.server.campaign.bundles import put_bundle
from fedage.server.campaign.export import NoBundle, _must_have_a_model, export_bundle
from tests.client.hospital import CAMPAIGN, TEST, Template, refused
from tests.client.test_own_training import FEDBN, own_of, run
from tests.machinery import memory_site
from tests.of_bundles import described, public_key
from tests.of_estimators import built

SILO = FEDBN.replace('strategy = "fedbn"', 'strategy = "fedbn"\nlocal_norms = "statistics"')
OPTIONS = {"image_size": 64, "width": 8, "norm": "batch"}


@dataclass(frozen=True)
class Phase:
    """A linear layer, its batch normalisation, and one number of that."""

    dropout: float = 0.5

    def build(self, *, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(self.dropout), nn.Linear(4, 1))

    def output(self, module: nn.Module, batch: Any) -> Any:
        return module(batch.inputs["row"])


def outputs(weights: Any, x: np.ndarray) -> np.ndarray:
    module = Phase().build(seed=0)
    module.load_state_dict({**module.state_dict(), **{name: torch.from_numpy(a) for name, a in weights.items()}})
    return module.eval()(torch.from_numpy(x.astype(np.float32))).detach().numpy()[:, 0]


def adapted(x: np.ndarray, weights: Any = None, *, batch_size: int = 1000, **more: Any) -> Any:
    weights = state_to_arrays(Phase().build(seed=1)) if weights is None else weights
    return with_own_statistics(
        Phase(), weights, Samples({"row": x.astype(np.float32)}), batch_size=batch_size, device="cpu", **more
    )


def drawn(n: int, *, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(3).normal(size=(n, 3)) + shift


@pytest.mark.parametrize("n", [FEWEST, 40, 333])
def test_statistics_are_those_of_the_layers_inputs_and_nothing_else_changes(n: int) -> None:
    before, x = state_to_arrays(Phase().build(seed=1)), drawn(n, shift=5.0)
    after = adapted(x, before)
    layer = x.astype(np.float32) @ before["0.weight"].T + before["0.bias"]
    np.testing.assert_allclose(after["1.running_mean"], layer.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(after["1.running_var"], layer.var(axis=0, ddof=1), rtol=1e-4)
    for name in before.keys() - {"1.running_mean", "1.running_var"}:
        np.testing.assert_array_equal(after[name], before[name])


@pytest.mark.parametrize(("shift", "scale"), [(7.0, 1.0), (0.0, 40.0), (-3.0, 2.0)])
def test_a_scanner_of_another_brightness_or_gain_changes_no_prediction(shift: float, scale: float) -> None:
    plain, other = drawn(200), drawn(200, shift=shift, scale=scale)
    np.testing.assert_allclose(outputs(adapted(other), other), outputs(adapted(plain), plain), atol=1e-3)
    assert np.abs(outputs(adapted(plain), other) - outputs(adapted(plain), plain)).max() > 0.1


def test_batches_change_little_and_are_repeated_to_the_bit() -> None:
    x = drawn(500)
    for size in (FEWEST, 64, 1):  # never fewer at a time than statistics need
        small = adapted(x, batch_size=size)
        np.testing.assert_array_equal(small["1.running_mean"], adapted(x, batch_size=size)["1.running_mean"])
        np.testing.assert_allclose(small["1.running_var"], adapted(x)["1.running_var"], rtol=0.15)


def test_what_cannot_be_normalised_is_refused() -> None:
    for n in (1, 2, FEWEST - 1):
        with pytest.raises(TooFewForStatistics, match=f"at least {FEWEST}"):
            adapted(drawn(n))
    with pytest.raises(ModelRefused):
        adapted(drawn(40), {"0.weight": np.zeros((4, 3), np.float32)})
    with pytest.raises(PredictionStopped):
        adapted(drawn(40), should_stop=lambda: True)


def test_only_means_and_variances_stay() -> None:
    module = Phase().build(seed=0)
    everything, statistics = (roles_of(module, norms_stay=what) for what in ("all", "statistics"))
    assert set(everything.local) == {"1.weight", "1.bias", "1.running_mean", "1.running_var"}
    assert set(statistics.local) == {"1.running_mean", "1.running_var"}
    assert {"1.weight", "1.bias"} <= set(statistics.learnt)
    assert statistics.running == ()
    assert set(statistics.fixed) == set(statistics.local)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (CAMPAIGN.replace("rounds = 2", 'rounds = 2\nlocal_norms = "statistics"'), "has no effect"),
        (SILO.replace('"statistics"', '"none"'), "local_norms"),
        (SILO.replace("rounds = 2", 'rounds = 2\nkeep = "best"'), "normalisation of its last round only"),
    ],
)
def test_what_it_cannot_be_combined_with_is_refused(text: str, told: str) -> None:
    with pytest.raises(CampaignErrors, match=told):
        parse_campaign(text)


@pytest.mark.slow
def test_a_site_that_did_not_train_computes_its_own_and_is_judged(tmp_path: Path) -> None:
    members = [memory_site(name, tmp_path / "sites", count=40, seed=number) for number, name in enumerate("abc")]
    text = SILO.replace('sites = ["a", "b"]', 'sites = ["a", "b", "c"]').replace(
        "[validation.fr", '[validation]\nsites = ["c"]\n[validation.fr'
    )
    results, model = run(tmp_path, text, members)
    assert results.run.status == "finished"
    assert results.external["evaluation:test"].sites == ("c",)
    own = own_of(tmp_path, "a")
    assert not list((tmp_path / "sites" / "c").rglob("own-*"))
    assert {key.rpartition(".")[2] for key in own} == {"running_mean", "running_var"}
    for name in own:
        assert np.ptp(model[name.partition("|")[2]]) == 0
    learnt = [model[name.replace("running_mean", "weight")] for name in model if name.endswith("running_mean")]
    assert all(np.ptp(array) > 0 for array in learnt)  # trained together, unlike with fedbn alone
    # It is exported, and says so.
    content, description = export_bundle(tmp_path / "run", key=Ed25519PrivateKey.generate())
    assert description.own_statistics
    assert "predict many exams of one site together" in read_bundle(content).description.card
    with pytest.raises(NoBundle, match='local_norms = "statistics"'):
        _must_have_a_model(tmp_path / "run", parse_campaign(FEDBN), results)


def a_bundle(file: Path, key: Ed25519PrivateKey) -> bytes:
    weights = built(make("chest-ca", OPTIONS), seed=3)
    about = described("chest-ca", OPTIONS, weights, own_statistics=True)
    content = write_bundle(about.model_copy(update={"card": model_card(about)}), weights, key=key)
    file.write_bytes(content)
    file.with_suffix(".pub").write_bytes(public_key(key))
    return content


def test_a_bundle_without_statistics_is_refused_in_a_campaign(tmp_path: Path) -> None:
    content = a_bundle(tmp_path / "m.fedage", Ed25519PrivateKey.from_private_bytes(bytes(32)))
    with pytest.raises(BundleRefused, match="fedage predict at the site"):
        require_no_own_statistics(read_bundle(content).description)
    require_no_own_statistics(read_bundle(content).description.model_copy(update={"own_statistics": False}))
    digest = read_bundle(content).digest
    begins = CAMPAIGN.replace("width = 8", 'width = 8\nnorm = "batch"')
    validates = begins[: begins.index("[training]")].replace("[estimator]", f'[estimator]\nbundle = "{digest}"')
    for text in (begins.replace("rounds = 2", f'rounds = 2\nstart_bundle = "{digest}"'), validates):
        with pytest.raises(BundleRefused, match="one patient could move the predictions of all"):
            put_bundle(parse_campaign(text), tmp_path / "m.fedage", folder=tmp_path / "run")


def test_a_site_predicts_its_own_exams_with_its_own_statistics(template: Template, tmp_path: Path) -> None:
    content = a_bundle(tmp_path / "m.fedage", template.key)
    done = predict(tmp_path / "m.fedage", home=template.folder / "home", out=tmp_path / "o.csv", device="cpu")
    assert any("normalises by means and variances of its own images" in sentence for sentence in done.said)
    ages = pd.read_csv(done.file)["predicted_years"]
    plain = read_bundle(content)
    about = plain.description.model_copy(update={"own_statistics": False})
    (tmp_path / "p.fedage").write_bytes(write_bundle(about, plain.weights, key=template.key))
    same = predict(tmp_path / "p.fedage", home=template.folder / "home", out=tmp_path / "p.csv", device="cpu")
    assert np.abs(pd.read_csv(same.file)["predicted_years"] - ages).max() > 1e-3
    # One image alone has no statistics.
    image = next((template.folder / "data").rglob("*.dcm"))
    with pytest.raises(BundleRefused, match="1 exams are too few"):
        predict(tmp_path / "m.fedage", data=image, key=tmp_path / "m.pub", out=tmp_path / "one.csv", device="cpu")


def test_a_hospital_refuses_such_a_bundle_whatever_the_coordinator_checked(template: Template, tmp_path: Path) -> None:
    content = a_bundle(tmp_path / "m.fedage", template.key)
    begins = CAMPAIGN.replace("width = 8", 'width = 8\nnorm = "batch"')
    digest = read_bundle(content).digest
    hospital = template.copy(tmp_path, approved=False)
    validates = begins[: begins.index("[training]")] + "[privacy]\nminimum_count = 2\n"
    hospital.campaign = parse_campaign(validates.replace("[estimator]", f'[estimator]\nbundle = "{digest}"'))
    hospital.site.rules.approve(hospital.campaign)
    whole = hospital.campaign.final_fold
    told, _ = hospital.send(
        hospital.request(EVALUATE, fold=whole), {**join_bundle(content), **join_iterates({TEST: {}})}
    )
    assert refused(told, hospital) == "bundle"
    started = parse_campaign(begins.replace("rounds = 2", f'rounds = 2\nstart_bundle = "{digest}"'))
    with pytest.raises(RequestRefused, match="one patient could move the predictions of all"):
        with_start_bundle(SimpleNamespace(campaign=started), Basis(bundle=content))  # type: ignore[arg-type]
