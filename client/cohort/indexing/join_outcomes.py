"""Joins outcomes to the patients with images by identifier, and counts identifiers without a patient."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from fedage.client.cohort.store.store import CohortStore
from fedage.client.cohort.store.writer import writing
from fedage.client.cohort.table.outcomes import OutcomeTable

_PARTICIPANT = "sub-"
OTHER_ZEROS = (
    "identifiers of the table differ from the images' in leading zeros only (as 00010 and 10 do) and find no patient; "
    "write them in the table as the images have them, and keep the column as text when a spreadsheet opens it"
)


def store_outcomes(
    store: CohortStore, outcomes: OutcomeTable | None, *, of_participants: bool = False
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Replace the stored outcomes; the caller holds the store's lock.

    Parameters
    ----------
    outcomes
        None if no table is given any more; stored outcomes are then removed.
    of_participants
        Whether patients are BIDS participants, whom the table may name without `sub-`.

    Returns
    -------
    dict, tuple
        Counts, empty without a table; and messages for the hospital.
    """
    values: Mapping[str, Mapping[str, float]] = outcomes.values if outcomes else {}
    words: Mapping[str, Collection[str]] = outcomes.words if outcomes else {}
    if of_participants:
        values = {_participant(patient): columns for patient, columns in values.items()}
        words = {_participant(patient): columns for patient, columns in words.items()}
    with writing(store) as writer:
        n_unknown = writer.replace_outcomes(values, words)
    if outcomes is None:
        return {}, ()
    n_known, n_differing_in_zeros = len(values) - n_unknown, store.known_with_other_zeros(values) if n_unknown else 0
    counts = {
        "patients-with-outcomes": n_known,
        "patients-without-outcomes": store.counts()["patients"] - n_known,
        "unknown-patients": n_unknown,
        **({"unknown-but-for-leading-zeros": n_differing_in_zeros} if n_differing_in_zeros else {}),
        **outcomes.counts(),
    }
    return counts, (*outcomes.messages, *((OTHER_ZEROS,) if n_differing_in_zeros else ()))


def _participant(patient: str) -> str:
    return patient if patient.startswith(_PARTICIPANT) else f"{_PARTICIPANT}{patient}"
