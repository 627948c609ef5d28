"""The keys of the sites for some sums, as the coordinator relays them (`protocol.secure`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedage.common.protocol.secure import SumKeys


@dataclass
class Setting:
    """One setting-up.

    Parameters
    ----------
    turn
        Which of the run's it is, from 1.
    asked
        The sites that were asked; a site beyond these needs another setting-up.
    keys
        By site, its public keys.
    channels
        The sites that the shares were made for.
    shares
        By site, and by whom they are for, the shares of its keys, encrypted.
    count
        How many sums the keys are for.
    seed
        Digest of all channels, from which neighbours follow.
    used
        How many of the keys are taken.
    """

    turn: int
    asked: frozenset[str]
    count: int
    keys: Mapping[str, SumKeys] = field(default_factory=dict)
    shares: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    seed: str = ""
    used: int = 0
