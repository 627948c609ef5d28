"""A new campaign file is right as it is written, for every kind of campaign, and stays right when keys are set."""

import re
import tomllib

import pytest

from fedage.common import estimators
from fedage.common.campaign_file import parse_campaign
from fedage.common.campaign_file._commented import EXAMPLES, table_lines, toml
from fedage.common.campaign_file.new import Answers, campaign_text, reads_tables
from fedage.common.campaign_file.parse import TABLES
from fedage.common.estimators import UnknownEstimator
from fedage.common.toml.problems import CampaignErrors

KINDS = (*estimators.names(), None)
PURPOSE = "Say in a sentence what is asked"


def answers(kind: str | None, **changes) -> Answers:
    return Answers(kind, name="first", purpose=PURPOSE, **changes)


def keys_out_of_force(text: str) -> list[int]:
    """Numbers of the lines `#key = value` in tables that are in force."""
    found, in_force = [], False
    for number, line in enumerate(text.splitlines()):
        if re.match(r"#?\[", line):
            in_force = line.startswith("[")
        if in_force and re.match(r"#[a-z_]+ = ", line):
            found.append(number)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sites", [(), ("north", "south")])
@pytest.mark.parametrize("follow_up", [{}, {"time_column": "years", "event_column": "died"}])
def test_the_file_is_right_for_every_kind_of_campaign(kind, sites, follow_up):
    text = campaign_text(answers(kind, sites=sites, seed=7, **follow_up))
    campaign = parse_campaign(text)
    assert (campaign.campaign.name, campaign.campaign.purpose, campaign.campaign.seed) == ("first", PURPOSE, 7)
    assert campaign.campaign.sites == sites
    assert (campaign.estimator.name if campaign.estimator else None) == kind
    assert (campaign.table is not None) == reads_tables(kind)
    assert (campaign.survival is not None) == bool(kind is None or follow_up)
    if follow_up:
        assert (campaign.survival.time, campaign.survival.event) == ("years", "died")


def test_one_site_needs_no_quorum_of_two():
    assert parse_campaign(campaign_text(answers("chest-ca", sites=("alone",)))).training.quorum == 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_is_there_with_its_help(kind):
    text = campaign_text(answers(kind))
    prose = " ".join(line[2:] for line in text.splitlines() if line.startswith("# ")).lower()
    present = [table for table in TABLES if re.search(rf"^#?\[{table}\]$", text, re.MULTILINE)]
    always = {"campaign", "cohort", "privacy", "survival", "simulation"}
    assert always <= set(present)
    for table in present:
        for key, field in TABLES[table].model_fields.items():
            if (table, key) in (("cohort", "modality"), ("estimator", "options"), ("table", "predicted")):
                continue
            assert re.search(rf"^#?(\[+{table}\.)?{key}(\]+$| = )", text, re.MULTILINE), f"{table}.{key}"
            assert field.description.lower() in prose, f"{table}.{key}"
    if kind is not None:
        options = estimators.estimator_class(kind).Options
        for key, field in options.model_fields.items():
            assert re.search(rf"^#?{key} = ", text, re.MULTILINE), key
            assert field.description.lower() in prose


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_that_are_written_out_change_nothing(kind):
    """What a file says with every default written is what it says with the keys in force alone."""
    campaign = parse_campaign(campaign_text(answers(kind)))
    for table, model in TABLES.items():
        written = getattr(campaign, table)
        for key, field in model.model_fields.items():
            if written is not None and not field.is_required() and (table, key) not in CHOSEN:
                assert getattr(written, key) == field.get_default(call_default_factory=True), f"{table}.{key}"


