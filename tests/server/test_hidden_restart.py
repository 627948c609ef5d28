"""An analysis of hidden sums whose sites leave in the middle: it begins again where the others may be opened alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import Message

from fedage.common.analyses.base import Done, run_locally
from fedage.common.protocol.messages import ANALYSE
from fedage.server.campaign.analyses import AnalysisOutcomes, run_stage
from tests.server.hidden import ONE, Sites, survival_site


def sites_of(folder: Path, names: str, *, minimum_sites: int) -> Sites:
    """Sites none of which withholds an exchange by itself."""
    members = [survival_site(name, folder / "sites", seed=k % 3) for k, name in enumerate(names)]
    return Sites(folder, members=members, minimum_sites=minimum_sites, forgets=False)


def analysed(sites: Sites, *, leaving: str, at_exchange: int) -> AnalysisOutcomes:
    heard: dict[str, int] = {}

    def meddle(message: Message, node: int) -> Message | None:
        name = sites.grid.names[node]
        heard[name] = heard.get(name, 0) + (message.metadata.message_type == ANALYSE)
        return None if name in leaving and heard[name] >= at_exchange else message

    sites.grid._meddle = meddle
    findings = AnalysisOutcomes()
    step = sites.steps[ONE]
    run_stage(sites.session, [step], kind=ANALYSE, findings=findings, following_kind=ANALYSE)
    return findings


@pytest.mark.slow
@pytest.mark.parametrize(("leaving", "minimum"), [("efg", 3), ("fg", 2), ("defg", 3)])
def test_it_begins_again_without_sites_that_leave_together(leaving: str, minimum: int, tmp_path: Path) -> None:
    names = "abcdefghi" if leaving == "defg" else "abcdefg"
    sites = sites_of(tmp_path, names, minimum_sites=minimum)
    findings = analysed(sites, leaving=leaving, at_exchange=3)
    there = [name for name in names if name not in leaving]
    expected = run_locally(
        sites.steps[ONE], {s.name: s.cohort(sites.campaign).cohort for s in sites.members if s.name in there}
    )
    assert isinstance(expected, Done)
    assert findings.contributors[ONE] == there
    assert findings.results[ONE]["covariates"][0]["coef"] == pytest.approx(expected.result["covariates"][0]["coef"])


@pytest.mark.parametrize("leaving", ["d", "cd"])
def test_it_ends_where_one_sites_sums_would_follow_and_says_whose(leaving: str, tmp_path: Path) -> None:
    sites = sites_of(tmp_path, "abcd" if leaving == "d" else "abcde", minimum_sites=3)
    findings = analysed(sites, leaving=leaving, at_exchange=3)
    assert ONE not in findings.results
    assert f"opened without {', '.join(leaving)}, it would tell the sums" in findings.not_computed[ONE]
    assert "resume the run when all its sites are there" in findings.not_computed[ONE]


def test_one_that_was_never_there_costs_nothing(tmp_path: Path) -> None:
    sites = sites_of(tmp_path, "abcd", minimum_sites=3)
    findings = analysed(sites, leaving="d", at_exchange=1)
    assert findings.contributors[ONE] == ["a", "b", "c"]
    assert ONE in findings.results
