"""Which runs a comparison takes, what it calls them, and one clear line for what is no run."""

from pathlib import Path

import pytest

from fedage.common.errors import FedAgeError
from fedage.server.compare.runs import load_runs


def test_a_folder_and_a_file_are_the_same_to_it(make_run) -> None:
    a, b = make_run("a"), make_run("b")
    by_folder, by_file = load_runs([a, b]), load_runs([a / "results.json", b / "results.json"])
    assert by_folder == by_file
    assert [run.label for run in by_folder] == ["a", "b"]


def test_labels_tell_runs_apart_with_as_few_parents_as_needed(make_run, tmp_path: Path) -> None:
    paths = [make_run("x/one/run"), make_run("x/two/run"), make_run("y/two/run"), make_run("other")]
    renamed = (tmp_path / "other" / "results.json").rename(tmp_path / "other" / "kept.json")
    labels = [run.label for run in load_runs([*paths[:3], renamed])]
    assert labels == ["one/run", "x/two/run", "y/two/run", "kept"]


def test_the_campaign_file_counts_only_if_it_is_the_one_that_ran(make_run) -> None:
    good, bare, other = make_run("good"), make_run("bare", with_file=False), make_run("other")
    (other / "campaign.toml").write_text((other / "campaign.toml").read_text() + "\n")
    runs = load_runs([good, bare, other])
    assert runs[0].settings is not None
    assert runs[0].settings["training.strategy"] == "fedavg"
    assert [run.settings for run in runs[1:]] == [None, None]
    assert "no readable campaign.toml" in runs[1].why_no_settings
    assert "is not the one that ran" in runs[2].why_no_settings


@pytest.mark.parametrize("case", ["absent", "no record", "not JSON", "newer", "twice", "alone", "runs inside"])
def test_what_is_no_run_is_said_in_one_line(make_run, tmp_path: Path, case: str) -> None:
    good, wrong = make_run("good"), tmp_path / "wrong"
    wrong.mkdir()
    paths = [good, wrong]
    says = "wrong has no results.json; give the folder of a run that has ended"
    if case == "absent":
        paths, says = [good, tmp_path / "nowhere"], "nowhere does not exist; give the folder of a run"
    elif case == "not JSON":
        (wrong / "results.json").write_text("half a rec")
        says = "is not JSON; give the results.json of a run"
    elif case == "newer":
        (wrong / "results.json").write_text('{"schema_version": 99}')
        says = "has schema_version 99, this FedAge reads up to 2; install a newer FedAge"
    elif case == "twice":
        paths, says = [good, good / "results.json"], "is given 2 times; give every run once"
    elif case == "alone":
        paths, says = [good], "1 run given, a comparison needs at least 2"
    elif case == "runs inside":
        make_run("wrong/second")
        make_run("wrong/first")
        says = "it holds the runs first, second"
    with pytest.raises(FedAgeError) as refused:
        load_runs(paths)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
