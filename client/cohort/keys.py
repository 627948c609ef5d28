"""The site's key: what turns identifiers into keyed hashes. It never leaves the store that holds it."""

from __future__ import annotations

import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from fedage.common.errors import FedAgeError
from fedage.deploy.machine.atomic import write_atomically

KEY_BYTES = 32


class StoreError(FedAgeError):
    """A cohort store that cannot be opened or used; the message says why and what to do."""


class Keys:
    """HMAC-SHA256 of everything that names a person, with one site key and a word for each use.

    Paths are sealed with AES-SIV (RFC 5297) instead, because images have to be found again while folders are often
    named after patients; it is deterministic, so that a path can be looked up.

    Parameters
    ----------
    key
        32 bytes.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise StoreError(f"the site's key has {len(key)} bytes, it must have {KEY_BYTES}")
        self._key = key
        self._paths = AESSIV(self._digest("paths, mac", b"") + self._digest("paths, cipher", b""))

    def __repr__(self) -> str:
        return "Keys(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("the site's key is not pickled: it stays in the process that opened the store")

    def _digest(self, use: str, text: bytes) -> bytes:
        return hmac.digest(self._key, use.encode() + b"\0" + text, "sha256")

    def patient(self, patient_id: str) -> str:
        """Hash of a patient's identifier, surrounding blanks ignored."""
        return self._digest("patient", patient_id.strip().encode()).hex()

    def exam(self, patient: str, study_uid: str) -> str:
        """Hash of a study of one patient."""
        return self._digest("exam", f"{patient}/{study_uid}".encode()).hex()

    def study(self, study_uid: str) -> str:
        """Hash of a StudyInstanceUID, the same under whatever patient's identifier it stands."""
        return self._digest("study", study_uid.encode()).hex()

    def seed(self, use: str, text: str) -> int:
        """A 63-bit seed that only who holds the key can know."""
        return int.from_bytes(self._digest(f"seed, {use}", text.encode())[:8], "big") >> 1

    def secret(self, use: str) -> bytes:
        """32 bytes for a use of their own, which tell nothing of the key."""
        return self._digest(f"secret, {use}", b"")

    def image(self, sop_uid: str) -> str:
        """Hash of a SOPInstanceUID."""
        return self._digest("image", sop_uid.encode()).hex()

    def series(self, exam: str, series_uid: str) -> str:
        """Hash of a series of one exam."""
        return self._digest("series", f"{exam}/{series_uid}".encode()).hex()

    def split_uniform(self, patient: str) -> float:
        """A uniform number in [0, 1) for a hashed patient, from key and identifier only. It drives the split."""
        return (int.from_bytes(self._digest("split", patient.encode())[:8], "big") >> 11) * 2.0**-53

    def shifted_day(self, patient: str, day: int) -> int:
        """A date's ordinal, moved by a secret number of days a patient: order and distance remain."""
        return day - int.from_bytes(self._digest("day", patient.encode())[:4], "big") % 36525

    def seal(self, path: str) -> bytes:
        """A relative path, encrypted; the same path gives the same bytes."""
        return self._paths.encrypt(os.fsencode(path), None)

    def unseal(self, sealed: bytes) -> str:
        """The path that was sealed."""
        try:
            return os.fsdecode(self._paths.decrypt(sealed, None))
        except InvalidTag:
            raise StoreError("a path in the store was sealed with another key, or is damaged; index again") from None

    def check(self) -> str:
        """What the database keeps to recognise its key."""
        return self._digest("check", b"").hex()


def read_or_create(file: Path, *, given: bytes | None, may_create: bool) -> bytes:
    """The site's key from `file`; where there is none, the given or a fresh one is written, readable by its owner only.

    Raises
    ------
    StoreError
        If the file is readable by others, damaged, differs from the given key, or is missing and must not be made.
    """
    if not file.exists():
        if given is None and not may_create:
            raise StoreError(f"{file} is missing and the store's hashes need it: put the site's saved key back there")
        _write_once(file, given or secrets.token_bytes(KEY_BYTES))
    mode = file.stat().st_mode & 0o777
    if mode & 0o077:
        raise StoreError(f"{file} has mode {mode:04o}, others could read the site's key; run chmod 600 on it")
    try:
        key = bytes.fromhex(file.read_text(encoding="ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise StoreError(f"{file} must hold {2 * KEY_BYTES} hexadecimal digits; put the site's saved key back there")
    if given is not None and not hmac.compare_digest(given, key):
        raise StoreError(f"{file} holds another key than the one given; nothing was changed")
    return key


def _write_once(file: Path, key: bytes) -> None:
    """Write the whole key or nothing, and never over a key that another process has just written."""
    with suppress(FileExistsError):
        write_atomically(file, key.hex().encode() + b"\n", replaces=False)
