"""Identifiers become keyed hashes on the way in; the key never leaves the store."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from fedage.common.errors import FedAgeError

KEY_FILE = "store.key"
_KEY_BYTES = 32
_UNIT = float(2**64)


class Hasher:
    """HMAC-SHA256 with a site's key, one domain a purpose, so that hashes of different purposes do not compare."""

    def __init__(self, key: bytes) -> None:
        self.__key = key

    def __repr__(self) -> str:
        return "Hasher(key=…)"

    def digest(self, value: str, *, purpose: str) -> str:
        """The hash of an identifier, 64 hexadecimal characters."""
        return self._digest(value, purpose).hex()

    def unit(self, patient: str) -> float:
        """A patient's place in [0, 1): drives the split, and stays when patients are added."""
        return int.from_bytes(self._digest(patient, "split")[:8], "big") / _UNIT

    def _digest(self, value: str, purpose: str) -> bytes:
        return hmac.new(self.__key, f"{purpose}\x00{value}".encode(), hashlib.sha256).digest()


def hasher_of(home: Path) -> Hasher:
    """The hasher of a site's home; its key is made at first use, readable by the owner only.

    Raises
    ------
    FedAgeError
        If the key file is not 32 bytes in hexadecimal.
    """
    path = home / KEY_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(_KEY_BYTES) + "\n")
    try:
        key = bytes.fromhex(path.read_text().strip())
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise FedAgeError(f"{path} must hold {2 * _KEY_BYTES} hexadecimal digits; restore it from a backup")
    return Hasher(key)
