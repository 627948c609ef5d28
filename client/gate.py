"""Who asks, for which campaign: every message passes here before a handler sees it."""

from __future__ import annotations

import hashlib

from fedage.client.site import Site
from fedage.common.campaign import Campaign
from fedage.common.protocol import DESCRIBE, Payload, Request, RequestRefused, verify


def admit(site: Site, request: Request, payload: Payload, signature: bytes, *, kind: str) -> Campaign:
    """The approved campaign a request belongs to.

    Raises
    ------
    RequestRefused
        Rules `malformed-request`, `signature`, `digest`, `not-approved`.
    """
    if request.kind != kind:
        raise RequestRefused("malformed-request", f"a {kind} message carries a request for {request.kind!r}")
    if site.coordinator_key is not None:
        verify(request, payload, signature, key=site.coordinator_key)
    if kind == DESCRIBE:
        if hashlib.sha256(request.campaign.encode()).hexdigest() != request.digest:
            raise RequestRefused("digest", "the campaign file sent does not have the digest it was offered under")
        site.offer(request.campaign, digest=request.digest)
    campaign = site.approved(request.digest)
    if campaign is None:
        raise RequestRefused(
            "not-approved",
            f"{site.name} has not approved the campaign with digest {request.digest[:16]}…; "
            "its administrator can read and approve it (fedage site campaigns, fedage site approve)",
        )
    return campaign
