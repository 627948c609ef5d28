"""Whether a sum may be opened over a set of sites, given those over which sums of its family were opened before.

Attack: the same question, or one that differs by a hair, over one site fewer; the difference is that site's sums.
Three sets of which no two are near do the same: {A, B, C} and {A, D, E} less {B, C, D, E} are twice A. Rule, kept by
each site for the sets that it is in: two sets are the same; or they differ only by sites that have agreed to be left
out; or one lies within the other, has more than half of its sites, and lacks at least as many as a sum may be opened
over. So the sets of a family are chains: a set has at most one next smaller one, as two could not both have more than
half of it. Whatever is added and subtracted along a chain is over whole differences, none of which is smaller than
that. As the sums of those who have agreed may be found, the others in two sets are as many without them. Residual risk:
sites that work with the coordinator know their own sums and take them out of any difference.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SiteSet:
    """The sites of one opening.

    Parameters
    ----------
    sites
        Those with sums in it.
    agreed
        Those of them that have agreed to be left out of others.
    minimum
        Fewest sites over which a sum of that campaign is opened.
    """

    sites: frozenset[str]
    agreed: frozenset[str] = frozenset()
    minimum: int

    @property
    def free(self) -> frozenset[str]:
        """Those who may be left out: all that have agreed, unless the others are too few to be seen without them."""
        rest = len(self.sites - self.agreed)
        return self.agreed if rest == 0 or rest >= self.minimum else frozenset()


def sites_alone(now: SiteSet, earlier: Collection[SiteSet]) -> frozenset[str]:
    """The sites whose sums would be found by subtraction if `now` were opened after `earlier`; none if it may be.

    Sets without a common site are of other sums.
    """
    for before in earlier:
        common = before.sites & now.sites
        if not common or before.sites == now.sites:
            continue
        fewest, free = max(now.minimum, before.minimum), before.free | now.free
        left, came, rest = before.sites - now.sites - before.free, now.sites - before.sites - now.free, common - free
        if 0 < len(rest) < fewest:
            return rest
        keeps_most = 2 * len(common) > max(len(before.sites), len(now.sites))
        if not (left or came) or (not (left and came) and len(left | came) >= fewest and keeps_most):
            continue
        return left | came
    return frozenset()
