"""The campaign file: everything about a campaign in one approved text."""

from fedage.common.campaign.parse import load_campaign, parse_campaign
from fedage.common.campaign.problems import CampaignErrors, Problem
from fedage.common.campaign.types import Campaign

__all__ = ["Campaign", "CampaignErrors", "Problem", "load_campaign", "parse_campaign"]
