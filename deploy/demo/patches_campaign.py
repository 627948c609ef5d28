"""The demo of `brain-patches`: the heads of the demo of `brain-sfcn`, with an age of each of eight places."""

from __future__ import annotations

from dataclasses import replace

from fedage.deploy.demo import brain_campaign
from fedage.deploy.demo.campaign import DemoCampaign

_OPTIONS = {
    **brain_campaign.HEADS,
    "intensity": "mean",
    "patch": 20,
    "per_axis": 2,
    "patches_in_training": 4,
    "blocks": 3,
    "width": 8,
    "centre_years": 62.0,
    "shift_voxels": 1,
}


def _campaign(quick: bool) -> DemoCampaign:
    return replace(
        brain_campaign.DEMO.campaign(quick),
        purpose="Show on rendered heads that ages of places can be learnt together and that the gap predicts events",
        estimator="brain-patches",
        options=_OPTIONS,
    )


DEMO = replace(brain_campaign.DEMO, campaign=_campaign)
