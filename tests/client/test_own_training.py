"""What a strategy leaves at a site: control variates and batch normalisation, by round, in a whole campaign."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from fedage.common.campaign.learning_rate import learning_rate
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.protocol.control import join_control
from fedage.common.protocol.messages import EVALUATE, TRAIN, join_iterates, join_model
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.export import NoBundle, _must_have_a_model
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.results import Results, read_results
from fedage.server.sites.session import CampaignFailed
from fedage.server.superlink.grid import PollingGrid
from tests.client.hospital import CAMPAIGN, TEST, VALIDATION, Hospital, Template, refused
from tests.machinery import InProcessGrid, MemorySite, memory_site
from tests.server.test_conduct_folds import NETWORK, tables
from tests.server.test_quorum import PARTS
from tests.server.test_resume import Coordinator

SGD = 'round_deadline_s = 60\noptimiser = "sgd"\nlearning_rate = 0.05\nlocal_epochs = 3\nbatch_size = 8'
SCAFFOLD = (
    NETWORK.replace("rounds = 2", 'rounds = 3\nstrategy = "scaffold"').replace("round_deadline_s = 1", SGD) + PARTS
)
PRIVATE = '[privacy]\nmode = "sample"\nepsilon = 1\ndelta = 1e-5\nclip_norm = 1'
FEDBN = """
[campaign]
name = "norms"
purpose = "Leave batch normalisation at the sites, on pictures of nobody"
seed = 7
sites = ["a", "b"]
wait_s = 1
[estimator]
name = "chest-ca"
[estimator.options]
image_size = 64
width = 8
norm = "batch"
[training]
strategy = "fedbn"
rounds = 2
batch_size = 8
[validation.fractions]
train = 0.5
validation = 0.25
test = 0.25
[privacy]
minimum_count = 5
"""


class Twice(InProcessGrid):
    """Every training is done twice, as by a site whose answer was lost."""

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        sent = list(messages)
        if sent and sent[0].metadata.message_type == TRAIN:
            super().push_messages(sent)
        return super().push_messages(sent)


def run(folder: Path, text: str, members: list[MemorySite]) -> tuple[Results, dict[str, np.ndarray]]:
    grid = InProcessGrid(members)
    place = Place(folder=folder / "run", run="r1", environment="simulation", guard=True)
    conduct(PollingGrid(grid, poll_s=0.001), parse_campaign(text), place, key=None, admitted=grid.names)
    return read_results(folder / "run" / "results.json"), load_file(folder / "run" / "model.safetensors")


def own_of(folder: Path, site: str) -> dict[str, np.ndarray]:
    (file,) = folder.glob(f"sites/{site}/*/own-*.safetensors")
    return load_file(file)


def test_control_variates_make_another_model_and_stay_at_their_sites(tmp_path: Path) -> None:
    plain, averaged = run(tmp_path / "plain", SCAFFOLD.replace('"scaffold"', '"fedavg"'), tables(tmp_path / "plain"))
    done, model = run(tmp_path / "scaffold", SCAFFOLD, tables(tmp_path / "scaffold"))
    assert (plain.run.status, done.run.status) == ("finished", "finished")
    assert [each.sites for each in done.rounds] == [("a", "b", "c")] * 3
    assert any(not np.array_equal(averaged[name], model[name]) for name in model)
    kept = {site: own_of(tmp_path / "scaffold", site) for site in "abc"}
    # Of the last round, and of the one that it began with.
    assert all({key.partition("|")[0] for key in own} == {"2", "3"} for own in kept.values())
    weight = max(kept["a"])
    assert not np.array_equal(kept["a"][weight], kept["b"][weight])


@pytest.mark.slow
def test_a_run_with_control_variates_that_is_cut_off_and_resumed_ends_the_same(tmp_path: Path) -> None:
    whole, cut = (Coordinator(tmp_path / name, text=SCAFFOLD) for name in ("whole", "cut off"))
    assert whole.conduct()
    times = 0
    while not cut.conduct(cut_off_at=7):
        times += 1
    assert times > 2
    models = [load_file(each.run.path / "model.safetensors") for each in (whole, cut)]
    for name, array in models[0].items():
        np.testing.assert_array_equal(models[1][name], array)


@pytest.fixture
def hospital(template: Template, tmp_path: Path) -> Hospital:
    found = template.copy(tmp_path, approved=False)
    training = 'rounds = 4\nstrategy = "scaffold"\noptimiser = "sgd"\nmax_step_norm = 0.5\nmax_path_norm = 0.6'
    found.campaign = parse_campaign(CAMPAIGN.replace("rounds = 2", training))
    found.site.rules.approve(found.campaign)
    return found


def ask(hospital: Hospital, number: int, norm: float | None, counted: int | None = None) -> object:
    """The first model as that of a round, with a control variate of this norm."""
    weights = hospital.weights()
    control = {}
    if norm is not None:
        size = sum(array.size for array in weights.values())
        control = {name: np.full_like(array, norm / np.sqrt(size)) for name, array in weights.items()}
    sent = join_control(control, counted={} if counted is None else {"harbour": counted})
    payload = {**join_model(weights), **join_iterates({VALIDATION: {}}), **sent}
    return hospital.send(hospital.request(TRAIN, round=number), payload)[0]


def test_a_coordinators_control_variate_moves_a_site_by_a_step_a_round_and_a_path_a_run(hospital: Hospital) -> None:
    first = ask(hospital, 1, 1e6)
    assert (first.status, first.info["clipped"] in (True, False)) == ("ok", True)
    training = hospital.campaign.training
    rate = learning_rate(training, round_number=1)
    used = first.info["control_share"] * first.info["steps"] * rate * 1e6
    assert used == pytest.approx(0.5, rel=1e-3)
    assert refused(ask(hospital, 1, 1e5), hospital) == "another-model"
    hospital.start()  # a restarted agent knows it too
    assert refused(ask(hospital, 1, None), hospital) == "another-model"
    second = ask(hospital, 2, 1e6, counted=1)
    assert second.info["control_share"] * second.info["steps"] * rate * 1e6 == pytest.approx(0.1, rel=1e-2)
    assert ask(hospital, 3, 1e6, counted=2).info["control_share"] == 0.0


@pytest.mark.parametrize("counted", [1, 2, 3, 7])
def test_a_round_of_which_a_site_keeps_nothing_is_refused(hospital: Hospital, counted: int) -> None:
    assert refused(ask(hospital, 2, None, counted=counted), hospital) == "control-variate"


@pytest.mark.parametrize("name", ["fc.weight", "conv1.weight", "strange"])
def test_a_control_variate_of_another_network_is_refused(hospital: Hospital, name: str) -> None:
    sent = join_control({name: np.zeros(3, dtype=np.float32)}, counted={})
    payload = {**join_model(hospital.weights()), **join_iterates({VALIDATION: {}}), **sent}
    told = hospital.send(hospital.request(TRAIN, round=1), payload)[0]
    assert refused(told, hospital) == "control-variate"


def test_a_control_variate_in_a_campaign_without_is_refused(template: Template, tmp_path: Path) -> None:
    plain = template.copy(tmp_path)
    for norm, counted in ((1.0, None), (None, 0), (None, 1)):
        assert refused(ask(plain, 1, norm, counted), plain) == "control-variate"


def test_batch_normalisation_stays_at_the_sites(tmp_path: Path) -> None:
    members = [memory_site(name, tmp_path / "sites", count=40, seed=number) for number, name in enumerate("ab")]
    results, model = run(tmp_path, FEDBN, members)
    assert results.run.status == "finished"
    assert not any("norm-layers" in each.reason for site in results.sites for each in site.withheld)
    own = {site: own_of(tmp_path, site) for site in "ab"}
    names = sorted(key.partition("|")[2] for key in own["a"] if key.startswith("2|"))
    assert sum(name.endswith("running_mean") for name in names) > 3
    assert sum(name.endswith("weight") for name in names) > 3
    for name in names:
        # The coordinator's are as they were before training, the sites' have moved, each its own way.
        assert np.ptp(model[name]) == 0
        assert not np.array_equal(own["a"][f"2|{name}"], own["b"][f"2|{name}"])
    others = [name for name in model if name not in names]
    assert others


@pytest.mark.slow
def test_a_round_with_batch_normalisation_that_stays_is_the_same_when_asked_again(tmp_path: Path) -> None:
    whole, twice = tmp_path / "whole", tmp_path / "twice"
    _, model = run(whole, FEDBN, [memory_site(n, whole / "sites", count=40, seed=k) for k, n in enumerate("ab")])
    grid = Twice([memory_site(n, twice / "sites", count=40, seed=k) for k, n in enumerate("ab")])
    place = Place(folder=twice / "run", run="r1", environment="simulation", guard=True)
    conduct(PollingGrid(grid, poll_s=0.001), parse_campaign(FEDBN), place, key=None, admitted=grid.names)
    other = load_file(twice / "run" / "model.safetensors")
    for name, array in model.items():
        np.testing.assert_array_equal(other[name], array)


def test_a_network_without_batch_normalisation_is_refused(tmp_path: Path) -> None:
    members = [memory_site(name, tmp_path / "sites", count=40, seed=number) for number, name in enumerate("ab")]
    with pytest.raises(CampaignFailed, match="no batch normalisation"):
        run(tmp_path, FEDBN.replace('norm = "batch"', 'norm = "group"'), members)


def test_a_model_whose_batch_normalisation_stayed_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(NoBundle, match="predicts nowhere else"):
        _must_have_a_model(tmp_path, parse_campaign(FEDBN), None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (FEDBN.replace("rounds = 2", 'rounds = 2\nkeep = "best"'), "batch normalisation of its last round only"),
        (FEDBN.replace("[validation.fr", '[validation]\nsites = ["b"]\n[validation.fr'), "batch normalisation stays"),
        (
            FEDBN.replace("[privacy]", PRIVATE),
            "the batch",
        ),
        (SCAFFOLD.replace('optimiser = "sgd"', 'optimiser = "adamw"'), 'must be "sgd"'),
        (SCAFFOLD.replace('optimiser = "sgd"', ""), 'must be "sgd"'),
        (SCAFFOLD.replace("[privacy]", "[privacy]\nsecure_aggregation = true"), "not possible with privacy.secure_agg"),
        (
            SCAFFOLD.replace("[privacy]", PRIVATE),
            "noise",
        ),
    ],
)
def test_what_a_strategy_cannot_be_combined_with_is_refused(text: str, told: str) -> None:
    with pytest.raises(CampaignErrors, match=told):
        parse_campaign(text)


def test_a_hospital_predicts_with_its_own_batch_normalisation_and_only_once_it_has_trained(
    template: Template, tmp_path: Path
) -> None:
    for number, trained in enumerate((False, True)):
        hospital = template.copy(tmp_path / str(number), approved=False)
        text = CAMPAIGN.replace("width = 8", 'width = 8\nnorm = "batch"').replace(
            "rounds = 2", f'rounds = 1\nstrategy = "fedbn"\nlearning_rate = 1e-{4 + number}'
        )
        hospital.campaign = parse_campaign(text)
        hospital.site.rules.approve(hospital.campaign)
        model = {**join_model(hospital.weights()), **join_iterates({VALIDATION: {}})}
        if trained:
            told, answered = hospital.send(hospital.request(TRAIN, round=1), model)
            assert told.status == "ok"
            moved = {name for name, array in answered.items() if name.startswith("model:") and array.any()}
            assert moved
            assert not any("running" in name for name in moved)
            hospital.start()
        told, _ = hospital.send(hospital.request(EVALUATE), {**model, **join_iterates({TEST: {}})})
        assert (told.status == "ok") == trained, told
        assert trained or refused(told, hospital) == "norm-layers"
