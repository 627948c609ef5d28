"""What a campaign file says: the frozen objects that it becomes."""

from fedage.common.campaign.types import Campaign

__all__ = ["Campaign"]
