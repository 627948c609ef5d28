"""Over which sites the sums of a run were opened: whom the next sum of the same is asked of, and who has to be in it.

The sites decide (`common.privacy.site_sets`); what is known here saves asking for what they would refuse.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedage.common.campaign.types import Privacy
from fedage.common.privacy.site_sets import SiteSet, sites_alone
from fedage.common.protocol.secure import UPDATE

Blocks = Mapping[str, str]
"""By block what is opened over all sites that answer it, as `group_of` has it; empty for a block of a round."""


def group_of(subset: str) -> str:
    """What stands for all analyses of the same patients among the blocks."""
    return f"analyses of {subset or 'all'}"


@dataclass
class OpenedSets:
    """The sets of sites of one run, by block, in the order in which they were opened.

    `unopened` is how many steps the journal has of the last sum, if nothing of it was opened.
    """

    by_block: dict[str, list[SiteSet]] = field(default_factory=dict)
    unopened: int | None = None

    def members(self, blocks: Blocks, sites: Collection[str], *, privacy: Privacy) -> list[str]:
        """Of some sites those to ask: where all blocks have been opened, no others than had a part in one of them.

        Of analyses of the same patients, those that answered the first. One that went on without a site does not begin
        again with it; a training takes it back.
        """
        wanted, before = sorted(sites), self._before(blocks, sites, privacy=privacy)
        for sets in self._answered(blocks, sites):
            wanted = [site for site in wanted if site in sets[-1].sites]
        if not before:
            return wanted
        first = 0 if UPDATE in blocks else -1
        known = frozenset[str]().union(*(each.sites for sets in before for each in sets[first:]))
        return [site for site in wanted if site in known]

    def needed(self, blocks: Blocks, sites: Collection[str], *, privacy: Privacy) -> frozenset[str]:
        """Of some sites those without which no sum of the blocks would be opened; none of blocks that are new."""
        before, answered = self._before(blocks, sites, privacy=privacy), self._answered(blocks, sites)
        if len(answered) == len(blocks):
            before += answered
        if not before:
            return frozenset()
        return frozenset.intersection(*(sets[-1].sites - sets[-1].free for sets in before)).intersection(sites)

    def _answered(self, blocks: Blocks, sites: Collection[str]) -> list[list[SiteSet]]:
        """By block of analyses, the sets that answered analyses of the same patients, where some of the sites did."""
        found = [[s for s in self.by_block.get(group, ()) if s.sites.intersection(sites)] for group in blocks.values()]
        return [sets for sets in found if sets]

    def _before(self, blocks: Blocks, sites: Collection[str], *, privacy: Privacy) -> list[list[SiteSet]]:
        """By block, the sets that some of the sites were in; nothing where there are none of a block."""
        if UPDATE in blocks and privacy.mode == "sample":
            return []
        before = [[s for s in self.by_block.get(block, ()) if s.sites.intersection(sites)] for block in blocks]
        return before if all(before) else []

    def alone(self, block: str, now: SiteSet) -> frozenset[str]:
        """The sites whose sums would be found by subtraction, as far as is known here."""
        return sites_alone(now, self.by_block.get(block, ()) if block else ())

    def why_refused(self, block: str, now: SiteSet, *, group: str, answering: SiteSet) -> str:
        """Why the sites would not let a block be opened, as far as is known here; empty if they might."""
        if len(now.sites) < now.minimum:
            return f"fewer than {now.minimum} sites contribute to it"
        if not (alone := self.alone(block, now)):
            if not (alone := self.alone(group, answering)):
                return ""
            now = answering
        whose = ", ".join(sorted(alone))
        over = f"without {whose}" if now.sites.isdisjoint(alone) else f"over {', '.join(sorted(now.sites))}"
        return (
            f"opened {over}, it would tell the sums of {whose} alone by subtraction from what was opened before; "
            "resume the run when all its sites are there"
        )

    def note(self, block: str, now: SiteSet) -> None:
        """Note that a block was opened; of the same sites the newest word counts."""
        others = [each for each in self.by_block.get(block, ()) if each.sites != now.sites]
        self.by_block[block] = [*others, now]

    def to_json(self) -> dict[str, Any]:
        """What `restore` takes."""
        return {
            block: [[sorted(each.sites), sorted(each.agreed), each.minimum] for each in sets]
            for block, sets in self.by_block.items()
        }

    def restore(self, told: Mapping[str, Any]) -> None:
        """Know what was known then, and nothing else."""
        self.by_block = {
            block: [SiteSet(sites=frozenset(s), agreed=frozenset(a), minimum=m) for s, a, m in sets]
            for block, sets in told.items()
        }
