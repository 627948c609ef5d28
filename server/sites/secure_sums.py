"""Sums over the sites of which the coordinator never sees one site's: asked for masked, added up, opened together.

The masked words are added as they arrive, so that not even one site's masked vector is kept. What the journal has of a
step are the sum of the masked words, the receipts, and then the seeds and shares by which it was opened: from these a
resumed run works out the same total, and asks nobody for anything twice.

A sum is opened if every site with figures in it says yes. Where one has left before it was asked that, or its shares
cannot be read, the sum is asked for once more without it, if the others may be opened alone (`OpenedSets`).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace

import numpy as np

from fedage.common.privacy import ring
from fedage.common.privacy.site_sets import SiteSet
from fedage.common.protocol.messages import SECURE, Payload, RequestRefused
from fedage.common.protocol.secure import (
    MASKED,
    AskMasked,
    AskOpen,
    Receipt,
    TellMasked,
    TellOpen,
    digest_of_all,
    join_part,
    neighbours,
    part_of,
    set_of,
    threshold_of,
)
from fedage.common.statistics.statistic import FloatArray
from fedage.server.sites.incoming import Answer
from fedage.server.sites.kept_steps import step_of
from fedage.server.sites.opened_sets import Blocks
from fedage.server.sites.opening import Opening, opened_totals
from fedage.server.sites.secure_setting import Setting
from fedage.server.sites.session import Session
from fedage.server.sites.setting_up import GIVEN_UP, Reserved, is_by, readable_parts, reserve, set_up

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
    results
        By block and site, the sums of sites that tell their own.
    steps
        How many steps the journal has of it.
    retries
        How many more keys it took than one.
    """

    answers: dict[str, Answer]
    totals: Mapping[str, ring.Words] = field(default_factory=dict)
    contributors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    members: int = 1
    refused: Mapping[str, str] = field(default_factory=dict)
    results: Mapping[str, Mapping[str, FloatArray]] = field(default_factory=dict)
    steps: int = 0
    retries: int = 0


