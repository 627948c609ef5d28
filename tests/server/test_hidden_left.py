"""A hospital that leaves a training of hidden updates: waited for, left out where it agreed or where noise hides it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from fedage.client.audit.log import KEY_FILE, PUBLIC_KEY_FILE, site_key
from fedage.common.analyses.evaluation.metrics import TEST, VALIDATION
from fedage.common.protocol.messages import TRAIN
from fedage.server.sites.session import CampaignFailed
from fedage.server.superlink.home import init_home
from tests.hospitals_at_work import hospital_home
from tests.server.test_hidden_resumed import NAMES, Run

PRIVATE = """mode = "sample"
epsilon = 8.0
delta = 1e-5
clip_norm = 10.0
"""


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def make(name: str, *, like: str = "", options: str = "", privacy: str = "") -> Run:
        folder = tmp_path / name
        if like:  # the same keys, as seeds follow from the file that names them
            shutil.copytree(tmp_path / like, folder)
        else:
            coordinator = init_home(folder / "coordinator", hosts=("localhost",))
            for seed, hospital in enumerate(NAMES):
                hospital_home(folder, hospital, coordinator=coordinator, seed=seed)
                site_key(folder / hospital / KEY_FILE, public=folder / hospital / PUBLIC_KEY_FILE)
        run = Run(folder)
        run.text = (
            run.text.replace("rounds = 2", "rounds = 3")
            .replace("quorum = 3", "quorum = 2\nquorum_wait_s = 1")
            .replace("round_deadline_s = 5", "round_deadline_s = 2")
            .replace("[privacy]\n", f"[privacy]\nminimum_sites = 2\n{privacy}")
            .replace("hidden = [4]\n", f"hidden = [4]\n{options}")
        )
        runs.append(run)
        return run

    yield make
    for run in runs:
        for site in run.sites:
            site.rules.close()


def away(*rounds: int) -> Callable[[str, Message], bool]:
    """West does not hear of these rounds."""
    return lambda site, message: (
        site == "west" and message.metadata.message_type == TRAIN and int(message.metadata.group_id) in rounds
    )


@pytest.mark.slow
def test_a_training_waits_and_is_resumed_to_the_same_model(made: Callable[..., Run]) -> None:
    whole, left = made("whole"), made("left", like="whole")
    assert whole.conduct()
    with pytest.raises(CampaignFailed, match=r"round 2: .* opened without west, it would tell the sums of west alone"):
        left.conduct(silent=away(2))
    assert [done.number for done in left.results().rounds] == [1]
    with pytest.raises(CampaignFailed, match="round 2"):
        left.conduct(silent=away(2, 3))
    assert left.conduct()
    assert [done.sites for done in left.results().rounds] == [NAMES] * 3
    models = [load_file(run.run.path / "model.safetensors") for run in (whole, left)]
    assert all((models[0][name] == models[1][name]).all() for name in models[0])


@pytest.mark.slow
def test_a_run_that_is_to_finish_goes_on_with_the_model_so_far(made: Callable[..., Run]) -> None:
    """What is judged for the first time is of the sites that are left; what was opened with west is not."""
    run = made("finishes")
    run.text = run.text.replace("quorum_wait_s = 1", "quorum_wait_s = 1\nfinish_early = true")
    trained = 0

    def silent(site: str, message: Message) -> bool:
        nonlocal trained
        trained += site == "west" and message.metadata.message_type == TRAIN
        return site == "west" and trained > 1

    assert run.conduct(silent=silent)
    results = run.results()
    assert (results.run.status, [done.sites for done in results.rounds]) == ("finished", [NAMES])
    assert any("Training ended after round 1 (round 2: the sites' updates were not" in note for note in results.notes)
    assert results.analyses[TEST].sites == NAMES[:2]
    assert results.analyses[TEST].result is not None
    assert "those of west would be seen" in results.analyses[VALIDATION].not_computed


@pytest.mark.slow
def test_a_model_from_exact_sums_waits_and_is_resumed(made: Callable[..., Run]) -> None:
    """West is away from the second exchange of the preparation on."""
    run, heard = made("exact"), 0

    def silent(site: str, message: Message) -> bool:
        nonlocal heard
        heard += site == "west" and message.metadata.message_type == "query.analyse"
        return site == "west" and heard > 1

    with pytest.raises(CampaignFailed, match=r"could not be solved from the sites' sums: opened without west"):
        run.conduct(silent=silent)
    assert run.conduct()
    assert [done.sites for done in run.results().rounds] == [NAMES] * 3


@pytest.mark.slow
def test_sites_refuse_a_coordinator_that_goes_on(made: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """It forgets over which sites the first round was opened; before they train, and when it asks to open."""
    from fedage.server.sites.opened_sets import OpenedSets

    monkeypatch.setattr(OpenedSets, "note", lambda *_: None)
    run = made("attacked")
    with pytest.raises(CampaignFailed, match=r"round 2: .* by subtraction those of west would be seen"):
        run.conduct(silent=away(2))


@pytest.mark.slow
def test_rounds_go_on_without_a_hospital_that_agreed_and_with_it_again(made: Callable[..., Run]) -> None:
    run = made("agreed")
    policy = run.folder / "west" / "policy.toml"
    policy.write_text(policy.read_text() + "[disclosure]\nmay_be_left_out = true\n")
    assert run.conduct(silent=away(2))
    assert [done.sites for done in run.results().rounds] == [NAMES, NAMES[:2], NAMES]


@pytest.mark.slow
def test_rounds_of_noised_updates_go_on_without_a_hospital(made: Callable[..., Run]) -> None:
    options = 'start = "stated"\nnoise = 1.0\nage_range_years = [20, 90]\n[estimator.options.ranges]\n"*" = [-1, 6]\n'
    run = made("private", options=options, privacy=PRIVATE)
    assert run.conduct(silent=away(2)), run.results().run.reason
    assert [done.sites for done in run.results().rounds] == [NAMES, NAMES[:2], NAMES]
