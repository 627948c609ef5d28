"""A campaign whose rounds begin with a bundle: what is computed, and what a site begins with and what not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Message
from safetensors.numpy import load_file

from fedage.client.inbox.start_bundle import with_start_bundle
from fedage.common.bundle.container import BundleRefused, write_bundle
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.campaign_file.describe import campaign_sentences
from fedage.common.errors import FedAgeError
from fedage.common.protocol.basis import Basis, join_basis, split_basis
from fedage.common.protocol.messages import ANALYSE, RequestRefused
from fedage.server.campaign.bundles import BUNDLE, put_bundle
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.results import Results, read_results
from fedage.server.sites.session import CampaignFailed
from fedage.server.superlink.grid import PollingGrid
from tests.common.campaign.texts import messages
from tests.machinery import InProcessGrid, Meddle
from tests.of_bundles import described
from tests.server.test_conduct_folds import NETWORK, P, tables
from tests.server.test_quorum import PARTS

FEATURES = [f"f{j}" for j in range(P)]
TEXT = NETWORK.replace('features = ["*"]', f"features = {FEATURES}").replace("'", '"') + PARTS
OPTIONS: dict[str, Any] = {"features": FEATURES, "penalty": 4.0}
KEY = Ed25519PrivateKey.generate()


def warm(content: bytes, *, text: str = TEXT) -> str:
    digest = hashlib.sha256(content).hexdigest()
    return text.replace("rounds = 2", f'rounds = 2\nstart_bundle = "{digest}"')


def run(
    folder: Path, text: str, *, content: bytes = b"", meddle: Meddle | None = None
) -> tuple[Results, Mapping[str, np.ndarray]]:
    grid = InProcessGrid(tables(folder), meddle=meddle)
    place = Place(folder=folder / "run", run="r1", environment="simulation", guard=True)
    if content:
        place.folder.mkdir(parents=True)
        (place.folder / BUNDLE).write_bytes(content)
    conduct(PollingGrid(grid, poll_s=0.001), parse_campaign(text), place, key=None, admitted=grid.names)
    return read_results(folder / "run" / "results.json"), load_file(folder / "run" / "model.safetensors")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Mapping[str, np.ndarray]]:
    """A bundle of a run's model, and its arrays."""
    _, model = run(tmp_path_factory.mktemp("made"), TEXT)
    return write_bundle(described("table-mlp", OPTIONS, model), model, key=KEY), model


def test_rounds_begin_with_the_bundle_and_nothing_is_summed_before_them(
    made: tuple[bytes, Mapping[str, np.ndarray]], tmp_path: Path
) -> None:
    content, model = made
    asked: list[str] = []

    def meddle(message: Message, _node: int) -> Message:
        asked.append(message.metadata.message_type)
        return message

    slow = warm(content).replace("start_bundle", "learning_rate = 1e-9\nstart_bundle")
    results, still = run(tmp_path / "still", slow, content=content, meddle=meddle)
    assert results.run.status == "finished"
    assert ANALYSE not in asked[: asked.index("train")]
    for name, array in model.items():
        np.testing.assert_allclose(still[name], array, rtol=0, atol=1e-6)
    results, on = run(tmp_path / "on", warm(content), content=content)
    assert results.run.status == "finished"
    assert any(not np.allclose(on[name], model[name], atol=1e-4) for name in model)


def test_a_site_that_misses_the_first_rounds_is_sent_the_bundle_with_the_next(
    made: tuple[bytes, Mapping[str, np.ndarray]], tmp_path: Path
) -> None:
    content, _ = made
    trained: list[int] = []

    def meddle(message: Message, node: int) -> Message | None:
        if message.metadata.message_type == "train":
            trained.append(node)
        return None if message.metadata.message_type == "train" and node == 1 and trained.count(1) == 1 else message

    text = warm(content).replace("round_deadline_s = 1", "round_deadline_s = 60\nwait_after_quorum_s = 0.2")
    results, _ = run(tmp_path, text, content=content, meddle=meddle)
    assert [done.sites for done in results.rounds] == [("b", "c"), ("a", "b", "c")]


