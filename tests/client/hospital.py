"""A real hospital's home on disk, and a coordinator that signs what it sends: for what happens to one message.

Phantoms, an indexed store, a policy, approvals and an audit log, without processes; messages go through the real
ClientApp.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedage.client.audit import Direction, Line, show, verify
from fedage.client.audit.log import LOG_FILE
from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.store.store import CohortStore
from fedage.client.consent.site_cohorts import SiteCohorts
from fedage.client.inbox import handlers, sites
from fedage.client.inbox.deployed import DeployedSite
from fedage.client.site.home import SiteHome, init_site
from fedage.common import estimators
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.estimators.configure import initial_seed
from fedage.common.networks.arrays import Weights
from fedage.common.protocol.messages import (
    ANALYSE,
    DESCRIBE,
    EVALUATE,
    TRAIN,
    Reply,
    Request,
    join_iterates,
    join_model,
)
from fedage.deploy.demo.hospitals import HOSPITALS
from fedage.deploy.demo.phantoms import render_hospital
from fedage.server.sites.flower_records import request_content
from fedage.server.superlink.home import init_home
from tests.machinery import answer_of
from tests.of_estimators import built

PATIENTS = 40
SITE_KEY = bytes(range(2, 34))
"""Deals the parts the same way in every run: a secret one leaves now and then an evaluation to the influence rule."""
CAMPAIGN = """
[campaign]
name = "front-door"
purpose = "Try what a hospital's own rules let through"
seed = 5
[estimator]
name = "chest-ca"
[estimator.options]
image_size = 64
width = 8
[training]
rounds = 2
[validation.fractions]
train = 0.4
validation = 0.3
test = 0.3
[privacy]
minimum_count = 2
"""
POLICY = "[disclosure]\nminimum_count = 3\n"
VALIDATION, TEST = "evaluation:validation", "evaluation:test"
_numbers = itertools.count(1)


@dataclass
class Template:
    """A home that is made once and copied for each test: node key, store with patients, samples."""

    folder: Path
    key: Ed25519PrivateKey

    @classmethod
    def make(cls, folder: Path) -> Template:
        coordinator = init_home(folder / "coordinator", hosts=("localhost",))
        render_hospital(HOSPITALS[0], out_dir=folder / "data", seed=6, patients=PATIENTS)
        init_site(
            folder / "home",
            name="harbour",
            coordinator="localhost:8443",
            ca_certificate=coordinator.ca_certificate,
            coordinator_public_key=coordinator.signing_public_key,
            data=folder / "data" / "images",
            outcomes=folder / "data" / "outcomes.csv",
            threads=1,
            device="cpu",
        )
        (folder / "home" / "policy.toml").write_text(POLICY)
        template = cls(folder, coordinator.signing_key())
        template.index(folder / "home")
        SiteCohorts(folder / "home").read(parse_campaign(CAMPAIGN))
        return template

    def index(self, home: Path, data: Path | None = None) -> None:
        data = data or self.folder / "data"
        with CohortStore.open(home, key=SITE_KEY) as store:
            index_folder(store, data / "images", outcomes_csv=data / "outcomes.csv")

    def copy(self, folder: Path, *, approved: bool = True, **options: Any) -> Hospital:
        shutil.copytree(self.folder / "home", folder / "home")
        hospital = Hospital(folder / "home", self.key, options=options)
        if approved:
            hospital.site.rules.approve(hospital.campaign)
        return hospital


@dataclass
class Hospital:
    """One hospital and the coordinator it has pinned."""

    home: Path
    key: Ed25519PrivateKey
    options: dict[str, Any] = field(default_factory=dict)
    campaign: Campaign = field(default_factory=lambda: parse_campaign(CAMPAIGN))

    def __post_init__(self) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
        self.start()

    def start(self) -> None:
        """Open the home, as an agent that starts does."""
        self.site = DeployedSite(SiteHome.load(self.home), **self.options)
        sites.put_site(str(self.home), self.site)

    def policy(self, text: str) -> None:
        (self.home / "policy.toml").write_text(text)

    def request(self, kind: str = DESCRIBE, **changes: Any) -> Request:
        values: dict[str, Any] = {"kind": kind, "digest": self.campaign.digest, "run": "r1", "version": "test"}
        values["campaign"] = self.campaign.text if kind == DESCRIBE else ""
        return Request(**{**values, **changes})

    def weights(self) -> Weights:
        assert self.campaign.estimator is not None
        estimator = estimators.make(self.campaign.estimator.name, self.campaign.estimator.options)
        return built(estimator, seed=initial_seed(self.campaign, fold=0))

    def payload(self, kind: str, **iterates: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What an honest coordinator sends with a message of this kind."""
        steps = {VALIDATION: {}} if kind == TRAIN else {"bias": {}, TEST: {}} if kind in (EVALUATE, ANALYSE) else {}
        model = join_model(self.weights()) if kind in (TRAIN, EVALUATE) else {}
        return {**model, **join_iterates({**steps, **iterates})}

    def message(
        self,
        request: Request,
        payload: Mapping[str, np.ndarray] | None = None,
        *,
        key: Ed25519PrivateKey | None = None,
        as_kind: str | None = None,
    ) -> Message:
        arrays = self.payload(request.kind) if payload is None else payload
        content = request_content(request, arrays, key=key or self.key)
        message = Message(content, message_type=as_kind or request.kind, dst_node_id=1, group_id="", ttl=600.0)
        message.metadata.__dict__["_message_id"] = f"m{next(_numbers)}"
        return message

    def deliver(self, message: Message) -> tuple[Reply, dict[str, np.ndarray]]:
        """The real ClientApp's answer."""
        context = Context(1, 1, {"site-home": str(self.home)}, RecordDict(), {})
        return answer_of(handlers.app(message, context))

    def send(
        self, request: Request, payload: Mapping[str, np.ndarray] | None = None, **options: Any
    ) -> tuple[Reply, dict[str, np.ndarray]]:
        return self.deliver(self.message(request, payload, **options))

    def ask(self, kind: str = DESCRIBE, **changes: Any) -> Reply:
        """An honest message of this kind; the head of its answer."""
        return self.send(self.request(kind, **changes))[0]

    def lines(self) -> tuple[Line, ...]:
        return show(self.home / LOG_FILE)

    def last(self) -> Line:
        return self.lines()[-1]

    def must_be_intact(self, *replies: Reply) -> None:
        """The log verifies, against the heads of these replies too, and says of each message what became of it."""
        findings = verify(self.home / LOG_FILE, heads=[reply.head for reply in replies if reply.head])
        assert findings.findings == ()
        came = [line.entry for line in self.lines() if line.entry.direction is Direction.IN]
        left = [line.entry for line in self.lines() if line.entry.direction is Direction.OUT]
        assert len(left) >= len(came)
        assert {(e.nonce, e.digest) for e in came} == {(e.nonce, e.digest) for e in left}


def refused(reply: Reply, hospital: Hospital) -> str:
    """The rule that a reply names; the audit log's last line has to name the same, and nothing may have left."""
    assert reply.status == "refused"
    assert reply.reason
    line = hospital.last().entry
    assert (line.direction, line.outcome, line.rule) == (Direction.OUT, "refused", reply.rule)
    assert (line.patients, line.smallest_cell, line.epsilon_micro, line.steps) == (None, None, 0, ())
    hospital.must_be_intact(reply)
    return reply.rule
