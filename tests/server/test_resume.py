"""A run that is cut off again and again and resumed each time ends like one that was never interrupted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Message
from typer.testing import CliRunner

from fedage.common.campaign_file import parse_campaign
from fedage.common.errors import FedAgeError
from fedage.common.protocol.messages import ANALYSE, TRAIN
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.cli.main import campaign as commands
from fedage.server.cli.runs import unfinished_run
from fedage.server.record.events import RESUMED, EventLog, read_events
from fedage.server.record.results import read_results
from fedage.server.record.run_folder import RunFolder
from fedage.server.sites.session import CampaignFailed
from fedage.server.superlink.grid import PollingGrid
from fedage.server.superlink.home import init_home
from tests.machinery import InProcessGrid
from tests.server.test_conduct_folds import NETWORK, K, tables


class CutOff(BaseException):
    """Instead of kill -9: nothing that the product does can catch it."""


class Coordinator:
    """Conducts one run over the same three sites, each time up to its n-th message."""

    def __init__(self, folder: Path, *, text: str = NETWORK + K, key: Ed25519PrivateKey | None = None) -> None:
        self.text, self.key = text, key
        self.run = RunFolder(folder / "runs" / "folds" / "r1")
        self.sites = tables(folder)
        self.asked: list[str] = []

    def conduct(self, *, cut_off_at: int = 0, offline: str = "", silent_from: int = 0) -> bool:
        """Whether the run came to its end."""
        sent = 0

        def meddle(message: Message, node: int) -> Message | None:
            nonlocal sent
            sent += 1
            if sent == cut_off_at:
                raise CutOff
            self.asked.append(f"{grid.names[node]} {message.metadata.message_type}")
            return None if 0 < silent_from <= sent else message

        grid = InProcessGrid(self.sites, meddle=meddle)
        grid.offline = {node for node, name in grid.names.items() if name == offline}
        place = Place(folder=self.run.path, run="r1", environment="deployment", guard=True)
        try:
            with self.run.waiting():
                if self.run.has_begun():
                    self.take_up()
                with self.run.conducting():
                    campaign = parse_campaign(self.text)
                    conduct(PollingGrid(grid, poll_s=0.001), campaign, place, key=self.key, admitted=grid.names)
        except CutOff:
            return False
        return True

    def take_up(self) -> None:
        self.run.take_up()
        events = EventLog(self.run.events)
        events.emit(RESUMED)
        events.close()

    def outcome(self) -> tuple[dict[str, bytes], dict[str, object]]:
        """The models' bytes and the record but for when and how long."""
        record = read_results(self.run.path / "results.json").model_dump(mode="json")
        for key in ("started_utc", "finished_utc", "seconds"):
            record["run"].pop(key, None)
        for done in record["rounds"]:
            done.pop("seconds")
            # Summed in float64 over arrays whose place in memory decides the last bit.
            done["update_norm"] = float(f"{done['update_norm']:.12g}")
        models = {file.name: file.read_bytes() for file in sorted(self.run.path.glob("model-fold-*.safetensors"))}
        assert len(models) == 3
        return models, record


def assert_same(one: Coordinator, other: Coordinator) -> None:
    (models, record), (wanted_models, wanted) = one.outcome(), other.outcome()
    assert models == wanted_models
    for key in wanted:
        assert record[key] == wanted[key], key


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Coordinator:
    made = Coordinator(tmp_path_factory.mktemp("whole"))
    assert made.conduct()
    return made


@pytest.mark.parametrize("every", [pytest.param(5, marks=pytest.mark.slow), 9])
def test_a_run_cut_off_at_every_few_messages_ends_like_one_that_was_not(
    tmp_path: Path, whole: Coordinator, every: int
) -> None:
    """In the offer it cannot be resumed, as nothing of it is kept; from there on wherever it was."""
    coordinator = Coordinator(tmp_path)
    times = 0
    while not coordinator.conduct(cut_off_at=every):
        times += 1
        if times % 2:  # kill -9 leaves no record, an exception does
            (coordinator.run.path / "results.json").unlink()
        assert times < 50
    assert times >= 4
    assert_same(coordinator, whole)
    assert not coordinator.run.journal.exists()
    events = [event["event"] for event in read_events(coordinator.run.events)]
    assert (events.count("started"), events.count("finished"), events.count(RESUMED)) == (1, 1, times)
    assert events.count("round") >= len(read_results(coordinator.run.path / "results.json").rounds) - times
    # What was answered is not asked for again: only the messages of the steps in which it was cut off.
    assert len(coordinator.asked) <= len(whole.asked) + 3 * times


