"""Sums over the sites of which the coordinator never sees one site's: asked for masked, added up, opened together.

The masked words are added as they arrive, so that not even one site's masked vector is kept. What the journal has of a
step are the sum of the masked words, the receipts, and then the seeds and shares by which it was opened: from these a
resumed run works out the same total, and asks nobody for anything twice.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TypeVar

import numpy as np

from fedage.common.privacy import ring
from fedage.common.protocol.messages import SECURE, Payload, RequestRefused
from fedage.common.protocol.secure import (
    KEYS_AT_ONCE,
    MASKED,
    AskChannel,
    AskKeys,
    AskMasked,
    AskOpen,
    Channel,
    Message,
    Receipt,
    Signed,
    SumKeys,
    TellKeys,
    TellMasked,
    TellOpen,
    digest_of_all,
    join_part,
    neighbours,
    part_of,
    threshold_of,
)
from fedage.server.sites.incoming import Answer
from fedage.server.sites.kept_steps import step_of
from fedage.server.sites.opening import Opening, opened_totals
from fedage.server.sites.secure_setting import Setting
from fedage.server.sites.session import Session

M = TypeVar("M", bound=Message)
_GRACE_S = 10.0
"""How long an opening waits for more sites once those that answered are enough."""


@dataclass(frozen=True)
class Summed:
    """What came of one request.

    Parameters
    ----------
    answers
        By site, what it says beside its masked words; no arrays.
    totals
        By block that was opened, the sum's rows of words.
    contributors
        By block, the sites with sums in it.
    members
        How many sites masked at most: the ring's places are for so many.
    refused
        By block why it was not opened.
    """

    answers: dict[str, Answer]
    totals: Mapping[str, ring.Words] = field(default_factory=dict)
    contributors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    members: int = 1
    refused: Mapping[str, str] = field(default_factory=dict)


Reserved = tuple[Setting, int, list[str]]
"""Keys, which of them, and of which sites."""
STEPS_KEPT = 2
"""Steps that the journal has of one sum, which another that tells what came of it may replace."""


def reserve(session: Session, kind: str, *, sites: Collection[str] | None = None) -> Reserved:
    """Keys for one sum over the sites that answer this kind of message, set up where there are none left."""
    wanted = {site for site in session.nodes if session.attendance.may(site, kind) and (sites is None or site in sites)}
    setting = _set_up(session, wanted)
    setting.used += 1
    return setting, setting.used - 1, sorted(wanted & set(setting.keys))


def ask_summed(
    session: Session,
    kind: str,
    payload: Payload,
    *,
    blocks: Mapping[str, tuple[int, int]],
    round_number: int = 0,
    fold: int = 0,
    sites: Collection[str] | None = None,
    wait_s: float | None = None,
    reserved: Reserved | None = None,
) -> Summed:
    """Send one request, and open the sum of the masked answers.

    Parameters
    ----------
    blocks
        By block that is asked for, its rows and the words of a row.
    wait_s
        How long to wait for more sites once the quorum has answered; None until the deadline.
    reserved
        Keys that were reserved before.
    """
    minimum = session.campaign.privacy.minimum_sites
    setting, number, members = reserved or reserve(session, kind, sites=sites)
    few = f"fewer than privacy.minimum_sites = {minimum} sites answered, so that nothing is opened"
    if len(members) < minimum:
        return Summed({}, refused=dict.fromkeys(blocks, few))
    asked = AskMasked(number=number, keys=tuple(setting.keys[site] for site in members))
    gathered = _gathered(
        session,
        kind,
        {**payload, **join_part(asked)},
        blocks,
        asked,
        step=(round_number, fold),
        sites=members,
        wait_s=wait_s,
    )
    receipts = gathered.receipts
    contributors = {
        block: tuple(site for site, receipt in sorted(receipts.items()) if receipt.contributes.get(block))
        for block in blocks
    }
    summed = Summed(gathered.answers, contributors=contributors, members=len(members))
    if len(receipts) < minimum:
        return replace(summed, refused=dict.fromkeys(blocks, few))
    missing = sorted(set(members) - set(receipts))
    told = _opened(session, setting, gathered, missing)
    opening = Opening(
        keys={site: setting.keys[site].keys[number] for site in members},
        channels=setting.channels,
        seed=setting.seed,
        receipts=receipts,
        missing=tuple(missing),
        told=told,
    )
    totals, refused, faults = opened_totals(opening, gathered.sums)
    for site, fault in faults.items():
        session.attendance.note(site, kind, fault, round_number=round_number, set_aside_by="masks")
    return replace(summed, totals=totals, refused=refused)


@dataclass
class _Gathered:
    """The masked answers of one request, added up as they arrive."""

    session: Session
    kind: str
    asked: AskMasked
    blocks: Mapping[str, tuple[int, int]]
    _: KW_ONLY
    wait_s: float | None = None
    answers: dict[str, Answer] = field(default_factory=dict)
    receipts: dict[str, Receipt] = field(default_factory=dict)
    shares: dict[str, dict[str, str]] = field(default_factory=dict)
    sums: dict[str, ring.Words] = field(default_factory=dict)
    _enough_since: float | None = None

    def take(self, answer: Answer) -> Answer:
        """Add one site's masked words; the answer without them. One that is not as asked is set aside and said so."""
        bare = replace(answer, payload={})
        if (fault := self._fault(answer)) is not None:
            self.session.attendance.note(answer.site, self.kind, fault, set_aside_by="secure-aggregation")
            return bare
        told = part_of(answer.payload, TellMasked)
        for block in self.blocks:
            words = answer.payload[MASKED + block]
            if block in self.sums:
                ring.add(self.sums[block], words)
            else:
                self.sums[block] = np.array(words)
        self.receipts[answer.site], self.shares[answer.site] = told.receipt, told.shares
        self.answers[answer.site] = bare
        return bare

    def reached(self) -> bool:
        """Whether the sites that answered are enough not to wait for the others."""
        if self.wait_s is None or len(self.receipts) < self.session.campaign.quorum:
            return False
        now = time.monotonic()
        self._enough_since = now if self._enough_since is None else self._enough_since
        return now >= self._enough_since + self.wait_s

    def _fault(self, answer: Answer) -> str | None:
        try:
            receipt = part_of(answer.payload, TellMasked).receipt
        except RequestRefused as refused:
            return refused.detail
        own = next(keys for keys in self.asked.keys if keys.site == answer.site)
        of = (receipt.number, receipt.keys, receipt.epoch, receipt.contributes.keys())
        if of != (self.asked.number, digest_of_all(self.asked.keys), own.epoch, self.blocks.keys()):
            return "it masked for another sum, by other keys, or other sums than were asked for"
        if not _is_by(self.session, answer.site, receipt):
            return "its receipt is not signed by the key that the campaign file has for it"
        for block, shape in self.blocks.items():
            words = answer.payload.get(MASKED + block)
            if words is None or words.dtype != np.uint64 or words.shape != shape:
                return f"its masked sums of {block} are not of the form that the campaign file implies"
        return None


