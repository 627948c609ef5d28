r"""The audit log of one site: appended to, hash-chained, signed, and on disk before a reply leaves.

A line is stored as its canonical JSON (`body`), the hash of the line before it and its own hash,

    hash = SHA-256("fedage audit 1\n" ‖ previous hash ‖ "\n" ‖ body),    all as ASCII,

and the site's signature over (sequence, hash, time). The line before the first is SHA-256 of the site's public audit
key. It has a file of its own, so that no other store of the site, however busy or locked, holds up a line.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
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

from fedage.client.audit.entries import Entry, canonical
from fedage.client.site.durable import LOCK_WAIT_S, DurableFile, StoreUnavailable
from fedage.client.site.sqlite import Connection, Row, Tables, insert, scalar
from fedage.common.protocol.heads import Head, HeadMalformed, SignedHead, fingerprint
from fedage.deploy.machine.atomic import write_atomically

LOG_FILE = "audit.db"
HEAD_FILE = "audit.head"
KEY_FILE = "audit.key"
PUBLIC_KEY_FILE = "audit.pub"

_CONTEXT = b"fedage audit 1\n"

_TABLES: Tables = {
    "audit": (
        "CREATE TABLE audit (sequence INTEGER NOT NULL, body TEXT NOT NULL, previous VARCHAR(64) NOT NULL, "
        "hash VARCHAR(64) NOT NULL, signature BLOB NOT NULL, PRIMARY KEY (sequence))",
    ),
}
ALL_LINES = "SELECT sequence, body, previous, hash, signature FROM audit ORDER BY sequence"
_LAST_LINE = f"{ALL_LINES} DESC LIMIT 1"


class AuditUnavailable(StoreUnavailable):
    """The audit log cannot be written, or is not what this site wrote: no reply may leave."""


def genesis(key: Ed25519PublicKey) -> str:
    """The hash before the first line."""
    return fingerprint(key)


def line_hash(previous: str, body: str) -> str:
    """The hash of a line, hexadecimal."""
    return hashlib.sha256(_CONTEXT + previous.encode() + b"\n" + body.encode()).hexdigest()


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def in_utc(time: datetime) -> str:
    """A time as the log writes it, in microseconds, so that texts sort as times do."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


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


