"""An in-process Grid and sites in memory: the real ServerApp phases and the real handlers, without processes.

For what is hard to provoke with real processes on purpose (a site that leaves in one particular exchange). The real
processes have tests of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedage.client.cohort.selection.parts import with_parts
from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.inbox import handlers, sites
from fedage.client.inbox.site import Site
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.estimators.base import ROW, Samples
from fedage.common.protocol.messages import Reply, derived_seed
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.statistic import FloatArray
from fedage.server.sites.flower_records import read_arrays, read_reply


def answer_of(message: Message) -> tuple[Reply, dict[str, np.ndarray]]:
    """An answer's head and arrays, without looking at a signature."""
    reply, packed = read_reply(message)
    return reply, read_arrays(packed)


Meddle = Callable[[Message, int], Message | None]
"""Sees each request with the number of the node, returns it (changed or not), or None: the node is silent."""


@dataclass
class MemorySite:
    """A site whose cohort is given; with `unit` (n,), places by keyed hash, it is parted as the campaign file says."""

    name: str
    found: SiteCohort
    folder: Path
    unit: FloatArray | None = None
    guard: bool = True
    threads: int = 1
    device: str = "cpu"
    coordinator_key: None = None
    rules: None = None
    campaigns: dict[str, Campaign] = field(default_factory=dict)
    approves: bool = True
    secret: int = 0

    def approved(self, digest: str) -> Campaign | None:
        return self.campaigns.get(digest)

    def offer(self, text: str, *, digest: str) -> None:
        if self.approves:
            self.campaigns[digest] = parse_campaign(text).at(self.name)

    def cohort(self, campaign: Campaign) -> SiteCohort:
        if self.unit is None:
            return self.found
        return replace(self.found, cohort=with_parts(self.found.cohort, self.unit, campaign))

    def training_seed(self, campaign: Campaign, *parts: str | int) -> int:
        return derived_seed("train", self.secret or campaign.campaign.seed, self.name, *parts)

    def state_dir(self, digest: str) -> Path:
        folder = self.folder / self.name / digest
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class InProcessGrid:
    """Flower's Grid over handlers in this process."""

    def __init__(self, members: Iterable[Site], *, meddle: Meddle | None = None) -> None:
        self.names: dict[int, str] = {}
        self._replies: dict[str, Message] = {}
        self._numbers = itertools.count(1)
        self._meddle = meddle
        self.offline: set[int] = set()
        # Flower sets these in the process of a ServerApp.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
        for number, site in enumerate(members, start=1):
            sites.put_site(site.name, site)
            self.names[number] = site.name

    def get_node_ids(self) -> list[int]:
        return [node for node in self.names if node not in self.offline]

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, message_type=message_type, dst_node_id=dst_node_id, group_id=group_id, ttl=ttl)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            identity = f"message-{next(self._numbers)}"
            message.metadata.__dict__["_message_id"] = identity
            ids.append(identity)
            node = message.metadata.dst_node_id
            seen = self._meddle(message, node) if self._meddle else message
            if seen is None or node in self.offline:
                continue
            context = Context(1, node, {"site": self.names[node]}, RecordDict(), {})
            self._replies[identity] = handlers.app(seen, context)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self._replies.pop(identity) for identity in list(message_ids) if identity in self._replies]


def columns(count: int, *, seed: int, events: bool = True) -> dict[str, np.ndarray]:
    """A cohort's columns: half train, a quarter each validation and test; a gap that shortens survival."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(40, 85, count)
    gap = rng.normal(0, 3, count)
    time = rng.exponential(14 * np.exp(-0.15 * gap))
    part = np.arange(count) % 4
    return {
        "age_years": age,
        "is_male": (np.arange(count) % 2).astype(float),
        "healthy": np.ones(count),
        "is_train": (part < 2).astype(float),
        "is_validation": (part == 2).astype(float),
        "is_test": (part == 3).astype(float),
        "time_years": np.minimum(time, 10.0),
        "event": ((time < 10) & events).astype(float),
        "true_gap_years": gap,
    }


def images(values: Mapping[str, np.ndarray], *, side: int = 64, seed: int = 0) -> np.ndarray:
    """Pictures whose brightness gradient grows with biological age: readable by any network in a few steps."""
    rng = np.random.default_rng(seed)
    biological = (values["age_years"] + values["true_gap_years"] - 60) / 15
    ramp = np.linspace(-1, 1, side)[None, None, :, None] * np.ones((1, 1, 1, side))
    pictures = biological[:, None, None, None] * ramp + 0.1 * rng.normal(size=(len(biological), 1, side, side))
    return pictures.astype(np.float32)


def memory_site(name: str, folder: Path, *, count: int = 80, seed: int = 0, events: bool = True) -> MemorySite:
    values = columns(count, seed=seed, events=events)
    return MemorySite(
        name, SiteCohort(cohort=Cohort(values), samples=Samples({"image": images(values, seed=seed)})), folder
    )


def folded_site(name: str, folder: Path, *, count: int = 80, seed: int = 0) -> MemorySite:
    """`memory_site` with its parts, or folds, dealt by the campaign file."""
    site = memory_site(name, folder, count=count, seed=seed)
    site.unit = np.random.default_rng(1000 + seed).random(count)
    return site


def table_site(
    name: str, folder: Path, *, x: FloatArray, age: FloatArray, seed: int = 0, **outcomes: FloatArray
) -> MemorySite:
    """A site with a table of features `f0`, `f1`, … (n, p), NaN where missing; `f00`, … of more than ten.

    Features are agreed in the order of their names, so the names must be in the order of the columns.
    """
    width = len(str(x.shape[1] - 1))
    features = tuple(f"f{j:0{width}d}" for j in range(x.shape[1]))
    columns = {f"feature:{feature}": x[:, j] for j, feature in enumerate(features)}
    cohort = Cohort({"age_years": age, "is_male": np.arange(age.size) % 2.0, **columns, **outcomes})
    unit = np.random.default_rng(1000 + seed).random(age.size)
    return MemorySite(name, SiteCohort(cohort=cohort, samples=Samples({ROW: x}), features=features), folder, unit=unit)
