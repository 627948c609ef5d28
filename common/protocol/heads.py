"""The signed head of a site's audit log: sequence number and hash of its last line, under the site's own key.

A head goes out with every reply. Whoever keeps one can later ask the site for its log and see whether it still leads
there: a log that was cut, rewritten or put back to an older copy does not.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_CONTEXT = b"fedage audit head 1\n"
_HASH = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")
_MAX_SEQUENCE = 2**53
_MAX_TIME_CHARACTERS = 40


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

    def to_json(self) -> str:
        """One line of JSON, as it stands in a reply and in a file of heads."""
        return json.dumps(self.to_fields(), sort_keys=True)

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild and type-check.

        Raises
        ------
        HeadMalformed
            If a field is missing, of the wrong type or not of its form.
        """
        texts = [values.get(name) for name in ("hash", "time_utc", "signature")]
        sequence = values.get("sequence")
        if type(sequence) is not int or not all(type(text) is str for text in texts):
            raise HeadMalformed("a signed head has sequence (whole number), hash, time_utc and signature (text)")
        line_hash, time_utc, signature = map(str, texts)
        if not (0 <= sequence <= _MAX_SEQUENCE and _HASH.fullmatch(line_hash) and _SIGNATURE.fullmatch(signature)):
            raise HeadMalformed(
                "a signed head has a sequence from 0, a hash of 64 and a signature of 128 hexadecimal digits"
            )
        if len(time_utc) > _MAX_TIME_CHARACTERS or not time_utc.isascii():
            raise HeadMalformed(f"time_utc of a signed head has at most {_MAX_TIME_CHARACTERS} ASCII characters")
        return cls(sequence=sequence, hash=line_hash, time_utc=time_utc, signature=signature)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`. Raises `HeadMalformed`."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            raise HeadMalformed("a signed head is one JSON object") from None
        if not isinstance(values, dict):
            raise HeadMalformed("a signed head is one JSON object")
        return cls.from_fields(values)

    def is_signed_by(self, key: Ed25519PublicKey) -> bool:
        """Whether the signature is that key's over exactly this head."""
        try:
            key.verify(bytes.fromhex(self.signature), self.signing_bytes())
        except (InvalidSignature, ValueError):
            return False
        return True


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of a public key's 32 raw bytes, 64 hexadecimal digits."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()


def key_to_hex(key: Ed25519PublicKey) -> str:
    """A public key's 32 raw bytes, 64 hexadecimal digits."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def key_from_hex(text: str) -> Ed25519PublicKey:
    """The inverse of `key_to_hex`. Raises ValueError if the text is not 64 lower-case hexadecimal digits."""
    if not _KEY.fullmatch(text):
        raise ValueError("a public audit key is 64 lower-case hexadecimal digits")
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))
