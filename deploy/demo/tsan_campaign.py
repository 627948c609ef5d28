"""The demo of `brain-tsan`: the heads of the demo of `brain-sfcn`, learnt in two stages."""

from __future__ import annotations

from dataclasses import replace

from fedage.deploy.demo import brain_campaign
from fedage.deploy.demo.campaign import DemoCampaign

_ESTIMATOR = """\
[estimator]
name = "brain-tsan"

[estimator.options]
shape = [32, 32, 32]
spacing_mm = 6.0
coarsest_mm = 6.0
intensity = "mean"
blocks = 3
first_age_years = 62.0
shift_voxels = 1

[cohort]
age_min_years = 40
age_max_years = 90
"""


def _campaign(quick: bool) -> DemoCampaign:
    return replace(
        brain_campaign.DEMO.campaign(quick),
        purpose="Show on rendered heads that age can be learnt in two stages and that the gap predicts events",
        estimator=_ESTIMATOR,
        rounds=4 if quick else 8,
    )


DEMO = replace(brain_campaign.DEMO, campaign=_campaign)