def ask_summed(
    session: Session,
    kind: str,
    payload: Payload,
    *,
    blocks: Mapping[str, tuple[int, int]],
    groups: Blocks | None = None,
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
    groups
        By block of an analysis, which others it shares its patients with (`opened_sets.group_of`).
    wait_s
        How long to wait for more sites once the quorum has answered; None until the deadline.
    reserved
        Keys that were reserved before.
    """
    of_blocks = {block: (groups or {}).get(block, "") for block in blocks}
    keys = reserved or reserve(session, kind, blocks=of_blocks, sites=sites)
    step = (round_number, fold)
    summed = _summed(session, kind, payload, keys, blocks=blocks, groups=of_blocks, request=step, wait_s=wait_s)
    session.steps.sets.unopened = None if summed.totals else summed.steps
    return summed


def _summed(
    session: Session,
    kind: str,
    payload: Payload,
    reserved: Reserved,
    *,
    blocks: Mapping[str, tuple[int, int]],
    groups: Blocks,
    request: tuple[int, int],
    wait_s: float | None,
) -> Summed:
    privacy, (round_number, fold) = session.campaign.privacy, request
    setting, number, members = reserved
    members = session.steps.sets.members(groups, members, privacy=privacy)
    few = f"fewer than privacy.minimum_sites = {privacy.minimum_sites} sites answered, so that nothing is opened"
    if len(members) < privacy.minimum_sites:
        return Summed({}, refused=dict.fromkeys(blocks, few))
    asked = AskMasked(number=number, keys=tuple(setting.keys[site] for site in members))
    gathered = _gathered(
        session,
        kind,
        {**payload, **join_part(asked)},
        blocks,
        asked,
        groups=groups,
        step=request,
        sites=members,
        wait_s=wait_s,
    )
    receipts = gathered.receipts
    contributors = {
        block: tuple(site for site, receipt in sorted(receipts.items()) if receipt.contributes.get(block))
        for block in blocks
    }
    summed = Summed(gathered.answers, contributors=contributors, members=len(members))
    if len(receipts) < privacy.minimum_sites:
        return replace(summed, refused=dict.fromkeys(blocks, few))
    summed = replace(summed, steps=1)
    sets = {block: _set_of(session, block, receipts) for block in blocks}
    answering = _set_of(session, "", receipts)
    refused = {}
    for block, each in sets.items():
        if why := session.steps.sets.why_refused(block, each, group=groups[block], answering=answering):
            refused[block] = why
    if len(refused) == len(sets):
        return replace(summed, refused=refused)

    def once_more(without: Collection[str], *, steps: int) -> Summed:
        for site in without:
            session.attendance.note(site, kind, _LEFT_OUT, round_number=round_number)
        again = set_up(session, set(members) - set(without), sums=1)
        again.used += 1
        left = sorted((set(members) - set(without)) & set(again.keys))
        keys = (again, again.used - 1, left)
        found = _summed(session, kind, payload, keys, blocks=blocks, groups=groups, request=request, wait_s=wait_s)
        return replace(found, steps=found.steps + steps, retries=found.retries + 1)

    step = step_of(kind, round_number=round_number, fold=fold)
    if gone := _left_before_opening(session, receipts, groups, step=step):
        return once_more(gone, steps=2)
    missing = sorted(set(members) - set(receipts))
    told, is_kept = _opened(session, setting, gathered, missing)
    summed = replace(summed, steps=1 + is_kept)
    unreadable = sorted({site for each in told.values() for site in each.unreadable} & set(receipts))
    if is_kept and unreadable and _may_go_on(session, receipts, groups, without=unreadable):
        return once_more(unreadable, steps=2)
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
    for block in totals:
        session.steps.sets.note(block, sets[block])
        if groups[block]:
            session.steps.sets.note(groups[block], answering)
    results = {
        block: {site: np.array(each.results[block]) for site, each in sorted(told.items()) if block in each.results}
        for block in totals
    }
    return replace(summed, totals=totals, refused=refused, results=results)


def give_up_last(session: Session) -> None:
    """Before a run ends because its last sum was not opened: let it ask for this sum anew when it is resumed."""
    if (steps := session.steps.sets.unopened) is not None:
        session.steps.keep(GIVEN_UP, {}, replaces=steps)


_OPENED = f"{step_of(SECURE, round_number=0, fold=0)}, opened"
_LEFT_OUT = "left before the sum was opened, or its shares could not be read; the sum was asked for again without it"


def _set_of(session: Session, block: str, receipts: Mapping[str, Receipt]) -> SiteSet:
    privacy = session.campaign.privacy
    noised, minimum = privacy.mode == "sample", privacy.minimum_sites
    return set_of(block, list(receipts.values()), noised=noised, minimum=minimum)


def _may_go_on(session: Session, receipts: Mapping[str, Receipt], blocks: Blocks, *, without: Collection[str]) -> bool:
    """Whether a sum without some sites is worth asking for: the others are enough, and may be opened alone."""
    left = {site: receipt for site, receipt in receipts.items() if site not in without}
    known, answering = session.steps.sets, _set_of(session, "", left)
    enough = len(left) >= session.campaign.privacy.minimum_sites
    return enough and not any(
        known.alone(block, _set_of(session, block, left)) or known.alone(group, answering)
        for block, group in blocks.items()
    )


def _left_before_opening(session: Session, receipts: Mapping[str, Receipt], blocks: Blocks, *, step: str) -> list[str]:
    """Sites with figures in a sum that have left, if it is to be asked for without them; of a resumed run as then."""
    name = f"{step}, left"
    if session.steps.is_next(name) and (before := session.steps.replayed(name)) is not None:
        return list(before.more["left"])
    if session.steps.is_next(_OPENED):
        return []
    online = set(session.grid.get_node_ids())
    gone = [s for s, each in receipts.items() if any(each.contributes.values()) and session.nodes[s] not in online]
    if not gone or not _may_go_on(session, receipts, blocks, without=gone):
        return []
    session.steps.keep(name, {}, more={"left": sorted(gone)})
    return sorted(gone)


@dataclass
class _Gathered:
    """The masked answers of one request, added up as they arrive."""

    session: Session
    kind: str
    asked: AskMasked
    blocks: Mapping[str, tuple[int, int]]
    groups: Blocks
    _: KW_ONLY
    wait_s: float | None = None
    answers: dict[str, Answer] = field(default_factory=dict)
    receipts: dict[str, Receipt] = field(default_factory=dict)
    shares: dict[str, dict[str, str]] = field(default_factory=dict)
    sums: dict[str, ring.Words] = field(default_factory=dict)
    _enough_since: float | None = None

    @property
    def needed(self) -> frozenset[str]:
        """The sites without which the sum would not be opened."""
        asked = [keys.site for keys in self.asked.keys]
        return self.session.steps.sets.needed(self.groups, asked, privacy=self.session.campaign.privacy)

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
        if self.wait_s is None or len(self.receipts) < self.session.campaign.quorum or self.needed - set(self.receipts):
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
        if not is_by(self.session, answer.site, receipt):
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
    groups: Blocks,
    step: tuple[int, int],
    sites: Collection[str],
    wait_s: float | None,
) -> _Gathered:
    """The sum of the masked answers, of this request or as it was before the run was resumed."""
    round_number, fold = step
    name = f"{step_of(kind, round_number=round_number, fold=fold)}, masked"
    gathered = _Gathered(session, kind, asked, blocks, groups, wait_s=wait_s)
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
        needed=len(sites) if gathered.needed else None,
    )
    gathered.answers = dict(sorted(gathered.answers.items()))
    if len(gathered.receipts) >= session.campaign.privacy.minimum_sites:
        texts = {
            site: TellMasked(receipt=receipt, shares=gathered.shares[site]).model_dump_json()
            for site, receipt in sorted(gathered.receipts.items())
        }
        session.steps.keep(name, gathered.answers, more={"told": texts}, sums=gathered.sums)
    return gathered


def _opened(
    session: Session, setting: Setting, gathered: _Gathered, missing: Collection[str]
) -> tuple[dict[str, TellOpen], bool]:
    """What the sites tell to open a sum, and whether the journal has it.

    Those with figures in it have to tell, and of the others so many that more than half do.
    """
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
    needed = {site for site, receipt in gathered.receipts.items() if any(receipt.contributes.values())}
    found: set[str] = set()
    since: list[float] = []

    def heard(answer: Answer) -> Answer:
        found.add(answer.site)
        return answer

    def enough() -> bool:
        if len(found) < threshold or not needed <= found:
            return False
        since.append(time.monotonic())
        return len(found) == len(there) or since[-1] - since[0] > _GRACE_S

    before = session.replayed(_OPENED, sites=there)
    is_enough = before is not None
    if before is not None:
        answers = before.answers
    else:
        fewest = max(threshold, len(needed))
        answers = session.ask(SECURE, {}, each=each, sites=there, on_arrival=heard, enough=enough, needed=fewest)
        is_enough = len(answers) >= threshold and needed <= set(answers)
        if is_enough:
            session.steps.keep(_OPENED, answers)
    return readable_parts(session, answers, TellOpen), is_enough
