"""Which estimators the demo shows, each with phantoms and a campaign file of its own; without imports until asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from fedage.common.errors import FedAgeError

if TYPE_CHECKING:  # scipy is slow to import, and the command's help needs the names only
    from fedage.deploy.demo.campaign import DemoCampaign
    from fedage.deploy.demo.truth import Planted

_KINDS = {
    "brain-clinical2d": "fedage.deploy.demo.clinical2d_campaign",
    "brain-contrastive": "fedage.deploy.demo.contrastive_campaign",
    "brain-patches": "fedage.deploy.demo.patches_campaign",
    "brain-sfcn": "fedage.deploy.demo.brain_campaign",
    "brain-tsan": "fedage.deploy.demo.tsan_campaign",
    "breast-4view": "fedage.deploy.demo.breast_campaign",
    "chest-ca": "fedage.deploy.demo.chest_campaign",
    "chest-ca-children": "fedage.deploy.demo.children_campaign",
}
"""By estimator, of whom where there are two, the module with its `DEMO`."""


@dataclass(frozen=True, kw_only=True)
class DemoKind:
    """What the demo of one estimator is made of.

    Parameters
    ----------
    sites
        The hospitals, in the order of their names.
    shown
        What is rendered, e.g. `chest radiographs`.
    render
        Writes `FOLDER/SITE/images` and `FOLDER/SITE/outcomes.csv` for a seed, fewer patients if quick.
    campaign
        What its campaign file says, quick or not. The policies of the hospitals allow its minimum count.
    with_default_policy
        Hospitals whose policies keep 10.
    """

    sites: tuple[str, ...]
    shown: str
    render: Callable[[Path, int, bool], Planted]
    campaign: Callable[[bool], DemoCampaign]
    with_default_policy: frozenset[str] = frozenset()

    def minimum_count(self, quick: bool) -> int:
        """What the policies of the hospitals allow."""
        return self.campaign(quick).minimum_count

    def campaign_file(self, planted: Planted, *, sites: Sequence[str], seed: int, quick: bool) -> str:
        """The campaign's text."""
        return self.campaign(quick).text(planted, sites=sites, seed=seed)


def names() -> tuple[str, ...]:
    """The estimators that there is a demo of."""
    return tuple(_KINDS)


def demo_of(estimator: str) -> DemoKind:
    """The demo of an estimator.

    Raises
    ------
    FedAgeError
        If there is none.
    """
    if estimator not in _KINDS:
        raise FedAgeError(f"there is no demo of estimator {estimator!r}; there are those of {', '.join(names())}")
    found: DemoKind = import_module(_KINDS[estimator]).DEMO
    return found
