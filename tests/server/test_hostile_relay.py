"""A relay that alters what a hospital's agent signed: whatever it does, the answer does not count, and says why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from fedage.client.audit import Direction, Kind
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.heads import key_to_hex
from fedage.common.protocol.messages import DESCRIBE, TRAIN, Packed, pack, packed_digest, unpack
from fedage.server.record.events import EventLog
from fedage.server.record.heads import Heads
from fedage.server.sites import incoming
from fedage.server.sites.flower_records import read_arrays
from fedage.server.sites.incoming import CampaignFailed
from fedage.server.sites.session import Session
from fedage.server.superlink.grid import PollingGrid
from tests.client.hospital import CAMPAIGN, Hospital, Template
from tests.machinery import InProcessGrid
from tests.server.test_real_hospitals import hospital

Contents = dict[str, RecordDict]
Attack = Callable[[str, int, Contents], None]
"""Sees kind, round and the sites' answers to one request before they leave; may change them or take them out."""


class Relay(InProcessGrid):
    """Hands the answers of the real agents on after an attack on them."""

    attack: Attack = staticmethod(lambda _kind, _round, _contents: None)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        outgoing = list(messages)
        ids = super().push_messages(outgoing)
        sites = {
            identity: self.names[message.metadata.dst_node_id] for identity, message in zip(ids, outgoing, strict=True)
        }
        contents = {site: self._replies[identity].content for identity, site in sites.items()}
        if outgoing:
            about = outgoing[0].content.config_records["request"]
            self.attack(str(about["kind"]), int(str(about["round"])), contents)
        for (identity, site), message in zip(sites.items(), outgoing, strict=True):
            if site in contents:
                self._replies[identity] = Message(contents[site], reply_to=message)
            else:
                del self._replies[identity]
        return ids


@dataclass
class House:
    """Two hospitals with their relay, and a coordinator."""

    members: list[Hospital]
    relay: Relay
    session: Session
    heads: Heads
    payload: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def make(cls, template: Template, folder: Path) -> House:
        members = [hospital(template, folder, name, approved=False) for name in "ab"]
        # Some patients fewer at b: sites with the same key and patients would train to the same weights.
        data = shutil.copytree(template.folder / "data", folder / "data-of-b")
        for image in sorted((data / "images").rglob("*.dcm"))[::4]:
            image.unlink()
        template.index(members[1].home, data)
        relay = Relay([member.site for member in members])
        heads = Heads(folder / "heads")
        session = Session(
            PollingGrid(relay, poll_s=0.01),
            parse_campaign(SHORT),
            "r1",
            members[0].key,
            EventLog(folder / "events.jsonl"),
            relay.names,
            heads,
            sites_there=2,
        )
        for member in members:
            member.site.rules.approve(parse_campaign(SHORT))
        return cls(members, relay, session, heads, members[0].payload(TRAIN))

    def train(self, number: int) -> dict[str, dict[str, np.ndarray]]:
        found = self.session.ask(TRAIN, self.payload, round_number=number)
        return {site: dict(answer.payload) for site, answer in found.items()}


SHORT = CAMPAIGN.replace("rounds = 2", "rounds = 4\nround_deadline_s = 1")


@pytest.fixture
def house(template: Template, tmp_path: Path) -> Iterator[House]:
    made = House.make(template, tmp_path)
    yield made
    made.session.events.close()


def arrays(content: RecordDict) -> dict[str, np.ndarray]:
    return unpack(np.asarray(content.array_records["payload"]["packed"].numpy()))


def put(content: RecordDict, payload: dict[str, np.ndarray]) -> None:
    content["payload"] = ArrayRecord({"packed": Array(pack(payload))})


def change(content: RecordDict, **fields: str) -> None:
    content["reply"] = ConfigRecord({**content.config_records["reply"], **fields})


def change_info(content: RecordDict, **values: object) -> None:
    info = json.loads(str(content.config_records["reply"]["info"]))
    change(content, info=json.dumps({**info, **values}))


def one_sum(contents: Contents) -> None:
    payload = arrays(contents["a"])
    name = next(name for name in payload if not name.startswith("model:") and payload[name].size)
    payload[name] = payload[name].copy()
    payload[name].flat[0] += 1
    put(contents["a"], payload)


def one_weight_in_its_last_bit(contents: Contents) -> None:
    payload = arrays(contents["a"])
    name = next(name for name in payload if name.startswith("model:") and payload[name].size)
    payload[name] = payload[name].copy()
    payload[name].flat[0] = np.nextafter(payload[name].flat[0], np.float32(9))
    put(contents["a"], payload)


def no_payload(contents: Contents) -> None:
    del contents["a"]["payload"]


def another_sites_payload(contents: Contents) -> None:
    put(contents["a"], arrays(contents["b"]))


def more_patients(contents: Contents) -> None:
    change_info(contents["a"], n=100_000)


def stripped(contents: Contents) -> None:
    change(contents["a"], signature="")


def signed_by_the_relay(contents: Contents) -> None:
    change(contents["a"], signature=Ed25519PrivateKey.generate().sign(b"x").hex())


def forged_refusal(contents: Contents) -> None:
    change(contents["a"], status="refused", rule="budget", reason="all ε is spent", info="{}")


