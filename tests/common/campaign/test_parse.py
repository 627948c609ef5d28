"""The campaign file: read strictly, every mistake told at once, each in one line with its mend."""

import hashlib
from pathlib import Path

import pydantic
import pytest

from fedage.common.analyses.plan import left_out
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.campaign_file._contradictions import STRATA_OF_POOLED_MODELS
from fedage.common.campaign_file._rules import NOT_BUILT
from fedage.common.campaign_file.parse import TABLES
from fedage.deploy.machine.campaign_file import load_campaign
from tests.common.campaign.texts import GOOD, SURVIVAL, messages, only_message, replaced


def test_a_small_file_is_a_frozen_campaign_with_the_documented_defaults() -> None:
    campaign = parse_campaign(GOOD)
    assert campaign.campaign.sites == ("north", "south", "west")
    assert campaign.training.rounds == 3
    assert campaign.training.quorum == 2
    assert campaign.validation.fractions is not None
    assert campaign.validation.fractions.train == 0.7
    assert campaign.survival is None
    assert campaign.text == GOOD
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        campaign.training.rounds = 4  # type: ignore[misc]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_digest_is_the_sha256_of_the_files_bytes(tmp_path: Path, newline: str) -> None:
    content = replaced("age together", "âge together").replace("\n", newline).encode()
    path = tmp_path / "c.toml"
    path.write_bytes(content)
    campaign = load_campaign(path)
    assert campaign.digest == hashlib.sha256(content).hexdigest()
    assert parse_campaign(campaign.text) == campaign


def test_five_mistakes_give_five_messages_at_once() -> None:
    text = """
[campaign]
name = "first-light"
purpose = "Estimate age together and relate the gap to survival"
seed = 1.0
[estimator]
name = "chest-cb"
[training]
rounds = -3
optimizer = "adam"
[validation.fractions]
train = 0.7
validation = 0.1
test = 0.1
"""
    assert messages(text) == [
        "campaign.seed = 1.0: must be a whole number, not a number with a decimal point (drives initialisation and "
        "sampling without privacy); set campaign.seed to a whole number from 0 to 4294967295",
        "training.rounds = -3: must be ≥ 1 (federated rounds); set training.rounds to a whole number from 1 to 10000",
        'training.optimizer = "adam": unknown key; did you mean training.optimiser?',
        "validation.fractions = 0.7 + 0.1 + 0.1: must sum to 1, not 0.9; change train, validation or test",
        'estimator.name = "chest-cb": unknown estimator, known are age-ensemble, brain-clinical2d, '
        "brain-contrastive, brain-outcome, brain-patches, brain-sfcn, brain-tsan, breast-4view, breast-outcome, "
        'chest-ca, cortex-vnn, table-mlp, table-ridge; did you mean "chest-ca"?',
    ]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("1.0", "must be a whole number, not a number with a decimal point"),
        ("true", "must be a whole number, not true or false"),
        ('"3"', "must be a whole number, not text"),
        ("[3]", "must be a whole number, not a list"),
        ("1979-05-27", "must be a whole number, not a date or time"),
        ("10001", "must be ≤ 10000"),
    ],
)
def test_a_whole_number_is_nothing_else(value: str, says: str) -> None:
    assert says in only_message(replaced("rounds = 3", f"rounds = {value}"))


@pytest.mark.parametrize(
    ("value", "says"), [("true", "not true or false"), ('"1"', "not text"), ("nan", "≤ 10"), ("0", "must be > 0")]
)
def test_a_number_is_a_number(value: str, says: str) -> None:
    assert says in only_message(f"{GOOD}learning_rate = {value}\n")


def test_a_whole_number_is_accepted_as_a_number() -> None:
    assert parse_campaign(f"{GOOD}learning_rate = 1\n").training.learning_rate == 1.0


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        (GOOD + "[trainig]\nx = 1\n", "trainig", "did you mean [training]?"),
        ("rounds = 3\n" + GOOD, "rounds", "it belongs in [training]"),
        (GOOD + "folds = 5\n", "training.folds", "it belongs in [validation]"),
        ('text = "x"\n' + GOOD, "text", "unknown key outside any table"),
        (GOOD + 'strategy = "fedvag"\n', "training.strategy", 'did you mean "fedavg"?'),
        (replaced('"west"', '"Köln West"'), "campaign.sites[3]", "must be 1 to 63 lower-case letters"),
        (
            replaced('purpose = "Estimate age together and relate the gap to survival"', ""),
            "campaign.purpose",
            "missing",
        ),
        (GOOD + '[cohort]\nhealthy = "al"\n', "cohort.healthy", 'must be "all" or a table with column, equals'),
        (GOOD + "[cohort]\nhealthy = 3\n", "cohort.healthy", 'must be "all" or a table with column, equals'),
        (GOOD + '[cohort.healthy]\ncolum = "x"\n', "cohort.healthy.colum", "did you mean cohort.healthy.column?"),
        (GOOD + "[cohort.healthy]\nequals = 1\n", "cohort.healthy.column", "missing"),
        ("cohort = 3\n" + GOOD, "cohort", "must be a table, not a whole number"),
        (
            GOOD + "[survival]\nmodels = [{ name = 'a', covariates = [] }]\n",
            "survival.models[1].covariates",
            "at least 1",
        ),
        (GOOD + "[survival]\nmodels = [{ name = 'a' }]\n", "survival.models[1].covariates", "missing"),
    ],
)
def test_each_kind_of_mistake_names_its_key_and_its_mend(text: str, key: str, says: str) -> None:
    with pytest.raises(CampaignErrors) as caught:
        parse_campaign(text)
    found = {problem.key: problem.message for problem in caught.value.problems}
    assert key in found
    assert says in found[key]