STATED = """penalty = 4.0
start = "stated"
noise = 0.0
hidden = []
age_scale = "linear"
age_range_years = [5, 120]
[estimator.options.ranges]
"*" = [-1000000, 1000000]
"""
WHOLE_SITES = """[privacy]
mode = "client"
epsilon = 8.0
delta = 1e-5
clip_norm = 0.05
"""


@pytest.mark.slow
def test_noise_for_whole_sites_is_the_same_in_a_run_that_is_resumed(tmp_path: Path) -> None:
    """It follows from the coordinator's key; under another one it is other noise."""
    text = NETWORK.replace("penalty = 4.0\n", STATED).replace("[privacy]\n", WHOLE_SITES) + K
    key = Ed25519PrivateKey.generate()
    whole, coordinator = (Coordinator(tmp_path / name, text=text, key=key) for name in ("whole", "cut off"))
    assert whole.conduct()
    while not coordinator.conduct(cut_off_at=7):
        pass
    assert_same(coordinator, whole)
    other = Coordinator(tmp_path / "other", text=text, key=Ed25519PrivateKey.generate())
    assert other.conduct()
    assert other.outcome()[0] != whole.outcome()[0]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fedavgm", "fedadam"])
def test_a_strategys_own_arrays_are_resumed_too(tmp_path: Path, strategy: str) -> None:
    text = (NETWORK + K).replace("rounds = 2", f'rounds = 4\nstrategy = "{strategy}"')
    whole, coordinator = (Coordinator(tmp_path / name, text=text) for name in ("whole", "cut off"))
    assert whole.conduct()
    while not coordinator.conduct(cut_off_at=7):
        pass
    assert_same(coordinator, whole)


@pytest.mark.slow
def test_what_is_damaged_in_the_journal_is_asked_for_again(tmp_path: Path, whole: Coordinator) -> None:
    coordinator = Coordinator(tmp_path)
    assert not coordinator.conduct(cut_off_at=26)
    models = sorted(coordinator.run.journal.glob("*.model"))
    steps = sorted(coordinator.run.journal.glob("*.safetensors"))
    assert models
    models[-1].write_bytes(models[-1].read_bytes()[:-1])
    steps[-2].write_bytes(b"no such step")
    assert coordinator.conduct()
    assert_same(coordinator, whole)


def test_models_of_earlier_rounds_are_not_kept(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path)
    assert not coordinator.conduct(cut_off_at=29)
    rounds = list(coordinator.run.journal.glob("*.model"))
    assert 1 <= len(rounds) <= 2 * 3
    assert {file.stat().st_mode & 0o777 for file in coordinator.run.journal.iterdir()} == {0o600}
    assert coordinator.run.journal.stat().st_mode & 0o777 == 0o700
    assert not list(coordinator.run.updates.glob("*")), "no single site's update stays"


@pytest.mark.slow
def test_a_run_that_lost_its_quorum_is_resumed_when_its_sites_are_back(tmp_path: Path, whole: Coordinator) -> None:
    """In a round and in an analysis, where the answers of too few sites must not stay for good."""
    coordinator = Coordinator(tmp_path)
    for number in (8, 40):
        with pytest.raises(CampaignFailed, match="the quorum is 2"):
            coordinator.conduct(silent_from=number)
    assert coordinator.conduct()
    record, wanted = coordinator.outcome()[1], whole.outcome()[1]
    assert (record["run"], coordinator.outcome()[0]) == (wanted["run"], whole.outcome()[0])