@pytest.mark.parametrize(
    "attack",
    [
        one_sum,
        one_weight_in_its_last_bit,
        no_payload,
        another_sites_payload,
        more_patients,
        stripped,
        signed_by_the_relay,
        forged_refusal,
    ],
)
def test_an_altered_answer_does_not_count_and_the_next_honest_one_does(
    house: House, attack: Callable[[Contents], None]
) -> None:
    assert set(house.session.describe()) == {"a", "b"}
    house.relay.attack = lambda _kind, number, contents: attack(contents) if number == 1 else None
    assert set(house.train(1)) == {"b"}
    (trouble,) = house.session.troubles["a"]
    assert trouble.startswith("train (round 1): reply-signature: the answer ")
    assert ("came without the site's signature" in trouble) == (attack is stripped)
    assert set(house.train(2)) == {"a", "b"}  # a forged refusal for good closes nothing


def test_answers_to_two_requests_cannot_be_exchanged(house: House) -> None:
    """The payload of round 1 under round 2's fresh head; and the whole answer to a request that it made time out."""
    house.session.describe()
    kept: dict[int, RecordDict] = {}

    def attack(_kind: str, number: int, contents: Contents) -> None:
        if number == 2:
            put(contents["a"], arrays(kept[1]))
        if number == 3:
            kept[3] = contents.pop("a")
        if number == 4:
            contents["a"] = kept[3]
        kept.setdefault(number, contents.get("a", RecordDict()))

    house.relay.attack = attack
    assert set(house.train(1)) == {"a", "b"}
    for number in (2, 3, 4):
        assert set(house.train(number)) == {"b"}
    of_2, of_3, of_4 = house.session.troubles["a"]
    assert of_2.startswith("train (round 2): reply-signature: ")
    assert of_3 == "train (round 3): no answer within 1 s"
    # The head of the withheld answer was new to the coordinator: only the nonce tells that it is another request's.
    assert of_4.startswith("train (round 4): reply-signature: ")


def test_two_sites_answers_cannot_be_exchanged(house: House) -> None:
    house.session.describe()

    def whole(contents: Contents) -> None:
        contents["a"], contents["b"] = contents["b"], contents["a"]

    def renamed(contents: Contents) -> None:
        whole(contents)
        for site in "ab":
            change(contents[site], site=site)

    def all_but_the_heads(contents: Contents) -> None:
        heads = {site: str(contents[site].config_records["reply"]["audit"]) for site in "ab"}
        renamed(contents)
        for site in "ab":
            change(contents[site], audit=heads[site])

    attacks = {1: whole, 2: renamed, 3: all_but_the_heads}
    house.relay.attack = lambda _kind, number, contents: attacks[number](contents)
    for number in attacks:
        assert house.train(number) == {}
    for site in "ab":
        whole_told, renamed_told, heads_told = house.session.troubles[site]
        assert whole_told.endswith("answered under another name")
        assert "audit-head-forged" in renamed_told
        assert "reply-signature" in heads_told


def test_a_relay_cannot_have_its_own_key_pinned_under_a_sites_answer(house: House) -> None:
    own = key_to_hex(Ed25519PrivateKey.generate().public_key())

    def attack(kind: str, _number: int, contents: Contents) -> None:
        if kind == DESCRIBE:
            change_info(contents["a"], audit_key=own)

    house.relay.attack = attack
    with pytest.raises(CampaignFailed, match="the quorum is 2"):
        house.session.describe()
    assert house.session.refused["a"].startswith("reply-signature: ")
    assert house.heads.key("a") is None


UNREADABLE = {
    "a header of a petabyte": (2**50).to_bytes(8, "little") + b"{}",
    "a tensor that is not there": (64).to_bytes(8, "little")
    + b'{"a":{"dtype":"F64","shape":[99999999],"data_offsets":[0,9]}}'.ljust(64),
    "a deep header": (20_000).to_bytes(8, "little") + b'{"a":' * 4_000,
    "cut in its middle": b"cut",
    "nothing": b"",
}


@pytest.mark.parametrize("put_in", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_no_array_is_read_before_the_sites_signature_is_checked(
    house: House, put_in: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.session.describe()
    read: list[int] = []

    def attack(kind: str, _number: int, contents: Contents) -> None:
        if kind == TRAIN:
            data = pack(arrays(contents["a"])).tobytes()[:-5] if put_in == b"cut" else put_in
            contents["a"]["payload"] = ArrayRecord({"packed": Array(np.frombuffer(data, dtype=np.uint8))})

    def noted(packed: Packed) -> dict[str, np.ndarray]:
        read.append(len(packed))
        return read_arrays(packed)

    monkeypatch.setattr(incoming, "read_arrays", noted)
    house.relay.attack = attack
    assert set(house.train(1)) == {"b"}
    assert len(read) == 1
    (told,) = house.session.troubles["a"]
    # A payload without a byte is malformed as it stands.
    assert ("its payload is empty" if put_in == b"" else "reply-signature") in told


def test_the_audit_log_says_which_payload_left(house: House) -> None:
    house.session.describe()
    sent = house.train(1)
    for member in house.members:
        out = [line.entry for line in member.lines() if line.entry.direction is Direction.OUT]
        assert [(line.kind, line.payload_sha256) for line in out] == [
            (Kind.DESCRIBE, None),
            (Kind.TRAIN, packed_digest(pack(sent[member.site.name]).data)),
        ]
        assert {line.entry.payload_sha256 for line in member.lines() if line.entry.direction is Direction.IN} == {None}
        member.must_be_intact()
