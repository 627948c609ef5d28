"""Keys for the next sums (`protocol.secure`): set up, of the sites that the campaign file names, and reserved."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TypeVar

from fedage.common.privacy import ring
from fedage.common.protocol.messages import SECURE, RequestRefused
from fedage.common.protocol.secure import (
    KEYS_AT_ONCE,
    AskChannel,
    AskKeys,
    Channel,
    Message,
    Signed,
    SumKeys,
    TellKeys,
    digest_of_all,
    join_part,
    part_of,
)
from fedage.server.sites.incoming import Answer
from fedage.server.sites.opened_sets import Blocks
from fedage.server.sites.secure_setting import Setting
from fedage.server.sites.session import Session

M = TypeVar("M", bound=Message)
GIVEN_UP = "a sum given up"
"""A step of the journal in the place of those of a sum that was not opened: a resumed run asks for it anew."""
Reserved = tuple[Setting, int, list[str]]
"""Keys, which of them, and of which sites."""


def reserve(session: Session, kind: str, *, blocks: Blocks, sites: Collection[str] | None = None) -> Reserved:
    """Keys for one sum of some blocks over the sites that answer this kind of message, set up where there are none."""
    wanted = {site for site in session.nodes if session.attendance.may(site, kind) and (sites is None or site in sites)}
    needed = session.steps.sets.needed(blocks, wanted, privacy=session.campaign.privacy)
    # Keys for one sum more, should a site leave in the middle.
    setting = set_up(session, wanted, sums=2, needed=needed)
    setting.used += 1
    return setting, setting.used - 1, sorted(wanted & set(setting.keys))


def set_up(session: Session, wanted: Collection[str], *, sums: int, needed: Collection[str] = ()) -> Setting:
    """The keys that hide the next sums: those at hand, or others where they are used up or a site has none."""
    at_hand = session.setting
    if session.steps.is_next(GIVEN_UP):
        session.steps.replayed(GIVEN_UP)
        needed = wanted  # the keys at hand have served in part
        at_hand = at_hand and replace(at_hand, used=at_hand.count)
    is_for_these = at_hand is not None and at_hand.asked.issuperset(wanted) and set(needed) <= set(at_hand.keys)
    if at_hand is not None and is_for_these and at_hand.used + sums <= at_hand.count:
        return at_hand
    turn = 1 if at_hand is None else at_hand.turn + 1
    minimum = session.campaign.privacy.minimum_sites
    fewest = len(wanted) if needed else minimum
    epoch = ring.digest_of("epoch", session.campaign.digest, session.run, turn)[:32]
    answers = session.ask(SECURE, join_part(AskChannel(epoch=epoch)), sites=wanted, needed=fewest)
    channels = {
        site: told
        for site, told in readable_parts(session, answers, Channel).items()
        if _is_usable(session, site, told, epoch)
    }
    setting = Setting(turn=turn, asked=frozenset(wanted), count=KEYS_AT_ONCE)
    if len(channels) >= minimum:
        asked = AskKeys(channels=tuple(told for _, told in sorted(channels.items())), count=setting.count)
        answers = session.ask(SECURE, join_part(asked), sites=sorted(channels), needed=min(fewest, len(channels)))
        found = {
            site: told
            for site, told in readable_parts(session, answers, TellKeys).items()
            if _is_usable(session, site, told.keys, epoch)
        }
        digest = digest_of_all(asked.channels)
        found = {site: t for site, t in found.items() if (t.keys.channels, len(t.keys.keys)) == (digest, setting.count)}
        setting.channels, setting.seed = tuple(sorted(channels)), digest
        setting.keys = {site: told.keys for site, told in found.items()}
        setting.shares = {site: told.shares for site, told in found.items()}
    session.setting = setting
    if session.steps.is_next(GIVEN_UP):
        return set_up(session, wanted, sums=sums, needed=needed)
    return setting


def readable_parts(session: Session, answers: Mapping[str, Answer], kind: type[M]) -> dict[str, M]:
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
    if of and is_by(session, site, told):
        return True
    told_so = (
        "its key is not signed by the key that the campaign file has for it (privacy.site_keys); compare it with what "
        "fedage site audit key shows there"
    )
    session.attendance.note(site, SECURE, told_so, set_aside_by="site-key")
    return False


def is_by(session: Session, site: str, told: Signed) -> bool:
    """Whether a site signed its words; in simulation nobody signs."""
    if session.heads is None:
        return told.site == site
    key = session.campaign.privacy.site_keys.get(site)
    return told.site == site and key is not None and told.is_signed_by(key)