def test_the_request_under_way_is_sent_as_the_same_and_a_site_that_is_gone_is_missed_from_there_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site that has answered the request gives its stored answer."""
    coordinator = Coordinator(tmp_path)
    assert not coordinator.conduct(cut_off_at=26)
    noted = json.loads((coordinator.run.journal / "request.json").read_text())
    nonces: list[str] = []
    push = InProcessGrid.push_messages

    def pushed(grid: InProcessGrid, messages: Iterable[Message]) -> list[str]:
        sent = list(messages)
        nonces.extend(str(message.content.config_records["request"]["nonce"]) for message in sent)
        return push(grid, sent)

    monkeypatch.setattr(InProcessGrid, "push_messages", pushed)
    assert coordinator.conduct(offline="c")
    assert nonces[:2] == [noted["fields"]["nonce"]] * 2
    assert nonces[2] != nonces[0]
    found = read_results(coordinator.run.path / "results.json")
    assert found.run.status == "finished"
    assert found.rounds[0].sites == ("a", "b", "c")
    assert found.rounds[-1].sites == ("a", "b")


def test_a_run_that_finished_never_began_or_goes_on_is_not_resumed(tmp_path: Path, whole: Coordinator) -> None:
    folder = tmp_path / "runs" / "folds" / "r1"
    shutil.copytree(whole.run.path, folder)
    with pytest.raises(FedAgeError, match="nothing of it is kept"):
        RunFolder(folder).take_up()
    (folder / "state" / "journal").mkdir()
    (folder / "state" / "journal" / "000000.safetensors").write_bytes(b"x")
    run = RunFolder(folder)
    (folder / "results.json").unlink()
    with run.recording() as taken:
        assert taken
        with pytest.raises(FedAgeError, match="goes on"):
            run.take_up()


def test_which_run_is_meant(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with pytest.raises(FedAgeError, match="no run below"):
        unfinished_run(runs, None)
    for name in ("first", "second"):
        journal = runs / "breast" / name / "state" / "journal"
        journal.mkdir(parents=True)
        (journal / "000000.safetensors").write_bytes(b"x")
    assert unfinished_run(runs, None).name == "second"
    assert unfinished_run(runs, "breast/first").name == "first"
    for wrong in ("first", "breast/", "../first", "breast/../first", "breast/third"):
        with pytest.raises(FedAgeError, match="breast/first, breast/second"):
            unfinished_run(runs, wrong)


def test_the_commands_list_the_runs_and_say_what_they_need(tmp_path: Path, whole: Coordinator) -> None:
    home = init_home(tmp_path / "home", hosts=None, port=None)
    assert "no run yet" in CliRunner().invoke(commands, ["list", "--home", str(home.root)]).output
    for name in ("finished", "failed", "cut-off"):
        shutil.copytree(whole.run.path, home.runs / "folds" / name)
        if name != "finished":
            (home.runs / "folds" / name / "state" / "journal").mkdir()
            (home.runs / "folds" / name / "state" / "journal" / "000000.safetensors").write_bytes(b"x")
    results = home.runs / "folds" / "failed" / "results.json"
    results.write_text(results.read_text().replace('"finished"', '"failed"').replace('"reason": ""', '"reason": "why"'))
    (home.runs / "folds" / "cut-off" / "results.json").unlink()
    lines = dict(
        line.split(": ", 1)
        for line in CliRunner().invoke(commands, ["list", "--home", str(home.root)]).output.splitlines()
    )
    assert lines == {
        "folds/finished": "finished, 6 rounds",
        "folds/failed": "failed, 6 rounds: why; can be resumed",
        "folds/cut-off": "has no record yet, 6 rounds; fedage campaign recover writes it",
    }
    shutil.rmtree(home.runs)
    found = CliRunner().invoke(commands, ["resume", "--home", str(home.root)])
    assert isinstance(found.exception, FedAgeError)
    assert "has ended without finishing" in str(found.exception)


def test_kinds_of_messages_are_in_the_steps(whole: Coordinator) -> None:
    assert {asked.partition(" ")[2] for asked in whole.asked} >= {TRAIN, ANALYSE}
