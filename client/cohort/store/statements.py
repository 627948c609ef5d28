"""What the images of a store say of whose they are."""

from __future__ import annotations

from collections import Counter, defaultdict

from sqlalchemy import select as sql
from sqlalchemy.orm import Session

from fedage.client.cohort.store.models import Exam, ImageFile
from fedage.client.cohort.store.one_person import Statement, not_one_person
from fedage.client.cohort.store.store import CohortStore


def count_not_one_person(store: CohortStore) -> dict[str, int]:
    """How many identifiers do not stand for one person, so that no campaign counts them as a patient; by reason."""
    with store.reading() as session:
        return dict(Counter(not_one_person(statements_of_images(session)).values()))


def statements_of_images(session: Session) -> dict[str, list[Statement]]:
    """What images say of whose they are, by patient; each different statement once."""
    wanted = sql(
        Exam.patient,
        Exam.key,
        ImageFile.study,
        ImageFile.sex,
        ImageFile.age_from_years,
        ImageFile.age_until_years,
        ImageFile.real_day,
        ImageFile.is_placeholder_id,
    )
    found: dict[str, list[Statement]] = defaultdict(list)
    for patient, exam, study, sex, low, high, day, is_placeholder_id in session.execute(
        wanted.join(ImageFile, ImageFile.exam == Exam.key).distinct()
    ):
        found[patient].append(
            Statement(
                exam=exam,
                study=study,
                sex=sex,
                age_from_years=low,
                age_until_years=high,
                real_day=day,
                is_placeholder_id=is_placeholder_id,
            )
        )
    return found
