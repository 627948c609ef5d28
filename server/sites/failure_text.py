"""Why a site did not answer: it tells the kind of failure only, here is what that means and who can mend it."""

from __future__ import annotations

_WORDS = {
    "AgentUnavailable": "its agent does not answer (AgentUnavailable); it may be starting again",
    "AgentTimeout": "its agent had not finished before the deadline (AgentTimeout)",
    "AgentBusy": "its agent has too much to do already (AgentBusy)",
    "AgentReplyMalformed": "its relay did not understand its agent (AgentReplyMalformed); is one older than the other?",
    "MessageRefused": "its agent refused the message as too large or malformed (MessageRefused)",
    "DiskFull": "its disk is full, so nothing leaves it (DiskFull); at the site: fedage site status",
    "AuditUnavailable": "it cannot write its audit log, so nothing leaves it (AuditUnavailable); fedage site status",
    "NoncesUnavailable": "it cannot write what it has answered, so nothing leaves it (NoncesUnavailable)",
    "SnapshotsUnavailable": "it cannot read its frozen cohorts (SnapshotsUnavailable); fedage site status",
    "LedgerUnavailable": "it cannot write its privacy ledger, so nothing leaves it (LedgerUnavailable)",
    "AccountsUnavailable": "it cannot keep account of what it answered, so nothing leaves it (AccountsUnavailable)",
    "MemoryError": "it ran out of memory (MemoryError)",
    "OutOfMemoryError": "its GPU ran out of memory (OutOfMemoryError)",
}


def failure_text(reason: str) -> str:
    """A reason as a person reads it; the kind stays in it, for whoever looks at the site's own log."""
    return _WORDS.get(reason, reason)
