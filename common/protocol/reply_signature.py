"""A site's signature under its answer: over all that is in it, its packed arrays, and the request that it answers.

Between a site's agent and the coordinator lie the site's own connectivity zone and the coordinator's network. With the
signature neither can alter a sum, pair an answer with another request's, or pass off one site's as another's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedage.common.protocol.messages import MAX_REASON, MAX_WORD, Reply, printable

_CONTEXT = b"fedage reply 2\n"


def signing_bytes(reply: Reply, *, nonce: str, payload_sha256: str) -> bytes:
    """The bytes that the site signs.

    Parameters
    ----------
    reply
        Its fields as `Reply.from_fields` reads them, but the signature; the head of the audit log is one of them.
    nonce
        Of the request that it answers; empty where the site could not read the request.
    payload_sha256
        `packed_digest` of the payload that goes with it: its bytes, so that no array is read before they are checked.
    """
    body = {
        "site": reply.site,
        "digest": reply.digest,
        "status": reply.status,
        "rule": printable(reply.rule[:MAX_WORD]),
        "reason": printable(reply.reason[:MAX_REASON]),
        "info": json.dumps(json.loads(json.dumps(dict(reply.info))), sort_keys=True),
        "version": printable(reply.version[:MAX_WORD]),
        "audit": reply.audit,
        "nonce": nonce,
        "payload_sha256": payload_sha256,
    }
    return _CONTEXT + json.dumps(body, sort_keys=True, ensure_ascii=True).encode()


def signed(reply: Reply, *, nonce: str, payload_sha256: str, sign: Callable[[bytes], bytes]) -> Reply:
    """The reply with its signature; `sign` signs bytes with the site's audit key."""
    signature = sign(signing_bytes(reply, nonce=nonce, payload_sha256=payload_sha256))
    return replace(reply, signature=signature.hex())


def is_signed_by(key: Ed25519PublicKey, reply: Reply, *, nonce: str, payload_sha256: str) -> bool:
    """Whether the reply carries that key's signature over exactly this reply, request and payload."""
    try:
        key.verify(bytes.fromhex(reply.signature), signing_bytes(reply, nonce=nonce, payload_sha256=payload_sha256))
    except (InvalidSignature, ValueError, RecursionError):
        return False
    return True
