"""Sums asked for masked, of sites in memory without a campaign around them; every message can be meddled with."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Array, Message

from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.consent.accounts.sum_keys import SumKeyStore
from fedage.common.analyses.base import Analysis, Iterate
from fedage.common.analyses.plan import registered
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.privacy.masked_statistic import statistic_words, summed_statistic
from fedage.common.protocol.messages import ANALYSE, PACKED, PAYLOAD, join_iterates, pack, read_packed, unpack
from fedage.common.protocol.secure import MASKED, SECURE_PART
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray
from fedage.server.record.events import EventLog
from fedage.server.record.heads import Heads
from fedage.server.record.journal import Journal
from fedage.server.sites.secure_sums import Summed, ask_summed
from fedage.server.sites.session import Session
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import InProcessGrid, Meddle, MemorySite, columns

CAMPAIGN = """
[campaign]
name = "hidden"
purpose = "Try hidden sums on survival tables of nobody"
seed = 7
wait_s = 1
approval_wait_s = 1
[privacy]
minimum_count = 5
secure_aggregation = true
minimum_sites = {minimum_sites}
[table]
age = "age"
[survival]
[[survival.models]]
name = "one"
covariates = ["true_gap_years"]
[[survival.models]]
name = "two"
covariates = ["is_male"]
"""
ONE, TWO = "cox:one", "cox:two"
Seen = Callable[[str, Message], None]


def iterate_of(centre: float | None) -> dict[str, FloatArray]:
    """The first exchange after the sites agreed on the column, or the one about means."""
    return {"columns": np.ones(1), **({} if centre is None else {"centre": np.full(1, centre)})}


def survival_site(name: str, folder: Path, *, count: int = 80, seed: int = 0) -> MemorySite:
    return MemorySite(name, SiteCohort(cohort=Cohort(columns(count, seed=seed)), samples=None), folder)


class Answers(InProcessGrid):
    """Lets a test look at every answer, and change it."""

    see: Seen | None = None

    def pull_messages(self, message_ids: Any) -> list[Message]:
        replies = super().pull_messages(message_ids)
        for reply in replies:
            if self.see is not None:
                self.see(self.names[reply.metadata.src_node_id], reply)
        return replies


class Hasty(PollingGrid):
    """Waits no longer than a moment, as sites in memory have answered when they are asked."""

    def exchange(self, messages: Any, **options: Any) -> Any:
        return super().exchange(messages, **{**options, "deadline_s": 0.05})


class Quiet(EventLog):
    """Keeps no events."""

    def __init__(self) -> None:
        pass

    def emit(self, event: str, **fields: Any) -> None:
        pass


@dataclass
class Sites:
    """Sites in memory, and the session of one run over them."""

    folder: Path
    names: Sequence[str] = "abcd"
    minimum_sites: int = 2
    meddle: Meddle | None = None
    see: Seen | None = None
    journal: Journal | None = None
    run: str = "r1"
    text: str = CAMPAIGN
    members: list[Any] = field(default_factory=list)
    key: Ed25519PrivateKey | None = None
    heads: Heads | None = None
    forgets: bool = True
    """A coordinator that asks what it knows to be refused, so that the sites have to refuse it."""

    def __post_init__(self) -> None:
        if not self.members:
            self.members = [survival_site(n, self.folder / "sites", seed=k) for k, n in enumerate(self.names)]
        self.campaign: Campaign = parse_campaign(self.text.format(minimum_sites=self.minimum_sites))
        self.grid = Answers(self.members, meddle=self.meddle)
        self.grid.see = self.see
        self.start()

    def start(self) -> None:
        self.session = Session(
            grid=Hasty(self.grid, poll_s=0.001),
            campaign=self.campaign,
            run=self.run,
            key=self.key,
            heads=self.heads,
            events=Quiet(),
            admitted=self.grid.names,
            sites_there=len(self.members),
            journal=self.journal,
        )
        self.session.describe()

    @property
    def steps(self) -> Mapping[str, Analysis]:
        return registered(self.campaign)

    def ask(self, *names: str, sites: Collection[str] | None = None, centre: float | None = None) -> Summed:
        return self.ask_at(dict.fromkeys(names or (ONE, TWO), iterate_of(centre)), sites=sites)

    def ask_at(self, iterates: Mapping[str, Iterate], *, sites: Collection[str] | None = None) -> Summed:
        layouts = {n: self.steps[n].layout(it) for n, it in iterates.items()}
        blocks = {n: (layout.size, statistic_words(layout)) for n, layout in layouts.items()}
        if self.forgets:
            self.session.steps.sets.by_block.clear()
        return ask_summed(self.session, ANALYSE, join_iterates(iterates), blocks=blocks, sites=sites)

    def total(self, summed: Summed, name: str, *, centre: float | None = None) -> FloatArray:
        layout = self.steps[name].layout(iterate_of(centre))
        return summed_statistic(layout, summed.totals[name], sites=summed.members)

    def expected(self, name: str, sites: Collection[str], *, centre: float | None = None) -> FloatArray:
        """What the sites' sums come to, added up here."""
        chosen = [site.cohort(self.campaign).cohort for site in self.members if site.name in sites]
        return np.sum([self.steps[name].local(c, iterate_of(centre)).vector for c in chosen], axis=0)

    def troubles(self) -> str:
        return json.dumps(self.session.troubles)


def payload_of(message: Message) -> dict[str, np.ndarray]:
    record = message.content.array_records.get(PAYLOAD)
    return {} if record is None else unpack(read_packed(record[PACKED].data))


def told_in(message: Message) -> dict[str, Any]:
    """What a message tells of keys and masks."""
    part = payload_of(message).get(SECURE_PART)
    return {} if part is None else dict(json.loads(part.tobytes()))


def change(message: Message, *, told: Mapping[str, Any] | None = None, **arrays: np.ndarray) -> None:
    """Put other words, or other arrays, into a message."""
    payload = {**payload_of(message), **arrays}
    if told is not None:
        payload[SECURE_PART] = np.frombuffer(json.dumps(told).encode(), dtype=np.uint8)
    message.content.array_records[PAYLOAD][PACKED] = Array(np.asarray(pack(payload)))


def silent(site: str, *, stage: str, names: Mapping[int, str]) -> Meddle:
    """A site that is silent from its first message of a stage on."""
    gone = False

    def meddle(message: Message, node: int) -> Message | None:
        nonlocal gone
        gone = gone or (names[node] == site and told_in(message).get("stage") == stage)
        return None if gone and names[node] == site else message

    return meddle


def garble(site: MemorySite, block: str, *, rng: np.random.Generator) -> Seen:
    """A site whose words and checks of a block are garbage, and who stands by them when the sum is to be opened."""

    def see(name: str, reply: Message) -> None:
        payload = payload_of(reply)
        if name != site.name or MASKED + block not in payload:
            return
        told = told_in(reply)
        told["receipt"]["checks"][block] = int(rng.integers(0, 2**63))
        words = rng.integers(0, 2**64, size=payload[MASKED + block].shape, dtype=np.uint64)
        change(reply, told=told, **{MASKED + block: words})
        for digest in site.campaigns:
            store = SumKeyStore(site.state_dir(digest))
            with store._file.transaction() as connection:
                row = connection.execute("SELECT rowid, masked FROM sum_keys WHERE masked IS NOT NULL").fetchone()
                masked = {**json.loads(row["masked"]), "receipt": json.dumps(told["receipt"])}
                connection.execute("UPDATE sum_keys SET masked = ? WHERE rowid = ?", (json.dumps(masked), row["rowid"]))
            store.close()

    return see
