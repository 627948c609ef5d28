"""One campaign file made into one for each site, in which that site only validates what the others train."""

from __future__ import annotations

import re

from fedage.common.campaign.types import Campaign
from fedage.common.campaign_file.parse import parse_campaign
from fedage.common.errors import FedAgeError

_FEWEST_SITES = 3
_HEADER = re.compile(r"^\s*\[(?P<table>[^\[\]]+)\]\s*(#.*)?$")
_LONGEST_NAME = 63


def without_each_site(text: str, *, name: str = "campaign.toml") -> dict[str, str]:
    """By site of `campaign.sites`, the file's text with that site in `validation.sites`, and a name of its own.

    Everything else is as it was, comments included: each text is read again and held against that.

    Raises
    ------
    CampaignErrors
        If the file, or one of those made of it, is wrong.
    FedAgeError
        If it trains nothing, names fewer than three sites, has sites that only validate, or hides sums.
    """
    campaign = parse_campaign(text, name=name)
    if reason := _why_not(campaign):
        raise FedAgeError(f"{name}: {reason}")
    return {site: _without(text, campaign, site, name=name) for site in campaign.campaign.sites}


def _why_not(campaign: Campaign) -> str:
    if campaign.estimator is None or campaign.estimator.bundle is not None:
        return "it trains nothing, so that no site can be left out of training; give a campaign that does"
    if len(campaign.campaign.sites) < _FEWEST_SITES:
        return f"campaign.sites must name at least {_FEWEST_SITES} sites, of which one is left out at a time"
    if campaign.validation.sites:
        return f"validation.sites has {', '.join(campaign.validation.sites)} already; remove it"
    if campaign.privacy.secure_aggregation:
        return (
            "sites open hidden sums over one set of sites for good, and each of these files has another; "
            "set privacy.secure_aggregation = false"
        )
    return ""


def _without(text: str, campaign: Campaign, site: str, *, name: str) -> str:
    called = f"{campaign.campaign.name}-without-{site}"
    if len(called) > _LONGEST_NAME:
        raise FedAgeError(f"{name}: the name {called} has more than {_LONGEST_NAME} characters; shorten campaign.name")
    made = _edited(text, called=called, site=site, fractions=_fractions(campaign))
    found = parse_campaign(made, name=name)
    wanted = campaign.model_dump()
    wanted["campaign"]["name"] = called
    wanted["validation"] = {**wanted["validation"], "sites": (site,)}
    if _settings(found.model_dump()) != _settings(wanted):
        raise FedAgeError(
            f"{name}: its tables cannot be edited as they are written; write [campaign] and [validation] as tables "
            "of their own, a key a line"
        )
    return made


def _settings(dumped: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in dumped.items() if key not in ("digest", "text")}


def _fractions(campaign: Campaign) -> list[str]:
    """Lines of the table that a file needs which left it out."""
    if campaign.validation.fractions is None:
        return []
    parts = campaign.validation.fractions.model_dump()
    return ["", "[validation.fractions]", *(f"{name} = {part}" for name, part in parts.items())]


def _edited(text: str, *, called: str, site: str, fractions: list[str]) -> str:
    lines, table, is_named, is_set = [], "", False, False
    only_validates = f'sites = ["{site}"]'
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header is not None:
            table = re.sub(r"\s+", "", header["table"])
            if table.startswith("validation.") and not is_set:
                lines += ["[validation]", only_validates, ""]
                is_set = True
        if table == "campaign" and not is_named and re.match(r"\s*name\s*=", line):
            line, is_named = f'name = "{called}"', True
        lines.append(line)
        if header is not None and table == "validation" and not is_set:
            lines.append(only_validates)
            is_set = True
    if not is_set:
        lines += ["", "[validation]", only_validates, *fractions]
    return "\n".join(lines) + "\n"
