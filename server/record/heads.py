"""The heads of the sites' audit logs, kept by the coordinator so that a site can prove later that nothing was cut.

`heads/<site>.pub` is the site's public audit key, pinned when it is first seen; `heads/<site>.jsonl` holds every head
that the key has signed, one JSON object a line, in the order of arrival. `fedage site audit verify --head` reads it.

A site writes a line before it answers, so the head of an answer comes after every head that was known when the request
was sent. One that does not is an old head, or the log was put back to an older copy. Two heads of one line with
different hashes are two histories: a fork.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from filelock import FileLock

from fedage.common.errors import FedAgeError
from fedage.common.protocol.heads import HeadMalformed, SignedHead, fingerprint, key_from_hex
from fedage.deploy.machine.atomic import write_atomically

_LOOK_S = 0.01


class HeadRefused(Exception):
    """What a site says of its audit log does not hold. `.rule` is short, `.detail` a sentence with the mend."""

    def __init__(self, rule: str, detail: str) -> None:
        self.rule = rule
        self.detail = detail
        super().__init__(f"{rule}: {detail}")


@dataclass
class _Kept:
    """What has been read of a site's file so far: hashes by sequence number."""

    read_bytes: int = 0
    hashes: dict[int, set[str]] = field(default_factory=dict)
    last: SignedHead | None = None
    greatest: int = 0

    @property
    def forked(self) -> int | None:
        """The first line with two histories."""
        return min((number for number, hashes in self.hashes.items() if len(hashes) > 1), default=None)


