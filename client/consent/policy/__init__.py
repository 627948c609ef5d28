"""The site's policy: what it allows, parsed strictly, decided in one place."""

from fedage.client.consent.policy.decide import Allowed, Facts, Refused, decide, facts_of
from fedage.client.consent.policy.file import DEFAULT_TEXT, POLICY_FILE, PolicyFile, write_default
from fedage.client.consent.policy.parse import PolicyErrors, load_policy, parse_policy
from fedage.client.consent.policy.types import DataSet, Hours, Policy
from fedage.client.consent.policy.words import policy_text

__all__ = [
    "DEFAULT_TEXT",
    "POLICY_FILE",
    "Allowed",
    "DataSet",
    "Facts",
    "Hours",
    "Policy",
    "PolicyErrors",
    "PolicyFile",
    "Refused",
    "decide",
    "facts_of",
    "load_policy",
    "parse_policy",
    "policy_text",
    "write_default",
]
