"""A site's audit key, and the files that hold signed heads of its log."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from fedage.common.protocol.heads import Head, HeadMalformed, SignedHead
from fedage.deploy.machine.atomic import write_atomically


def sign_head(head: Head, *, key: Ed25519PrivateKey) -> SignedHead:
    """Sign a head."""
    signature = key.sign(head.signing_bytes()).hex()
    return SignedHead(sequence=head.sequence, hash=head.hash, time_utc=head.time_utc, signature=signature)


def read_heads(path: Path) -> tuple[SignedHead, ...]:
    """The heads in a file, one JSON object a line: a site's `audit.head`, or what a coordinator kept.

    Raises
    ------
    HeadMalformed
        If a line is no signed head.
    OSError
        If the file cannot be read.
    """
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except ValueError:
        raise HeadMalformed(f"{path.name} is not one JSON object a line") from None
    if not all(isinstance(line, dict) for line in lines):
        raise HeadMalformed(f"{path.name} is not one JSON object a line")
    return tuple(SignedHead.from_fields(line) for line in lines)


def site_key(private: Path, *, public: Path) -> Ed25519PrivateKey:
    """The site's audit key; made at first use, mode 0600, with its public half beside it for whoever verifies.

    Raises
    ------
    OSError
        If it can be neither read nor made.
    ValueError
        If the file holds another kind of key.
    """
    if not private.exists():
        _make_key(private)
    key = load_pem_private_key(private.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{private.name} holds no Ed25519 key")
    exported = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if not public.exists() or public.read_bytes() != exported:
        write_atomically(public, exported, mode=0o644)
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """An exported public half. Raises `OSError`, or `ValueError` for another kind of key."""
    key = load_pem_public_key(path.read_bytes())
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{path.name} holds no Ed25519 public key")
    return key


def _make_key(private: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with suppress(FileExistsError):  # another process has just made it
        write_atomically(private, pem, replaces=False)
