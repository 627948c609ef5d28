"""The demo of `brain-contrastive`: the heads of the demo of `brain-sfcn`, and how well scanners are recognised."""

from __future__ import annotations

from dataclasses import replace

from fedage.deploy.demo import brain_campaign
from fedage.deploy.demo.campaign import DemoCampaign

_ESTIMATOR = """\
[estimator]
name = "brain-contrastive"

[estimator.options]
shape = [32, 32, 32]
spacing_mm = 6.0
coarsest_mm = 6.0
width = 8
dimensions = 8
kernel_width_years = 5.0
site_probe = true

[cohort]
age_min_years = 40
age_max_years = 90
"""


def _campaign(quick: bool) -> DemoCampaign:
    return replace(
        brain_campaign.DEMO.campaign(quick),
        purpose="Show on rendered heads that age can be learnt by contrasts, and how well scanners are recognised",
        estimator=_ESTIMATOR,
        batch_size=16,
    )


DEMO = replace(brain_campaign.DEMO, campaign=_campaign)
