"""A campaign file: read, checked, described, written."""

from fedage.common.campaign_file.parse import parse_campaign
from fedage.common.toml.problems import CampaignErrors, Problem

__all__ = ["CampaignErrors", "Problem", "parse_campaign"]