class AuditLog:
    """The audit log in a site's home.

    Parameters
    ----------
    home
        The site's folder; `audit.db`, `audit.key`, `audit.pub` and `audit.head` are made in it at first use.
    now
        The wall clock. It may jump: the order of lines is their sequence number.
    lock_wait_s
        How long an append waits for another process's.

    Raises
    ------
    AuditUnavailable
        If a file cannot be used, or the log ends before its own head file says (restored from an older copy, or cut).
    """

    def __init__(self, home: Path, *, now: Callable[[], datetime] = utc_now, lock_wait_s: float = LOCK_WAIT_S) -> None:
        self.path = home / LOG_FILE
        self._head_file = home / HEAD_FILE
        self._now = now
        self._lock = threading.Lock()
        try:
            self._key = site_key(home / KEY_FILE, public=home / PUBLIC_KEY_FILE)
        except (OSError, ValueError) as error:
            raise AuditUnavailable(
                home / KEY_FILE,
                f"no usable audit key ({type(error).__name__}); restore it, mode 0600, to the agent's user",
            ) from None
        self.public_key = self._key.public_key()
        # Read before the log: another process may append in between, and then the log is the longer of the two.
        known = self._read_head_file()
        self._file = DurableFile(self.path, tables=_TABLES, unavailable=AuditUnavailable, lock_wait_s=lock_wait_s)
        self._last = Head(sequence=0, hash=genesis(self.public_key), time_utc="")
        with self._file.reading() as connection:
            self._last = self._checked_last(connection)
            if known is not None:
                self._must_hold(connection, known)

    def append(self, entry: Entry) -> SignedHead:
        """Add a line; when this returns, it is on disk.

        Returns
        -------
        SignedHead
            The head that ends with this line, to be sent with the reply.

        Raises
        ------
        AuditUnavailable
            If it could not be written. No reply may leave then.
        """
        with self._lock:
            with self._file.transaction() as connection:
                last = self._checked_last(connection)
                sequence, time_utc = last.sequence + 1, in_utc(self._now())
                body = canonical({"sequence": sequence, "time_utc": time_utc, **entry.to_json()})
                head = Head(sequence=sequence, hash=line_hash(last.hash, body), time_utc=time_utc)
                signed = sign_head(head, key=self._key)
                line = {"sequence": sequence, "body": body, "previous": last.hash, "hash": head.hash}
                insert(connection, "audit", {**line, "signature": bytes.fromhex(signed.signature)})
            self._last = head
            self._write_head_file(signed)
            return signed

    def signed_head(self) -> SignedHead:
        """The head as it is now; sequence 0 for an empty log.

        Raises
        ------
        AuditUnavailable
            If the log cannot be read.
        """
        with self._lock, self._file.reading() as connection:
            return sign_head(self._checked_last(connection), key=self._key)

    def sign(self, content: bytes) -> bytes:
        """The site's signature over something else than a line; its first bytes must say what it is."""
        return self._key.sign(content)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _checked_last(self, connection: Connection) -> Head:
        """The last line's head, if this site signed it and it does not lie before what this object has seen."""
        row = connection.execute(_LAST_LINE).fetchone()
        head = Head(sequence=0, hash=genesis(self.public_key), time_utc="") if row is None else self._head_of(row)
        if head.sequence < self._last.sequence:
            raise self._not_ours(f"ends at line {head.sequence}, but line {self._last.sequence} was written")
        return head

    def _head_of(self, row: Row) -> Head:
        try:
            body = json.loads(row["body"])
            head = Head(sequence=row["sequence"], hash=row["hash"], time_utc=str(body["time_utc"]))
        except (ValueError, KeyError, TypeError):
            raise self._not_ours(f"line {row['sequence']} cannot be read") from None
        signed = SignedHead(**vars(head), signature=bytes(row["signature"]).hex())
        if line_hash(row["previous"], row["body"]) != row["hash"] or not signed.is_signed_by(self.public_key):
            raise self._not_ours(f"line {row['sequence']} is not signed with this site's key (audit.key)")
        return head

    def _must_hold(self, connection: Connection, known: SignedHead) -> None:
        stored_hash = scalar(connection, "SELECT hash FROM audit WHERE sequence = ?", (known.sequence,))
        if stored_hash != known.hash and known.sequence > 0:
            raise self._not_ours(f"does not contain line {known.sequence} as {HEAD_FILE} has it")

    def _not_ours(self, what: str) -> AuditUnavailable:
        return AuditUnavailable(
            self.path,
            f"{what}; run fedage site audit verify, keep what it prints, then restore the newest copy "
            f"or move {LOG_FILE}* and {HEAD_FILE} aside together to begin a new log",
        )

    def _read_head_file(self) -> SignedHead | None:
        """The head file if this site signed it: an unreadable one says nothing, and `verify` reports it."""
        try:
            heads = read_heads(self._head_file)
        except (OSError, HeadMalformed):
            return None
        ours = [head for head in heads if head.is_signed_by(self.public_key)]
        return max(ours, key=lambda head: head.sequence, default=None)

    def _write_head_file(self, head: SignedHead) -> None:
        """After the commit: a crash in between leaves an older head, which the log still contains."""
        try:
            # Not synchronised, which would double the time of a line: the log is, and its end can be signed anew.
            content = json.dumps(head.to_fields()).encode() + b"\n"
            write_atomically(self._head_file, content, mode=0o644, durable=False)
        except OSError as error:
            raise AuditUnavailable(self._head_file, f"cannot be written ({type(error).__name__})") from None