def test_missing_tables_are_all_named() -> None:
    found = messages("")
    assert [message.split(" ")[0] for message in found] == ["[campaign]", "[estimator]"]


CONTRADICTIONS = {
    "fractions": ("[validation.fractions]\ntrain = 0.7\nvalidation = 0.15\ntest = 0.1500001\n", "must sum to 1"),
    "empty part": ("[validation.fractions]\ntrain = 0.5\nvalidation = 0\ntest = 0.5\n", "validation = 0: must be > 0"),
    "neither": ("[validation]\n", "neither fractions nor folds"),
    "both": (
        "[validation]\nfolds = 5\nfractions = { train = 0.7, validation = 0.15, test = 0.15 }\n",
        "both fractions and folds",
    ),
    "ages": ("[cohort]\nage_min_years = 90\nage_max_years = 40\n", "must be < cohort.age_max_years = 40"),
    "equal ages": ("[cohort]\nage_min_years = 130\n", "must be < cohort.age_max_years = 130 (the default)"),
    "modality": ('[cohort]\nmodality = ["MR"]\n', "the modalities of chest-ca"),
    "budgets": ("[privacy]\nepsilon = 1\nnoise_multiplier = 1\n", "each follows from the other"),
    "mode alone": ('[privacy]\nmode = "sample"\n', "needs privacy.epsilon or privacy.noise_multiplier"),
    "mode without delta": ('[privacy]\nmode = "client"\nepsilon = 1\n', "needs privacy.delta"),
    "time is event": ('[survival]\ntime = "t"\nevent = "t"\n', "must not be the column of survival.time"),
    "covariate twice": (
        '[survival]\nmodels = [{ name = "a", covariates = ["x", "x"] }]\n',
        'the item "x" is there 2 times',
    ),
    "covariate is time": (
        '[survival]\ntime = "t"\nmodels = [{ name = "a", covariates = ["x", "t"] }]\n',
        "the column of survival.time",
    ),
    "covariate is stratum": (
        '[survival]\nstrata = ["x"]\nmodels = [{ name = "a", covariates = ["x"] }]\n',
        "which survival.strata stratifies on",
    ),
    "model names": (
        '[survival]\nmodels = [{ name = "a", covariates = ["x"] }, { name = "a", covariates = ["y"] }]\n',
        'the name "a" is there 2 times',
    ),
    "times": ("[survival]\ntable_times_years = [1, 3, 2]\n", "must increase"),
    "equal times": ("[survival]\ntable_times_years = [1, 1]\n", "must increase"),
    "times without grid": (
        "[survival]\ntime_grid_years = 0\ntable_times_years = [1]\n",
        "not allowed with survival.time_grid_years = 0",
    ),
    "pooled model without times": (
        '[survival]\nmodels = [{ name = "a", covariates = ["x"], by_site = false }]\n',
        "survival.models[1].by_site = false: needs survival.table_times_years",
    ),
    "pooled model with unknown strata": (
        '[survival]\nstrata = ["is_male", "smoker"]\ntable_times_years = [1]\n'
        'models = [{ name = "a", covariates = ["x"], by_site = false }]\n',
        "or remove smoker",
    ),
    "one group": (
        '[groups]\ncolumn = "dx"\nequals = 1\nreference = 1\n',
        "groups.reference = 1: must not be groups.equals",
    ),
    "group covariate twice": (
        '[groups]\ncolumn = "dx"\nequals = 1\nreference = 2\ncovariates = ["x", "x"]\n',
        'the item "x" is there 2 times',
    ),
    "group as covariate": (
        '[groups]\ncolumn = "dx"\nequals = 1\nreference = 2\ncovariates = ["dx"]\n',
        "the column that tells the groups; remove it",
    ),
    "gap as covariate": (
        '[groups]\ncolumn = "dx"\nequals = 1\nreference = 2\ncovariates = ["raw_gap_years"]\n',
        "which is the gap or a part of it",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_is_found_also_when_other_keys_are_wrong(name: str) -> None:
    tables, says = CONTRADICTIONS[name]
    assert sum(says in message for message in messages(GOOD + tables)) == 1
    also_wrong = messages(replaced("rounds = 3", "rounds = -3\nnonsense = 1") + tables)
    assert sum(says in message for message in also_wrong) == 1
    assert any("training.rounds = -3" in message for message in also_wrong)
    assert any("training.nonsense = 1" in message for message in also_wrong)


def test_quorum_and_sites_contradict_each_other() -> None:
    assert "must be ≤ 3, the number of sites" in only_message(GOOD + "quorum = 4\n")
    assert "quorum = 2 (the default): must be ≤ 1" in only_message(replaced('["north", "south", "west"]', '["north"]'))
    assert 'the item "north" is there 2 times' in only_message(replaced('"south"', '"north"'))
    assert parse_campaign(replaced('["north", "south", "west"]', "[]") + "quorum = 4\n").training.quorum == 4


def test_fractions_sum_to_one_within_rounding() -> None:
    thirds = "[validation.fractions]\ntrain = {0}\nvalidation = {0}\ntest = {0}\n"
    assert parse_campaign(GOOD + thirds.format("0.3333333333")).validation.fractions is not None
    assert "must sum to 1" in only_message(GOOD + thirds.format("0.33333333"))


@pytest.mark.parametrize("rule", NOT_BUILT, ids=lambda rule: rule.key)
def test_what_is_planned_and_not_built_is_refused_as_such(rule) -> None:  # type: ignore[no-untyped-def]
    table, _, key = rule.key.partition(".")
    for value in rule.values or (1 if rule.key != "privacy.delta" else 0.5,):
        value = 5 if rule.key == "validation.folds" else value
        written = {True: "true"}.get(value, repr(value).replace("'", '"')) if isinstance(value, bool | str) else value
        text = GOOD + (f"{key} = {written}\n" if table == "training" else f"[{table}]\n{key} = {written}\n")
        assert any(f"{rule.key} = {written}: planned, not built yet: " in message for message in messages(text))


def test_every_planned_key_exists_in_the_file_format() -> None:
    for rule in NOT_BUILT:
        table, _, key = rule.key.partition(".")
        assert key in TABLES[table].model_fields


def test_gap_columns_need_no_bias_table() -> None:
    campaign = parse_campaign(GOOD + SURVIVAL)
    assert campaign.survival is not None
    assert campaign.survival.models[0].covariates == ("gap_years", "age_years")


def test_what_is_accepted_for_pooled_models_can_be_computed() -> None:
    strata = ", ".join(f'"{column}"' for column in STRATA_OF_POOLED_MODELS)
    models = '[{ name = "pooled", covariates = ["gap_years"], by_site = false }]'
    campaign = parse_campaign(f"{GOOD}[survival]\nstrata = [{strata}]\ntable_times_years = [1, 2]\nmodels = {models}\n")
    assert left_out(campaign) == {}


def test_the_estimators_own_options_are_checked() -> None:
    text = replaced('name = "chest-ca"', 'name = "chest-ca"\noptions = { no_such_option = 1 }')
    assert "estimator.options.no_such_option = 1: unknown key" in only_message(text)


def test_syntax_errors_are_told_by_line_with_the_rest() -> None:
    text = replaced("rounds = 3", "rounds = three\nquorum = \nbatch_size = 0")
    found = messages(text)
    assert [message.partition(":")[0] for message in found] == [
        "campaign.toml, line 12, column 10",
        "campaign.toml, line 13, column 10",
        "training.batch_size = 0",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[campaign\n", "line 1, column 10: not valid TOML"),
        ("x = [1,\n", "campaign.toml: not valid TOML"),
        ("a = 1\na = 2\n", "line 2, column 6: not valid TOML: this key is given twice"),
        ("a = " + "[" * 5000, "nests tables or lists too deeply"),
        ("a = " + "9" * 5000, "thousands of digits"),
        ("\ufeff" + GOOD, "byte order mark"),
        ("#" * 300_000, "has 300000 bytes"),
    ],
)
def test_files_that_are_not_toml_give_one_clear_line(text: str, says: str) -> None:
    assert says in messages(text)[0]


def test_files_that_cannot_be_read_are_said_so(tmp_path: Path) -> None:
    with pytest.raises(CampaignErrors, match="cannot be read"):
        load_campaign(tmp_path / "none.toml")
    path = tmp_path / "latin.toml"
    path.write_bytes(b"# one\nname = '\xe4'\n")
    with pytest.raises(CampaignErrors, match=r"latin.toml, line 2: not UTF-8"):
        load_campaign(path)


def test_control_codes_of_a_file_do_not_reach_the_terminal() -> None:
    found = messages(GOOD + 'strategy = "\\u001b[31m\\n"\n"\\u001b]0;x" = 1\n')
    assert len(found) == 2  # `messages` checks that both are printable


def test_the_exception_lists_every_problem() -> None:
    with pytest.raises(CampaignErrors) as caught:
        parse_campaign("", name="empty.toml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "empty.toml: 2 problems"
    assert lines[1:] == [f"  - {problem.message}" for problem in caught.value.problems]


def test_one_code_for_both_sexes_is_refused():
    text = (
        '[campaign]\nname = "c"\npurpose = "Compare the sexes"\nseed = 1\n[survival]\n[table]\nsex = "s"\nfemale = 1\n'
    )
    with pytest.raises(CampaignErrors, match=r"table.female = 1: must not be table.male \(the default\)"):
        parse_campaign(text)
