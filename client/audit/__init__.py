"""The site's audit log: what came in, what left, who asked, what was refused."""

from fedage.client.audit.entries import (
    Direction,
    Entry,
    EntryRefused,
    Kind,
    Outcome,
    WithheldStep,
    known_digest,
    known_nonce,
    known_steps,
    micro,
)
from fedage.client.audit.log import AuditLog, AuditUnavailable, read_heads, read_public_key
from fedage.client.audit.show import Filters, Line, export_csv, show
from fedage.client.audit.verify import Damage, LogFinding, VerificationReport, verify
from fedage.common.protocol.heads import Head, HeadMalformed, SignedHead, fingerprint

__all__ = [
    "AuditLog",
    "AuditUnavailable",
    "Damage",
    "Direction",
    "Entry",
    "EntryRefused",
    "Filters",
    "Head",
    "HeadMalformed",
    "Kind",
    "Line",
    "LogFinding",
    "Outcome",
    "SignedHead",
    "VerificationReport",
    "WithheldStep",
    "export_csv",
    "fingerprint",
    "known_digest",
    "known_nonce",
    "known_steps",
    "micro",
    "read_heads",
    "read_public_key",
    "show",
    "verify",
]
