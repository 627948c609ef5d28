"""The signed head of an audit log: sequence number and hash of its last line, under the site's own key.

A head goes out with every reply. Whoever keeps one can later ask the site for its log and see whether it still leads
there: a log that was cut, rewritten or put back to an older copy does not.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

_CONTEXT = b"fedage audit head 1\n"


class HeadMalformed(ValueError):
    """Fields or a file that hold no signed head."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """The last line of a log.

    Parameters
    ----------
    sequence
        Number of the line, from 1; 0 is the log before its first line.
    hash
        The line's hash, hexadecimal; it stands for every line before it too.
    time_utc
        The wall clock's time of the line, `2025-01-31T12:00:00.000000Z`.
    """

    sequence: int
    hash: str
    time_utc: str

    def signing_bytes(self) -> bytes:
        """The bytes that the site signs."""
        body = {"hash": self.hash, "sequence": self.sequence, "time_utc": self.time_utc}
        return _CONTEXT + json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True, kw_only=True)
class SignedHead(Head):
    """A head with the site's Ed25519 signature, hexadecimal."""

    signature: str

    def to_fields(self) -> dict[str, int | str]:
        """Plain fields for a reply's record or a file."""
        return asdict(self)

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild and type-check.

        Raises
        ------
        HeadMalformed
            If a field is missing or of the wrong type.
        """
        texts = [values.get(name) for name in ("hash", "time_utc", "signature")]
        sequence = values.get("sequence")
        if type(sequence) is not int or not all(type(text) is str for text in texts):
            raise HeadMalformed("a signed head has sequence (whole number), hash, time_utc and signature (text)")
        return cls(sequence=sequence, hash=str(texts[0]), time_utc=str(texts[1]), signature=str(texts[2]))

    def is_signed_by(self, key: Ed25519PublicKey) -> bool:
        """Whether the signature is that key's over exactly this head."""
        try:
            key.verify(bytes.fromhex(self.signature), self.signing_bytes())
        except (InvalidSignature, ValueError):
            return False
        return True


def sign_head(head: Head, *, key: Ed25519PrivateKey) -> SignedHead:
    """Sign a head."""
    signature = key.sign(head.signing_bytes()).hex()
    return SignedHead(sequence=head.sequence, hash=head.hash, time_utc=head.time_utc, signature=signature)


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of a public key's 32 raw bytes, 64 hexadecimal digits."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()


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
        replace(public, exported)
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """An exported public half. Raises `OSError`, or `ValueError` for another kind of key."""
    key = load_pem_public_key(path.read_bytes())
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{path.name} holds no Ed25519 public key")
    return key


def replace(path: Path, data: bytes) -> None:
    """Put a small file in place at once: a reader sees the old one or the new one. Not synchronised to disk."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.new")
    unfinished.write_bytes(data)
    unfinished.replace(path)


def _make_key(private: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    unfinished = private.with_name(f"{private.name}.{os.getpid()}-{threading.get_ident()}.new")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(unfinished, private)  # unlike a rename, never replaces the key another process has just made
    except FileExistsError:
        pass
    finally:
        unfinished.unlink()
