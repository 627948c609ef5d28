"""A campaign's phases against real handlers, and what happens when a site leaves, lies or is too small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, Message

from fedage.common.analyses.bias.bias_line import correction_of
from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.analyses.survival import results as survival_results
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import pack, unpack
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.results import Results, read_results
from fedage.server.sites.session import CampaignFailed
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import InProcessGrid, Meddle, MemorySite, memory_site

CAMPAIGN = """
[campaign]
name = "machinery"
purpose = "Try the phases on pictures of nobody"
seed = 7
sites = ["a", "b", "c"]
wait_s = 1
approval_wait_s = 1

[estimator]
name = "chest-ca"
[estimator.options]
image_size = 64
width = 8

[cohort]
age_min_years = 40
age_max_years = 85

[training]
rounds = 2
batch_size = 8
quorum = 2
round_deadline_s = 1

[validation.fractions]
train = 0.5
validation = 0.25
test = 0.25

[privacy]
minimum_count = 5

[survival]
time_grid_years = 0.25
table_times_years = [4, 10]

[[survival.models]]
name = "gap"
covariates = ["gap_years", "age_years"]

[[survival.models]]
name = "true"
covariates = ["true_gap_years"]
"""


@pytest.fixture
def three(tmp_path: Path) -> list[MemorySite]:
    return [memory_site(name, tmp_path / "sites", seed=number) for number, name in enumerate("abc")]


def run(
    folder: Path, members: list[MemorySite], *, meddle: Meddle | None = None, grid: InProcessGrid | None = None
) -> Results:
    grid = grid or InProcessGrid(members, meddle=meddle)
    place = Place(folder=folder / "run", run="r1", environment="simulation", guard=True)
    conduct(PollingGrid(grid, poll_s=0.01), parse_campaign(CAMPAIGN), place, key=None, admitted=grid.names)
    return read_results(folder / "run" / "results.json")


def test_three_sites_finish_and_everything_is_recorded(three: list[MemorySite], tmp_path: Path) -> None:
    results = run(tmp_path, three)
    assert results.run.status == "finished"
    assert [site.status for site in results.sites] == ["took part"] * 3
    assert [r.number for r in results.rounds] == [1, 2]
    assert all(r.validation_mae_years is not None for r in results.rounds)
    assert evaluation_results.evaluation(results).test.raw.overall is not None
    assert evaluation_results.evaluation(results).test.raw.overall.n == 60
    assert set(correction_of(results).lines) == {"a", "b", "c"}
    assert survival_results.survival(results) is not None
    assert [model.model for model in survival_results.survival(results).cox] == ["gap", "true"]
    for name in ("campaign.toml", "events.jsonl", "model.safetensors", "report.html"):
        assert (tmp_path / "run" / name).stat().st_size > 0


def test_the_same_seed_gives_the_same_numbers(three: list[MemorySite], tmp_path: Path) -> None:
    first, second = run(tmp_path / "1", three), run(tmp_path / "2", three)
    volatile = {"run", "rounds"}
    assert first.model_dump(exclude=volatile) == second.model_dump(exclude=volatile)
    models = [(tmp_path / number / "run" / "model.safetensors").read_bytes() for number in "12"]
    assert models[0] == models[1]


def test_a_site_that_falls_silent_is_recorded_and_the_rest_goes_on(three: list[MemorySite], tmp_path: Path) -> None:
    def meddle(message: Message, node: int) -> Message | None:
        head = message.content.config_records["request"]
        return None if node == 2 and head["round"] == 2 else message

    results = run(tmp_path, three, meddle=meddle)
    assert results.run.status == "finished"
    assert results.rounds[1].sites == ("a", "c")
    assert any("round 2" in trouble for trouble in results.sites[1].troubles)


def test_a_site_that_leaves_during_the_analyses_leaves_an_exact_result_of_the_others(
    three: list[MemorySite], tmp_path: Path
) -> None:
    grid = InProcessGrid(three)

    def meddle(message: Message, node: int) -> Message | None:
        if message.metadata.message_type == "query.analyse" and node == 3:
            grid.offline.add(3)
            return None
        return message

    grid._meddle = meddle
    results = run(tmp_path, three, grid=grid)
    assert results.run.status == "finished"
    assert survival_results.survival(results) is not None
    assert all(model.sites == ("a", "b") for model in survival_results.survival(results).cox)
    assert (results.sites[2].status, results.sites[2].dropped_out_in_round) == ("dropped out", 0)


def test_losing_the_quorum_fails_with_the_reason_and_keeps_the_model(three: list[MemorySite], tmp_path: Path) -> None:
    def meddle(message: Message, node: int) -> Message | None:
        head = message.content.config_records["request"]
        return None if node > 1 and head["round"] == 2 else message

    with pytest.raises(CampaignFailed, match="quorum is 2"):
        run(tmp_path, three, meddle=meddle)
    results = read_results(tmp_path / "run" / "results.json")
    assert results.run.status == "failed"
    assert "quorum" in results.run.reason
    assert len(results.rounds) == 1
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_a_site_with_a_single_patient_is_refused_by_its_own_guard(three: list[MemorySite], tmp_path: Path) -> None:
    lonely = memory_site("c", tmp_path / "sites", count=1)
    results = run(tmp_path, [*three[:2], lonely])
    record = results.sites[2]
    assert (record.name, record.status, record.patients) == ("c", "refused", None)
    assert "fewer than 5 patients" in record.reason
    assert results.run.status == "finished"


def test_no_event_at_all_is_said_and_the_rest_is_there(tmp_path: Path) -> None:
    members = [memory_site(name, tmp_path / "sites", seed=n, events=False) for n, name in enumerate("abc")]
    results = run(tmp_path, members)
    assert results.run.status == "finished"
    assert survival_results.survival(results) is not None
    for model in survival_results.survival(results).cox:
        assert model.not_computed
    assert evaluation_results.evaluation(results).test.raw.overall is not None


def test_a_site_that_has_not_approved_is_left_out(three: list[MemorySite], tmp_path: Path) -> None:
    three[1].approves = False
    results = run(tmp_path, three)
    assert results.sites[1].status == "refused"
    assert results.sites[1].reason.startswith("not-approved")


@pytest.fixture
def lying(three: list[MemorySite], monkeypatch: pytest.MonkeyPatch) -> list[MemorySite]:
    """Site b's replies are altered after its guard: values that are not finite, in weights and sums."""
    from tests import machinery

    honest = machinery.handlers.app

    def dishonest(message: Message, context: object) -> Message:
        reply = honest(message, context)  # type: ignore[arg-type]
        if context.node_config["site"] == "b" and "payload" in reply.content:  # type: ignore[attr-defined]
            record = reply.content.array_records["payload"]
            spoilt = {name: np.full_like(array, np.nan) for name, array in unpack(record["packed"].numpy()).items()}
            record["packed"] = Array(pack(spoilt))
        return reply

    monkeypatch.setattr(machinery.handlers, "app", dishonest)
    return three


def test_values_that_are_not_finite_are_set_aside(lying: list[MemorySite], tmp_path: Path) -> None:
    results = run(tmp_path, lying)
    assert results.run.status == "finished"
    assert all(record.sites == ("a", "c") for record in results.rounds)
    assert any("not finite" in trouble for trouble in results.sites[1].troubles)
    assert all(record.validation_mae_years is not None for record in results.rounds)
    text = (tmp_path / "run" / "results.json").read_text()
    assert "NaN" not in text
    json.loads(text)