def _gathered(
    session: Session,
    kind: str,
    payload: Payload,
    blocks: Mapping[str, tuple[int, int]],
    asked: AskMasked,
    *,
    step: tuple[int, int],
    sites: Collection[str],
    wait_s: float | None,
) -> _Gathered:
    """The sum of the masked answers, of this request or as it was before the run was resumed."""
    round_number, fold = step
    name = f"{step_of(kind, round_number=round_number, fold=fold)}, masked"
    gathered = _Gathered(session, kind, asked, blocks, wait_s=wait_s)
    if (before := session.replayed(name, sites=sites)) is not None:
        gathered.answers = before.answers
        for site, text in before.more["told"].items():
            told = TellMasked.model_validate_json(text)
            gathered.receipts[site], gathered.shares[site] = told.receipt, told.shares
        gathered.sums = {block: np.array(rows) for block, rows in before.sums.items()}
        return gathered
    session.ask(
        kind,
        payload,
        round_number=round_number,
        fold=fold,
        sites=sites,
        on_arrival=gathered.take,
        enough=gathered.reached,
    )
    gathered.answers = dict(sorted(gathered.answers.items()))
    if len(gathered.receipts) >= session.campaign.privacy.minimum_sites:
        texts = {
            site: TellMasked(receipt=receipt, shares=gathered.shares[site]).model_dump_json()
            for site, receipt in sorted(gathered.receipts.items())
        }
        session.steps.keep(name, gathered.answers, more={"told": texts}, sums=gathered.sums)
    return gathered


