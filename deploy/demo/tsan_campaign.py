"""The demo of `brain-tsan`: the heads of the demo of `brain-sfcn`, learnt in two stages."""

from __future__ import annotations

from dataclasses import replace

from fedage.deploy.demo import brain_campaign
from fedage.deploy.demo.campaign import DemoCampaign

_OPTIONS = {
    **brain_campaign.HEADS,
    "intensity": "mean",
    "blocks": 3,
    "first_age_years": 62.0,
    "shift_voxels": 1,
}


def _campaign(quick: bool) -> DemoCampaign:
    return replace(
        brain_campaign.DEMO.campaign(quick),
        purpose="Show on rendered heads that age can be learnt in two stages and that the gap predicts events",
        estimator="brain-tsan",
        options=_OPTIONS,
        rounds=4 if quick else 8,
    )


DEMO = replace(brain_campaign.DEMO, campaign=_campaign)
