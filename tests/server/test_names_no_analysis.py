"""What drives a campaign and shows its record asks no analysis which one it is; each says all in its own files."""

from __future__ import annotations

import ast
from pathlib import Path

import fedage.common
import fedage.server
from fedage.common.analyses import registry
from fedage.server.record.results import Results

SERVER = Path(fedage.server.__path__[0])
ANALYSES = "fedage.common.analyses"
OF_ANY_ANALYSIS = {"base", "definition", "exact", "plan", "registry"}
NEEDED = {
    # A round of training is validated by this step's sums, which come with the sites' updates.
    "campaign/rounds.py": {"evaluation.metrics"},
    "campaign/accepted.py": {"evaluation.metrics"},
    # The same, after the last round; and the sites correct ages by the fitted line, as the file says.
    "campaign/conduct.py": {"evaluation.metrics", "bias.bias_line"},
    # A bundle's card and lines are these results, whatever else the campaign asked for.
    "campaign/export.py": {"evaluation.results", "bias.results", "bias.bias_line"},
    # What leaving one hospital out is asked for: the error where nothing was trained, and how well sites are told.
    "cli/leave_out.py": {"evaluation.results", "evaluation.likely_site"},
    # No analysis of a campaign either: the bounds that a private validation's noise follows from.
    "cli/privacy_plan.py": {"noised_validation"},
    # No analysis of a campaign: a phase in the making of models on tables.
    "campaign/model.py": {"preparation.table_preparation"},
    "report/withheld_text.py": {"preparation.table_preparation"},
}


def analyses_imported(file: Path) -> set[str]:
    """Modules of `fedage.common.analyses` that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(ANALYSES):
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            found |= {name.removeprefix(f"{ANALYSES}.") for name in modules if _is_module(name)}
    return found - OF_ANY_ANALYSIS


def _is_module(name: str) -> bool:
    path = Path(fedage.common.__path__[0]).joinpath(*name.split(".")[2:]).with_suffix(".py")
    return path.is_file()


def test_the_server_names_no_analysis() -> None:
    found = {str(file.relative_to(SERVER)): analyses_imported(file) for file in SERVER.rglob("*.py")}
    assert {file: names for file, names in found.items() if names} == NEEDED


def test_a_record_has_no_view_of_a_single_analysis() -> None:
    views = {name for name in dir(Results) if not name.startswith(("_", "model_"))}
    assert views.isdisjoint({name.replace("-", "_") for name in registry.own()} | {"survival", "groups", "bias"})