CHOSEN = {
    # What an estimator sets itself: ages that it can learn, and how it is trained.
    ("cohort", "age_min_years"),
    ("cohort", "age_max_years"),
    *(("training", key) for key in ("local_epochs", "batch_size", "learning_rate", "weight_decay", "optimiser")),
    ("training", "final_learning_rate_fraction"),
    ("estimator", "options"),
    ("table", "age"),
    ("validation", "folds"),
    ("validation", "fractions"),
    ("validation", "final_model"),  # so that a model of folds can be exported
    ("survival", "models"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_taking_a_hash_away_sets_a_key_that_can_be_read(kind):
    """Each key on its own: its value has the right form, and what may be said against it is no mistake of form."""
    text = campaign_text(answers(kind, time_column="years"))
    lines = text.splitlines()
    numbers = keys_out_of_force(text)
    assert len(numbers) > 8
    for number in numbers:
        changed = [line.removeprefix("#") if at == number else line for at, line in enumerate(lines)]
        try:
            parse_campaign("\n".join(changed))
        except CampaignErrors as errors:
            allowed = (
                "not built yet",
                "both fractions and folds",
                "has no effect",
                "each follows from the other",
                "must not be there with estimator.bundle",
                "use [validation.fractions]",
                "whose model is made in other phases",
                "must be false with training.start_bundle",
                "not possible with",
            )
            for problem in errors.problems:
                assert any(words in problem.message for words in allowed) or "fractions" in problem.key, problem


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_that_is_not_in_force_can_be_set_as_a_whole(kind):
    text = campaign_text(answers(kind))
    optional = re.findall(r"^#\[([a-z]+)\]$", text, re.MULTILINE)
    assert "groups" in optional
    for table in optional:
        head, _, tail = text.partition(f"#[{table}]")
        block, end, rest = tail.partition("\n\n\n")
        changed = head + f"[{table}]" + re.sub(r"^#(?! )", "", block, flags=re.MULTILINE) + end + rest
        assert getattr(parse_campaign(changed), table) is not None, table


def test_every_example_is_of_a_key_that_there_is():
    lines = "\n".join(campaign_text(answers(kind)) for kind in KINDS).replace("\n# ", " ")
    for key, example in EXAMPLES.items():
        assert f"{key.rpartition('.')[2]} = {toml(example)}" in lines, key


def test_table_answers_are_in_the_file():
    kind = next((name for name in estimators.names() if reads_tables(name)), None)
    if kind is None:
        pytest.skip("no estimator on tables is registered")
    given = answers(kind, age_column="Age at scan", id_column="SUB_ID", features=("*_ThickAvg", "eTIV"))
    campaign = parse_campaign(campaign_text(given))
    assert (campaign.table.age, campaign.table.id, campaign.table.sex) == ("Age at scan", "SUB_ID", None)
    assert list(campaign.estimator.options["features"]) == ["*_ThickAvg", "eTIV"]


def test_a_wrong_answer_is_said_by_the_check():
    with pytest.raises(CampaignErrors) as refused:
        parse_campaign(campaign_text(Answers(None, name="No Name", purpose="short", sites=("A",))))
    assert [problem.key for problem in refused.value.problems][:2] == ["campaign.name", "campaign.purpose"]


def test_an_estimator_that_there_is_not():
    with pytest.raises(UnknownEstimator, match="chest-ca"):
        campaign_text(answers("chest-xy"))


@pytest.mark.parametrize(
    "value",
    ["a", 'with "quotes" and \\', "line\nfeed, tab\t, \x7f\x01 and ü–Ω", 3, 1e-5, 0.25, True, [1.0, 2.0], {"a": [1]}],
)
def test_values_survive_toml(value):
    assert tomllib.loads(f"x = {toml(value)}")["x"] == value


@pytest.mark.parametrize(("key", "planned"), [("method", "age-level"), ("scope", "partial")])
def test_words_of_the_plan_are_told_apart_from_what_is_built(key, planned):
    lines = " ".join(table_lines("bias", TABLES["bias"], {})).replace(" # ", " ")
    said = lines.partition(f" {key} =")[0]
    assert planned not in said.rpartition("Planned, not built yet:")[0]
    assert planned in said.rpartition("Planned, not built yet:")[2]