@dataclass
class Asked:
    """As much of a site's work as the check looks at."""

    campaign: Campaign


def others(model: Mapping[str, np.ndarray]) -> dict[str, Basis]:
    """What a coordinator may send in the bundle's place."""
    moved = {name: array + np.float32(0.5) for name, array in model.items()}
    return {
        "another model": Basis(bundle=write_bundle(described("table-mlp", OPTIONS, moved), moved, key=KEY)),
        "another key": Basis(
            bundle=write_bundle(described("table-mlp", OPTIONS, model), model, key=Ed25519PrivateKey.generate())
        ),
        "bytes of nothing": Basis(bundle=b"PK" + bytes(200)),
    }


@pytest.mark.parametrize("what", ["another model", "another key", "bytes of nothing"])
def test_a_site_takes_no_other_bundle(what: str, made: tuple[bytes, Mapping[str, np.ndarray]]) -> None:
    content, model = made
    work = Asked(parse_campaign(warm(content)))
    with pytest.raises(RequestRefused, match="SHA-256"):
        with_start_bundle(work, split_basis(join_basis(others(model)[what])))  # type: ignore[arg-type]


def test_arrays_in_the_bundles_place_are_not_looked_at(made: tuple[bytes, Mapping[str, np.ndarray]]) -> None:
    content, model = made
    work: Any = Asked(parse_campaign(warm(content)))
    for given in (dict(model), {name: array + 1 for name, array in model.items()}, {"x": np.zeros(1)}):
        assert with_start_bundle(work, split_basis(join_basis(Basis(given=given)))).given is None
        sent = {**join_basis(Basis(given=given)), **join_basis(Basis(bundle=content))}
        taken = with_start_bundle(work, split_basis(sent)).given
        assert taken is not None
        assert all(np.array_equal(taken[name], array) for name, array in model.items())


def test_a_bundle_of_other_options_is_refused_even_if_it_is_the_one_approved(
    made: tuple[bytes, Mapping[str, np.ndarray]], tmp_path: Path
) -> None:
    content, _ = made
    text = warm(content, text=TEXT.replace("penalty = 4.0", "penalty = 5.0"))
    with pytest.raises(RequestRefused, match="other options"):
        with_start_bundle(Asked(parse_campaign(text)), Basis(bundle=content))  # type: ignore[arg-type]
    file = tmp_path / "model.fedage"
    file.write_bytes(content)
    with pytest.raises(BundleRefused, match="other options"):
        put_bundle(parse_campaign(text), file, folder=tmp_path / "run")


def test_a_run_without_its_bundle_does_not_begin(made: tuple[bytes, Mapping[str, np.ndarray]], tmp_path: Path) -> None:
    content, _ = made
    with pytest.raises(FedAgeError, match="--bundle"):
        put_bundle(parse_campaign(warm(content)), None, folder=tmp_path / "run")
    with pytest.raises((CampaignFailed, FedAgeError)):
        run(tmp_path, warm(content))
    with pytest.raises(CampaignFailed, match="not the bundle"):
        run(tmp_path / "other", warm(content + b" "), content=content)


def test_who_approves_reads_where_the_model_begins(made: tuple[bytes, Mapping[str, np.ndarray]]) -> None:
    content, _ = made
    said = " ".join(campaign_sentences(parse_campaign(warm(content))))
    assert hashlib.sha256(content).hexdigest() in said
    assert "ask what it was trained on" in said


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (TEXT.replace("rounds = 2", 'rounds = 2\nstart_bundle = "abc"'), "training.start_bundle"),
        (TEXT.replace("table-mlp", "age-ensemble"), "training"),
        (
            TEXT.replace("rounds = 2", f'rounds = 2\nstart_bundle = "{"a" * 64}"').replace(
                "[estimator.options]", f'bundle = "{"b" * 64}"\n[estimator.options]'
            ),
            "must not be there with estimator.bundle",
        ),
    ],
)
def test_a_file_that_cannot_begin_so_is_refused(text: str, told: str) -> None:
    with pytest.raises(CampaignErrors):
        parse_campaign(text)
    assert any(told in message for message in messages(text))
