"""The report draws the record: nothing loaded, nothing missing without a reason, the same numbers, the same bytes."""

import re
from html.parser import HTMLParser
from typing import Any

import matplotlib
import pytest

from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.analyses.groups import result
from fedage.common.analyses.survival import results as survival_results
from fedage.server.record.results import Results
from fedage.server.report import render_report

SECTIONS = ("summary", "run", "learning", "ages", "gap", "survival", "groups", "planted", "sites", "events")
PHANTOM = "Phantoms rendered by FedAge"


class Page(HTMLParser):
    """Tags, ids, sections' text, and tables as rows of (text, data-value)."""

    VOID = frozenset({"meta", "br", "img", "link", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: dict[str, str] = {}
        self.tables: dict[str, list[list[tuple[str, str]]]] = {}
        self._section = self._table = ""
        self._in_cell = False
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "section":
            self._section = attributes.get("id") or ""
        elif tag == "table":
            self._table = attributes.get("id") or ""
            self.tables[self._table] = []
        elif tag == "tr" and self._table:
            self.tables[self._table].append([])
        elif tag in ("td", "th") and self._table:
            self.tables[self._table][-1].append(("", attributes.get("data-value") or ""))
            self._in_cell = True

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "section":
            self._section = ""
        elif tag == "table":
            self._table = ""
        elif tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        self.text[self._section] = self.text.get(self._section, "") + data
        if self._in_cell:
            text, value = self.tables[self._table][-1][-1]
            self.tables[self._table][-1][-1] = (text + data, value)

    def row(self, table: str, *first: str) -> list[tuple[str, str]]:
        """The row of a table whose first cells are these."""
        found = [row for row in self.tables[f"table-{table}"] if [text for text, _ in row[: len(first)]] == list(first)]
        assert len(found) == 1, (table, first)
        return found[0]

    def values(self, table: str, *first: str) -> list[float]:
        """The full values behind such a row's numbers."""
        return [float(number) for _, value in self.row(table, *first)[len(first) :] for number in value.split()]


def bare(values: dict[str, Any], **changes: Any) -> Page:
    """The page of a record with nothing in it but these."""
    kept = {key: values[key] for key in ("fedage_version", "flwr_version", "campaign", "run", "phantoms")}
    return Page(render_report(Results.model_validate({**kept, **changes})))


@pytest.fixture(scope="module")
def html(full_record: Results, full_events: list[dict[str, Any]]) -> str:
    """The page of the whole example, rendered once."""
    return render_report(full_record, events=full_events)


def test_the_page_loads_nothing(html: str) -> None:
    page = Page(html)
    assert not re.search(r"https?:|//[a-z]", html)
    assert not re.search(r"@import|url\((?!#)", html)
    loading = {"script", "link", "img", "iframe", "object", "embed", "audio", "video", "source", "base", "form"}
    assert not loading & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not {"src", "srcset", "action", "xlink:href"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")


def test_every_section_and_figure_is_there(html: str) -> None:
    page = Page(html)
    assert tuple(a["id"] for tag, a in page.tags if tag == "section") == SECTIONS
    labels = [a["aria-label"] or "" for tag, a in page.tags if tag == "svg"]
    beginnings = ["Validation MAE", "Counts of", "Mean gap", "Survival curves", "Hazard ratios", "Differences"]
    assert [label[: len(start)] for label, start in zip(labels, beginnings, strict=True)] == beginnings
    tables = (
        "headline gap-hazards rounds test-raw test-corrected validation-raw bias groups hazards points coefficients "
        "models group-difference group-auc group-sites"
    )
    assert set(page.tables) == {
        f"table-{name}" for name in f"{tables} log-rank planted sites set-aside withheld troubles events".split()
    }


def test_ids_are_unique_and_references_point_somewhere(html: str) -> None:
    page = Page(html)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for value in attributes.values():
            for target in re.findall(r"url\(#([^)]+)\)|^#(.+)$", value or ""):
                if not re.fullmatch(r"[0-9a-fA-F]{6}", "".join(target)):
                    assert "".join(target) in ids


def test_the_same_record_gives_the_same_bytes_whatever_the_users_matplotlib_settings(
    html: str, results: Results, events: list[dict[str, Any]]
) -> None:
    again = Results.model_validate_json(results.model_dump_json())
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert render_report(again, events=events) == html
        assert matplotlib.rcParams["font.size"] == 30


def test_the_tables_hold_the_records_numbers(results: Results, html: str) -> None:
    page = Page(html)
    test = evaluation_results.evaluation(results).test
    for site, metrics in [*test.raw.by_site.items(), ("all sites", test.raw.overall)]:
        assert metrics is not None
        assert page.values("test-raw", site) == [
            metrics.n,
            metrics.mae_years,
            metrics.rmse_years,
            metrics.mean_error_years,
            metrics.cs_5,
            metrics.pearson_r,
            metrics.mae_of_mean_years,
        ]
    assert test.raw.overall is not None
    assert test.corrected.overall is not None
    assert page.values("headline", "all sites") == [
        204,
        test.raw.overall.mae_years,
        test.corrected.overall.mae_years,
        test.raw.overall.mae_of_mean_years,
        2.58,
    ]
    assert survival_results.survival(results) is not None
    for model in survival_results.survival(results).cox:
        for item in model.covariates:
            expected = [item.hazard_ratio, item.ci95_low, item.ci95_high, item.p, item.hazard_ratio_per_sd, 204, 131]
            assert page.values("hazards", model.model, item.name)[:7] == expected
            assert page.values("coefficients", model.model, item.name) == [item.coef, item.se, item.z, item.sd]
    assert page.values("bias", "south") == [22, 0.77, 14.5, 3.4]
    assert page.values("rounds", "3")[:3] == [
        results.rounds[2].seconds,
        results.rounds[2].train_loss,
        results.rounds[2].validation_mae_years,
    ]


def test_what_the_eye_reads_is_the_rounded_record(results: Results, html: str) -> None:
    page = Page(html)
    assert [text for text, _ in page.row("hazards", "gap", "gap_years")] == [
        "gap", "gap_years", "1.111", "1.060 to 1.164", "< 0.001", "1.655", "204", "131", "3", "1.138",
    ]  # fmt: skip
    raw = evaluation_results.evaluation(results).test.raw.overall
    assert raw is not None
    assert f"off by {raw.mae_years:.2f} years on average (MAE, raw)" in page.text["summary"]
    assert "hazard ratio of 1.111 (95 % interval 1.060 to 1.164" in page.text["summary"]
    assert "4 of 4 comparisons with the planted truth hold." in page.text["summary"]
    assert "no association" not in page.text["summary"]


def test_groups_are_told_as_recorded(results: Results, html: str) -> None:
    page = Page(html)
    assert result.groups(results) is not None
    for name, compared in (
        ("corrected", result.groups(results).corrected),
        ("raw", result.groups(results).raw),
    ):
        assert compared is not None
        for held, item in (("site, age_years", compared.adjusted), ("site", compared.unadjusted)):
            assert item is not None
            assert page.values("group-difference", name, held) == [
                item.difference_years, item.ci95_low, item.ci95_high, item.se_years, item.t, item.p, item.cohens_d,
                80, 124,
            ]  # fmt: skip
        assert page.values("group-auc", name) == [0.655, 0.581, 0.722, compared.auc, 0.575, 0.702, 0.61, 0.68]
    south = result.groups(results).corrected.by_site["south"].unadjusted
    assert south is not None
    assert page.values("group-sites", "south") == [
        40, 64, 0.4, south.ci95_low, south.ci95_high, south.p, south.cohens_d, 0.53,
    ]  # fmt: skip
    assert page.row("group-sites", "west")[1][0] == "not computed: it has patients of one group only"
    assert "21 patients at sites with one of the groups only are not compared." in page.text["groups"]
    assert "3 patients with a missing or impossible value are left out." in page.text["groups"]
    said = "With site, age held fixed, the corrected gap of patients with diagnosis = 1 is 1.90 years larger"
    assert said in page.text["summary"]
    assert "ROC AUC within sites 0.655" in page.text["summary"]


def test_groups_that_do_not_differ_and_what_is_not_adjusted(values: dict[str, Any]) -> None:
    corrected = values["groups"]["corrected"]
    corrected.update(adjusted=None, not_adjusted="age_years does not vary inside any site")
    corrected["unadjusted"].update(difference_years=-0.5, ci95_low=-1.5, ci95_high=0.5)
    page = bare(values, groups=values["groups"])
    assert "not adjusted: age_years does not vary inside any site" in page.text["groups"]
    assert (
        "With site held fixed, the corrected gap of patients with diagnosis = 1 is 0.50 years smaller"
        in (page.text["summary"])
    )
    assert "The interval includes 0: no difference is shown." in page.text["summary"]


def test_an_interval_around_one_is_said_in_words(values: dict[str, Any]) -> None:
    coefficient = values["survival"]["cox"][0]["covariates"][0]
    coefficient["ci95"] = [0.98, 1.2]
    page = bare(values, survival=values["survival"])
    assert "The interval includes 1: no association is shown." in page.text["summary"]


def test_phantoms_are_called_phantoms_on_top_and_at_every_figure(html: str) -> None:
    assert "Images in this run are phantoms rendered by FedAge" in html
    figures = re.findall(r"<figure>.*?</figure>", html, flags=re.DOTALL)
    assert len(figures) == 6
    assert all(PHANTOM in figure for figure in figures)


def test_patients_are_not_called_phantoms(values: dict[str, Any]) -> None:
    values["campaign"]["purpose"] = "a purpose"
    values["phantoms"] = False
    said = bare(values, figures=values["figures"]).text
    assert "hantom" not in "".join(said[section] for section in SECTIONS[:4])


def test_without_the_guard_every_figure_says_so(values: dict[str, Any], html: str) -> None:
    values["run"]["guard"] = False
    page = bare(values, figures=values["figures"])
    assert page.text["ages"].count("Disclosure control was off.") == 1
    assert page.text["gap"].count("Disclosure control was off.") == 1
    assert "Disclosure control was switched off in this run" in page.text[""]
    assert "Disclosure control was" not in html


@pytest.mark.parametrize(
    ("changes", "section", "says"),
    [
        ({"survival": {"cox": []}}, "survival", "The campaign lists no Cox model."),
        (
            {"survival": {"cox": [{"model": "gap", "not_computed": "no event at all"}]}},
            "survival",
            "not computed: no event at all",
        ),
        (
            {"survival": {"kaplan_meier": {"not_computed": "no table times"}}},
            "survival",
            "No figure: no table times.",
        ),
        ({}, "run", "a survival analysis and a comparison of groups"),
        (
            {"groups": {"column": "ill", "equals": 1, "reference": 0, "corrected": {"not_computed": "too few"}}},
            "groups",
            "No figure: too few.",
        ),
        ({}, "learning", "No round of training was finished."),
        ({}, "ages", "No site released it."),
        (
            {"evaluation": {"test": {"raw": {"not_computed": "every site withheld it"}}}},
            "summary",
            "How good the predicted ages are is not known: every site withheld it.",
        ),
        ({"figures": {"not_computed": {"predicted_by_age": "too few"}}}, "ages", "Too few."),
        ({"bias": {"not_computed": "all of one age"}}, "gap", "All of one age."),
        ({}, "sites", "No site answered the offer"),
    ],
)
def test_what_is_missing_says_why(values: dict[str, Any], changes: dict[str, Any], section: str, says: str) -> None:
    assert says in bare(values, **changes).text[section]


def test_a_run_that_failed_at_once_still_has_its_report(values: dict[str, Any]) -> None:
    run = {**values["run"], "status": "failed", "reason": "1 sites online after 120 s, the quorum is 2"}
    kept = {key: values[key] for key in ("fedage_version", "flwr_version", "campaign", "phantoms")}
    page = Page(render_report(Results.model_validate({**kept, "run": run}), events=[]))
    empty = {"survival", "groups", "planted", "events"}
    assert [a["id"] for tag, a in page.tags if tag == "section"] == [name for name in SECTIONS if name not in empty]
    assert "This run failed: 1 sites online after 120 s" in page.text[""]


def test_one_site_is_told_from_many(values: dict[str, Any]) -> None:
    for part in ("raw", "corrected"):
        by_site = values["evaluation"]["test"][part]["by_site"]
        values["evaluation"]["test"][part]["by_site"] = {"north": by_site["north"]}
    page = bare(values, evaluation=values["evaluation"], sites=values["sites"])
    assert "Only one site released figures of its own." in page.text["ages"]


def test_events_keep_the_turns_of_the_story(html: str) -> None:
    page = Page(html)
    assert [row[1][0] for row in page.tables["table-events"][1:]] == ["started", "site", "round"]
    assert "1 single answers and exchanges are left out." in page.text["events"]


def test_what_a_site_says_cannot_become_markup(values: dict[str, Any], events: list[dict[str, Any]]) -> None:
    attack = "<script>alert(1)</script>\"'&amp;"
    values["sites"][0]["troubles"] = [attack]
    values["sites"][0]["device"] = attack
    values["campaign"]["purpose"] = attack
    values["survival"]["cox"][0]["model"] = attack
    values["survival"]["kaplan_meier"]["groups"][0]["name"] = attack
    values["rounds"][0]["validation_mae_years_by_site"][attack] = 3.0
    events.append({"time": attack, "event": attack, "reason": attack})
    html = render_report(Results.model_validate(values), events=events)
    assert "<script" not in html
    Page(html)


def test_withheld_counts_are_said_and_not_shown_as_zero(values: dict[str, Any]) -> None:
    values["sites"][0]["patients"] = None
    values["sites"][0]["patients_by_part"]["test"] = None
    page = bare(values, sites=values["sites"], rounds=[{"number": 1}])
    row = [text for text, _ in page.row("sites", "north")]
    assert row[2] == "withheld"
    assert row[5] == "withheld"
    assert "patients)" not in page.text["summary"].split("trained")[0]


def test_a_share_within_five_years_that_sites_tell_bounds_of_is_shown_as_bounds(values: dict[str, Any]) -> None:
    raw = values["evaluation"]["test"]["raw"]
    raw["overall"].update(cs_5=None, cs_5_low=0.0, cs_5_high=0.96)
    raw["by_site"]["north"].update(cs_5=None, cs_5_low=0.75, cs_5_high=1.0)
    page = bare(values, evaluation=values["evaluation"])
    assert "≤ 96.0 %" in [text for text, _ in page.row("test-raw", "all sites")]
    assert "≥ 75.0 %" in [text for text, _ in page.row("test-raw", "north")]
    assert "None" not in " ".join(text for table in page.tables.values() for row in table for text, _ in row)


def test_what_goes_wrong_again_and_again_is_told_once(values: dict[str, Any]) -> None:
    values["sites"][2]["troubles"] = ["offline", "offline", "late", "offline"]
    page = bare(values, sites=values["sites"])
    assert [row[1][0] for row in page.tables["table-troubles"][1:]] == ["offline (3 times)", "late"]


def test_nulls_everywhere_are_dashes(values: dict[str, Any]) -> None:
    for item in values["survival"]["cox"][0]["covariates"]:
        item.update(p=None, hazard_ratio=None, ci95=[None, float("inf")], hazard_ratio_per_sd=None)
    values["evaluation"]["test"]["raw"]["overall"].update(pearson_r=float("nan"), cs_5=None)
    values["survival"]["kaplan_meier"]["groups"][1]["survival"][3:] = [None, None]
    values["survival"]["kaplan_meier"]["log_rank"] = None
    page = bare(values, survival=values["survival"], evaluation=values["evaluation"])
    assert [text for text, _ in page.row("hazards", "gap", "gap_years")][2:6] == ["–", "–", "–", "–"]
    assert "nan" not in " ".join(page.text.values()).lower().split()
