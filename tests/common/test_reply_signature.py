from __future__ import annotations

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedage.common.protocol.messages import Reply
from fedage.common.protocol.reply_signature import is_signed_by, signed, signing_bytes

KEY = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
SENT = "ab" * 32
REPLY = Reply(
    site="north",
    digest="d" * 64,
    status="ok",
    info={"n": 12, "loss": 0.1 + 0.2, "parts": {10: 1, 9: 2}, "tuple": (1, None), "name": "Åse"},
    version="1",
)


def seal(reply: Reply = REPLY) -> Reply:
    return signed(reply, nonce="n1", payload_sha256=SENT, sign=KEY.sign)


def holds(reply: Reply, *, nonce: str = "n1", sent: str = SENT) -> bool:
    return is_signed_by(KEY.public_key(), reply, nonce=nonce, payload_sha256=sent)


@pytest.mark.parametrize(
    "reply",
    [
        REPLY,
        replace(REPLY, status="refused", rule="r" * 200, reason="a long reason\n\x1b[31m " * 100, info={}),
        replace(REPLY, info={"odd": float("nan")}),
    ],
    ids=["plain", "longer than is read", "not a number"],
)
def test_a_signature_holds_over_what_the_coordinator_reads(reply: Reply) -> None:
    sealed = seal(reply)
    fields = {**replace(sealed, info={}).to_fields(), "info": json.dumps(dict(reply.info))}
    assert holds(Reply.from_fields(fields))


def test_nothing_can_be_changed() -> None:
    sealed = Reply.from_fields(seal().to_fields())
    assert holds(sealed)
    assert not holds(sealed, nonce="n2")
    assert not holds(sealed, sent="cd" * 32)
    changes = {
        "site": "south",
        "digest": "e" * 64,
        "status": "refused",
        "rule": "x",
        "reason": "y",
        "info": {**sealed.info, "n": 13},
        "version": "2",
        "audit": "z",
        "signature": "00" * 64,
    }
    assert set(changes) == set(sealed.to_fields())
    for name, value in changes.items():
        assert not holds(replace(sealed, **{name: value})), name  # type: ignore[arg-type]
    assert not is_signed_by(Ed25519PrivateKey.generate().public_key(), sealed, nonce="n1", payload_sha256=SENT)


@pytest.mark.parametrize("signature", ["", "ab", "xy" * 64])
def test_what_is_no_signature_does_not_hold(signature: str) -> None:
    assert not holds(replace(REPLY, signature=signature))
    if signature:
        with pytest.raises(ValueError, match="malformed reply: the signature"):
            Reply.from_fields({**REPLY.to_fields(), "signature": signature})


def test_the_signed_bytes_are_those_of_no_other_kind_of_message() -> None:
    """One key signs heads and replies."""
    assert signing_bytes(REPLY, nonce="", payload_sha256=SENT).startswith(b"fedage reply 2\n")
