"""The model of a campaign that validates a bundle: read from the message, and only if it is the one that was approved.

Attack: under an approved digest a coordinator sends a model of his own making, say one that single patients show in.
Rule: the bytes have the SHA-256 that the approved file names, their signature and digests hold, they are of the file's
estimator with the file's options, and their standardisation does not single this site's patients out. Residual risk: a
bundle may be made for the purpose before its file is approved. Its predictions are accounted for as columns of the
site's own table are (`compute.contribute`), so that two bundles which differ for a few patients are not both answered.
"""

from __future__ import annotations

import hashlib

from fedage.client.inbox.gate import Work
from fedage.client.inbox.model_continuity import must_fit_the_site
from fedage.common.bundle.container import Arrays, BundleRefused, read_bundle
from fedage.common.bundle.fits import require_campaign, require_no_own_statistics
from fedage.common.protocol.messages import RequestRefused, bundle_of, model_of

RULE = "bundle"


def model_of_bundle(work: Work) -> Arrays:
    """The arrays of the bundle that the approved file names.

    Raises
    ------
    RequestRefused
        Rule `bundle` if the request has none, or another model; `model-standard` as for any model.
    """
    wanted = work.campaign.bundle
    content = bundle_of(work.payload)
    if content is None or model_of(work.payload):
        raise RequestRefused(
            RULE, "a request of a campaign that validates a bundle brings that bundle and no other model"
        )
    if hashlib.sha256(content).hexdigest() != wanted:
        raise RequestRefused(RULE, "this is not the bundle whose SHA-256 the approved campaign file names")
    try:
        bundle = read_bundle(content)
        require_campaign(bundle.description, work.campaign)
        require_no_own_statistics(bundle.description)
    except BundleRefused as refused:
        raise RequestRefused(RULE, str(refused)) from None
    must_fit_the_site(work, bundle.weights)
    return bundle.weights
