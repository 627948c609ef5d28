"""The model that a campaign's rounds begin with where its file names a bundle: read from the message, and checked.

Attack: under an approved digest a coordinator begins with a model of his own making, say one that single patients show
in. Rule: the bytes have the SHA-256 that the approved file names, their signature and digests hold, and they are of the
file's estimator with the file's options; arrays that come in their place are not looked at. Residual risk: a bundle may
be made for the purpose before its file is approved, which is why approving such a file is a bundle's approval; how
steep its units may be is bounded where the first model is worked out (`fedage.common.estimators.derive`).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from fedage.client.inbox.gate import Work
from fedage.common.bundle.container import BundleRefused, read_bundle
from fedage.common.bundle.fits import require_campaign, require_no_own_statistics
from fedage.common.protocol.basis import Basis
from fedage.common.protocol.messages import RequestRefused

RULE = "bundle"


def with_start_bundle(work: Work, basis: Basis) -> Basis:
    """The basis with the arrays of the bundle that the approved file names, if it names one and it came.

    Raises
    ------
    RequestRefused
        Rule `bundle` for another one.
    """
    wanted = work.campaign.training.start_bundle if work.campaign.training is not None else None
    if wanted is None:
        return basis
    if not basis.bundle:
        return replace(basis, given=None)
    if hashlib.sha256(basis.bundle).hexdigest() != wanted:
        raise RequestRefused(RULE, "this is not the bundle whose SHA-256 the approved campaign file names")
    try:
        bundle = read_bundle(basis.bundle)
        require_campaign(bundle.description, work.campaign)
        require_no_own_statistics(bundle.description)
    except BundleRefused as refused:
        raise RequestRefused(RULE, str(refused)) from None
    return replace(basis, given=bundle.weights)
