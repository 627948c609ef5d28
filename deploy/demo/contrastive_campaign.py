"""The demo of `brain-contrastive`: the heads of the demo of `brain-sfcn`, and how well scanners are recognised."""

from __future__ import annotations

from dataclasses import replace

from fedage.deploy.demo import brain_campaign
from fedage.deploy.demo.campaign import DemoCampaign

_OPTIONS = {
    **brain_campaign.HEADS,
    "width": 8,
    "dimensions": 8,
    "kernel_width_years": 5.0,
    "site_probe": True,
}


def _campaign(quick: bool) -> DemoCampaign:
    return replace(
        brain_campaign.DEMO.campaign(quick),
        purpose="Show on rendered heads that age can be learnt by contrasts, and how well scanners are recognised",
        estimator="brain-contrastive",
        options=_OPTIONS,
        batch_size=16,
    )


DEMO = replace(brain_campaign.DEMO, campaign=_campaign)