def _opened(session: Session, setting: Setting, gathered: _Gathered, missing: Collection[str]) -> dict[str, TellOpen]:
    """What the sites tell to open a sum."""
    receipts = tuple(receipt for _, receipt in sorted(gathered.receipts.items()))
    there = sorted(gathered.receipts)
    each = {
        site: join_part(
            AskOpen(
                receipts=receipts,
                shares={of: told[site] for of, told in sorted(gathered.shares.items()) if site in told},
                missing={of: setting.shares[of][site] for of in missing if site in setting.shares[of]},
            )
        )
        for site in there
    }
    threshold = threshold_of(len(neighbours(there[0], setting.channels, seed=setting.seed)) + 1)
    found: set[str] = set()
    since: list[float] = []

    def heard(answer: Answer) -> Answer:
        found.add(answer.site)
        return answer

    def enough() -> bool:
        if len(found) < threshold:
            return False
        since.append(time.monotonic())
        return len(found) == len(there) or since[-1] - since[0] > _GRACE_S

    name = f"{step_of(SECURE, round_number=0, fold=0)}, opened"
    before = session.replayed(name, sites=there)
    if before is not None:
        answers = before.answers
    else:
        answers = session.ask(SECURE, {}, each=each, sites=there, on_arrival=heard, enough=enough)
        if len(answers) >= threshold:
            session.steps.keep(name, answers)
    return _parts(session, answers, TellOpen)


def _set_up(session: Session, wanted: Collection[str]) -> Setting:
    """The keys by which the next sum is hidden: those at hand, or others where they are used up or sites lack some."""
    at_hand = session.setting
    if at_hand is not None and at_hand.used < at_hand.count and at_hand.asked.issuperset(wanted):
        return at_hand
    turn = 1 if at_hand is None else at_hand.turn + 1
    minimum = session.campaign.privacy.minimum_sites
    epoch = ring.digest_of("epoch", session.campaign.digest, session.run, turn)[:32]
    answers = session.ask(SECURE, join_part(AskChannel(epoch=epoch)), sites=wanted, needed=minimum)
    channels = {
        site: told for site, told in _parts(session, answers, Channel).items() if _is_usable(session, site, told, epoch)
    }
    setting = Setting(turn=turn, asked=frozenset(wanted), count=KEYS_AT_ONCE)
    if len(channels) >= minimum:
        asked = AskKeys(channels=tuple(told for _, told in sorted(channels.items())), count=setting.count)
        answers = session.ask(SECURE, join_part(asked), sites=sorted(channels), needed=minimum)
        found = {
            site: told
            for site, told in _parts(session, answers, TellKeys).items()
            if _is_usable(session, site, told.keys, epoch)
        }
        digest = digest_of_all(asked.channels)
        found = {site: t for site, t in found.items() if (t.keys.channels, len(t.keys.keys)) == (digest, setting.count)}
        setting.channels, setting.seed = tuple(sorted(channels)), digest
        setting.keys = {site: told.keys for site, told in found.items()}
        setting.shares = {site: told.shares for site, told in found.items()}
    session.setting = setting
    return setting


def _parts(session: Session, answers: Mapping[str, Answer], kind: type[M]) -> dict[str, M]:
    """What each site tells; of one whose words cannot be read it is said."""
    found = {}
    for site, answer in sorted(answers.items()):
        try:
            found[site] = part_of(answer.payload, kind)
        except RequestRefused as refused:
            session.attendance.note(site, SECURE, refused.detail, set_aside_by=refused.rule)
    return found


def _is_usable(session: Session, site: str, told: Channel | SumKeys, epoch: str) -> bool:
    """Whether the other sites would take a site's words for its own; if not it is said, and it is left out."""
    of = (told.site, told.digest, told.run, told.epoch) == (site, session.campaign.digest, session.run, epoch)
    if of and _is_by(session, site, told):
        return True
    told_so = (
        "its key is not signed by the key that the campaign file has for it (privacy.site_keys); compare it with what "
        "fedage site audit key shows there"
    )
    session.attendance.note(site, SECURE, told_so, set_aside_by="site-key")
    return False


def _is_by(session: Session, site: str, told: Signed) -> bool:
    """Whether a site signed its words; in simulation nobody signs."""
    if session.heads is None:
        return told.site == site
    key = session.campaign.privacy.site_keys.get(site)
    return told.site == site and key is not None and told.is_signed_by(key)
