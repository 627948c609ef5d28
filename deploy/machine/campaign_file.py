"""A campaign file from disk, checked."""

from __future__ import annotations

from pathlib import Path

from fedage.common.campaign import Campaign
from fedage.common.campaign_file import CampaignErrors, Problem, parse_campaign
from fedage.common.toml.text import MAX_TOML_BYTES
from fedage.deploy.machine.bounded import FileTooLarge, read_at_most


def load_campaign(path: Path | str) -> Campaign:
    """Read and check a campaign file.

    Raises
    ------
    CampaignErrors
        With every problem of the file, also when it cannot be read at all.
    """
    path = Path(path)
    try:
        content = read_at_most(path, most_bytes=MAX_TOML_BYTES)
    except FileTooLarge as error:
        message = f"{path}: has {error.strerror}: it is no campaign file; give the path of one"
        raise CampaignErrors((Problem("", message),), name=path.name) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        message = f"{path}: cannot be read ({reason}); give the path of a campaign file"
        raise CampaignErrors((Problem("", message),), name=path.name) from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        message = f"{path.name}, line {line}: not UTF-8; save the file as UTF-8"
        raise CampaignErrors((Problem("", message),), name=path.name) from None
    return parse_campaign(text, name=path.name)