class Heads:
    """The heads of all sites, in a folder. Several runs may write at once.

    Parameters
    ----------
    folder
        Made at first use.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[str, _Kept] = {}

    def file(self, site: str) -> Path:
        """The site's heads, one JSON object a line."""
        return self._folder / f"{site}.jsonl"

    def key_file(self, site: str) -> Path:
        """The site's pinned public audit key, PEM."""
        return self._folder / f"{site}.pub"

    def pin(self, site: str, audit_key: str | None) -> None:
        """Remember a site's public audit key (hexadecimal) at first sight; later, hold it against the pinned one.

        Raises
        ------
        HeadRefused
            Rule `audit-key-missing` or `audit-key-changed`.
        FedAgeError
            If the coordinator's own file cannot be used.
        """
        if audit_key is None:
            raise HeadRefused("audit-key-missing", "tells no audit key; install the same FedAge release on both sides")
        with self._locked():
            key, pinned = key_from_hex(audit_key), self.key(site)
            if pinned is None:
                pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
                write_atomically(self.key_file(site), pem, mode=0o644)
                return
        if fingerprint(key) != fingerprint(pinned):
            raise HeadRefused(
                "audit-key-changed",
                f"its audit key is not the one pinned (now {fingerprint(key)[:16]}…, pinned "
                f"{fingerprint(pinned)[:16]}…); if its administrator confirms the new key, begin anew with "
                f"fedage coordinator heads {site} --begin-anew, which keeps the old heads",
            )

    def key(self, site: str) -> Ed25519PublicKey | None:
        """The pinned key; None if there is none."""
        file = self.key_file(site)
        if not file.is_file():
            return None
        try:
            key = load_pem_public_key(file.read_bytes())
        except (OSError, ValueError):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise FedAgeError(f"{file} holds no public Ed25519 key; restore it")
        return key

    def known(self, site: str) -> int:
        """The greatest sequence number known; ask when a request is sent, and give the answer to `keep`."""
        with self._locked():
            return self._look(site).greatest

    def last(self, site: str) -> SignedHead | None:
        """The head that came last; None if none did."""
        with self._locked():
            return self._look(site).last

    def all(self, site: str) -> list[SignedHead]:
        """Every head kept of a site, in the order of arrival."""
        with self._locked():
            self._look(site)
            text = self.file(site).read_text(encoding="utf-8", errors="replace") if self.file(site).exists() else ""
        heads = []
        for line in text.splitlines():
            try:
                heads.append(SignedHead.from_json(line))
            except HeadMalformed:
                continue
        return heads

    def keep(self, site: str, head: SignedHead | None, *, after: int) -> SignedHead:
        """Check a head that came with an answer and return it; if the site signed it, keep it whatever it shows.

        Parameters
        ----------
        after
            The greatest sequence number known when the request was sent.

        Raises
        ------
        HeadRefused
            Rules `audit-head-missing`, `audit-head-forged`, `audit-log-forked`, `audit-head-old`.
        """
        key = self.key(site)
        if head is None or key is None:
            raise HeadRefused("audit-head-missing", "the answer came without the signed head of the site's audit log")
        if not head.is_signed_by(key):
            raise HeadRefused(
                "audit-head-forged",
                "the head of the audit log is not signed by the site's pinned audit key; something between the site's "
                "agent and here alters its answers",
            )
        with self._locked():
            kept = self._look(site)
            if head.hash not in kept.hashes.get(head.sequence, ()):
                _append(self.file(site), head.to_json(), at=kept.read_bytes)
                self._look(site)
        if kept.forked is not None:
            raise HeadRefused(
                "audit-log-forked",
                f"line {kept.forked} of its audit log has two histories; the site can see where with fedage site "
                f"audit verify and the heads kept here (fedage coordinator heads {site}){_ANEW.format(site)}",
            )
        if head.sequence <= after:
            raise HeadRefused(
                "audit-head-old",
                f"its audit log ends at line {head.sequence}, but line {after} was known before the request was sent: "
                f"an old head sent again, or a log put back to an older copy{_ANEW.format(site)}",
            )
        return head

    def begin_anew(self, site: str) -> Path | None:
        """Set key and heads of a site aside, so that its next key is pinned; where the old heads are, if there were."""
        with self._locked():
            number = 1
            while self._aside(self.file(site), number).exists() or self._aside(self.key_file(site), number).exists():
                number += 1
            moved = None
            if self.key_file(site).exists():
                self.key_file(site).rename(self._aside(self.key_file(site), number))
            if self.file(site).exists():
                moved = self.file(site).rename(self._aside(self.file(site), number))
            self._kept.pop(site, None)
            return moved

    def rename(self, old: str, new: str) -> None:
        """Let what is kept of a site be kept under its new name.

        Raises
        ------
        FedAgeError
            If something is kept under the new name: the two logs must not become one.
        """
        with self._locked():
            pairs = [(self.file(old), self.file(new)), (self.key_file(old), self.key_file(new))]
            pairs = [(before, after) for before, after in pairs if before.exists()]
            taken = [after for _, after in pairs if after.exists()]
            if taken:
                raise FedAgeError(
                    f"{taken[0]} is kept of the audit log of an earlier site {new!r}; "
                    f"set it aside with fedage coordinator heads {new} --begin-anew, or take another name"
                )
            for before, after in pairs:
                before.rename(after)
            self._kept.pop(old, None)

    @staticmethod
    def _aside(file: Path, number: int) -> Path:
        return file.with_name(f"{file.stem}.{number}{file.suffix}")  # no site's name has a dot

    def _look(self, site: str) -> _Kept:
        """What the file holds now; only what is new is read."""
        kept = self._kept.setdefault(site, _Kept())
        file = self.file(site)
        if not file.exists():
            return kept
        with file.open("rb") as stream:
            stream.seek(kept.read_bytes)
            for line in stream:
                if not line.endswith(b"\n"):
                    break  # the machine stopped while it was written; the next head takes its place
                kept.read_bytes += len(line)
                try:
                    head = SignedHead.from_json(line.decode())
                except (HeadMalformed, UnicodeDecodeError):
                    continue
                kept.hashes.setdefault(head.sequence, set()).add(head.hash)
                kept.last, kept.greatest = head, max(kept.greatest, head.sequence)
        return kept

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time: two runs may hear of one site."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(self._folder / ".lock", poll_interval=_LOOK_S):
                yield
        except OSError as error:
            raise FedAgeError(
                f"the heads of the sites' audit logs in {self._folder} cannot be read or written "
                f"({error.strerror or type(error).__name__}); free the disk or give the folder to this user"
            ) from None


_ANEW = "; if its administrator confirms that it was restored, use fedage coordinator heads {} --begin-anew"


def _append(file: Path, line: str, *, at: int) -> None:
    """Add a line after the `at` bytes of whole lines, synchronised."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    with os.fdopen(descriptor, "r+b") as stream:
        stream.truncate(at)
        stream.seek(at)
        stream.write(line.encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
