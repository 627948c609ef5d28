"""What the images of a store say of whose they are."""

from __future__ import annotations

from collections import Counter, defaultdict

from fedage.client.cohort.store.one_person import Statement, not_one_person
from fedage.client.cohort.store.store import CohortStore
from fedage.client.site.sqlite import Connection

_STATEMENTS = (
    "SELECT DISTINCT exams.patient, exams.key, study, sex, age_from_years, age_until_years, real_day, "
    "is_placeholder_id FROM exams JOIN images ON images.exam = exams.key"
)


def count_not_one_person(store: CohortStore) -> dict[str, int]:
    """How many identifiers do not stand for one person, so that no campaign counts them as a patient; by reason."""
    with store.reading() as connection:
        return dict(Counter(not_one_person(statements_of_images(connection)).values()))


def statements_of_images(connection: Connection) -> dict[str, list[Statement]]:
    """What images say of whose they are, by patient; each different statement once."""
    found: dict[str, list[Statement]] = defaultdict(list)
    for patient, exam, study, sex, low, high, day, is_placeholder_id in connection.execute(_STATEMENTS):
        found[patient].append(
            Statement(
                exam=exam,
                study=study,
                sex=sex,
                age_from_years=low,
                age_until_years=high,
                real_day=day,
                is_placeholder_id=bool(is_placeholder_id),
            )
        )
    return found
