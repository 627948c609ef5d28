"""`policy.toml` to a frozen `Policy`, or to every mistake in it at once, as a campaign file is read."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from fedage.client.consent.policy._checks import contradictions
from fedage.client.consent.policy.types import Approval, DataSet, Disclosure, Hours, Policy, Requests
from fedage.common.errors import FedAgeError
from fedage.common.toml import text as _toml
from fedage.common.toml.problems import Problem, printable, problems_text
from fedage.common.toml.tables import Checked, check_table
from fedage.common.toml.text import MAX_TOML_BYTES
from fedage.common.toml.words import did_you_mean, kind, show
from fedage.deploy.machine.bounded import FileTooLarge, read_text_at_most

_TABLES: dict[str, type[BaseModel]] = {
    "requests": Requests,
    "approval": Approval,
    "disclosure": Disclosure,
    "hours": Hours,
}
_DATA_SETS = "data_sets"


class PolicyErrors(FedAgeError):
    """A policy that is refused. `.problems` are all of its mistakes."""

    def __init__(self, problems: tuple[Problem, ...], *, name: str) -> None:
        self.problems = problems
        self.name = printable(name)
        count = len(problems)
        super().__init__(problems_text(f"{self.name}: {count} problem{'s' if count != 1 else ''}", problems))


def load_policy(path: Path) -> Policy:
    """The policy in a file; the default one if there is no such file.

    Raises
    ------
    PolicyErrors
        With every mistake, also when the file cannot be read: a policy that cannot be read allows nothing.
    """
    try:
        if path.exists() and not path.is_file():
            raise IsADirectoryError(errno.EISDIR, "no file")  # a pipe would be waited for
        text = read_text_at_most(path, most_bytes=MAX_TOML_BYTES)
    except FileNotFoundError:
        return Policy()
    except FileTooLarge as error:
        raise PolicyErrors((Problem("", f"{path.name} has {error.strerror}; shorten it"),), name=path.name) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        message = f"{path.name}: cannot be read ({reason}); give the agent's user the right to read it"
        raise PolicyErrors((Problem("", message),), name=path.name) from None
    except UnicodeDecodeError:
        message = f"{path.name}: not UTF-8; save the file as UTF-8"
        raise PolicyErrors((Problem("", message),), name=path.name) from None
    if not text:
        message = f"{path.name}: is empty, as while it is being saved; write a line, or remove it and restart the agent"
        raise PolicyErrors((Problem("", message),), name=path.name)
    return parse_policy(text, name=path.name)


def parse_policy(text: str, *, name: str = "policy.toml") -> Policy:
    """Check the text of a policy.

    Raises
    ------
    PolicyErrors
        With every mistake in it.
    """
    source = _toml.read(text, name=name)
    if source.tables is None:
        raise PolicyErrors(source.problems, name=name)
    problems = [*source.problems, *_unknown_tables(source.tables)]
    checked = {key: _check(key, source.tables[key], model) for key, model in _TABLES.items() if key in source.tables}
    sets, set_problems = _data_sets(source.tables)
    problems += set_problems
    for table in [*checked.values(), *sets.values()]:
        problems += [problem for problem in table.problems if not _only_lost(problem, source.lost)]
    problems += contradictions(checked, sets, lost=source.lost)
    if problems:
        raise PolicyErrors(tuple(problems), name=name)
    values: dict[str, Any] = {key: table.value for key, table in checked.items()}
    if sets:
        values[_DATA_SETS] = {key: table.value for key, table in sets.items()}
    return Policy(**values)


def _check(key: str, raw: Any, model: type[BaseModel]) -> Checked:
    homes = {field: table for table, other in _TABLES.items() if table != key for field in other.model_fields}
    return check_table(key, raw, model, homes=homes)


def _data_sets(tables: Mapping[str, Any]) -> tuple[dict[str, Checked], list[Problem]]:
    raw = tables.get(_DATA_SETS)
    if raw is None:
        return {}, []
    if not isinstance(raw, Mapping):
        what = f"{_DATA_SETS} = {show(raw)}: must be tables, not {kind(raw)}; write [data_sets.NAME] for each"
        return {}, [Problem(_DATA_SETS, what)]
    if not raw:
        return {}, [
            Problem(
                _DATA_SETS,
                "[data_sets] is empty: must name at least one; write [data_sets.NAME], or leave it out",
            )
        ]
    homes = {field: table for table, other in _TABLES.items() for field in other.model_fields}
    return {key: check_table(f"{_DATA_SETS}.{key}", value, DataSet, homes=homes) for key, value in raw.items()}, []


def _unknown_tables(tables: Mapping[str, Any]) -> Iterator[Problem]:
    known = (*_TABLES, _DATA_SETS)
    for key in tables:
        if key in known:
            continue
        close = did_you_mean(key, known)
        homes = [table for table, model in _TABLES.items() if key in model.model_fields]
        if homes:
            mend = f"it belongs in [{homes[0]}]"
        elif close is not None:
            mend = f"did you mean [{close}]?"
        else:
            mend = f"a policy has {', '.join(f'[{table}]' for table in _TABLES)} and [data_sets.NAME]"
        what = (
            f"[{key}]: unknown table" if isinstance(tables[key], Mapping) else f"{key}: unknown key outside any table"
        )
        yield Problem(key, f"{what}; {mend}")


def _only_lost(problem: Problem, lost: frozenset[str]) -> bool:
    """Whether a key seems missing only because its line could not be read."""
    return problem.key.rpartition(".")[2] in lost and " is missing: " in problem.message
