"""Who is healthy, and whom age limits leave: refused where it would change nothing."""

import pytest

from fedage.common.campaign_file import CampaignErrors, parse_campaign
from tests.common.campaign.texts import only_message

ANALYSES_ONLY = """
[campaign]
name = "only"
purpose = "Analyse what the tables hold"
seed = 1
[table]
age = "age"
"""


HEALTHY = '[cohort.healthy]\ncolumn = "dx"\nequals = 0\n'


COX = '[survival]\nmodels = [{{ name = "m", covariates = ["{}"] }}]\n'


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ('[cohort]\ntrain_on = "healthy"\n' + COX.format("x"), 'cohort.train_on = "healthy": must be "all" in'),
        ('[cohort]\ntrain_on = "healthy"\n' + HEALTHY + COX.format("healthy"), "name the column of predicted ages"),
        (HEALTHY + '[groups]\ncolumn = "dx"\nequals = 1\nreference = 0\n', "[cohort.healthy] has no effect"),
        (HEALTHY + COX.format("x"), "or remove [cohort.healthy]"),
        (HEALTHY + 'TABLE\npredicted = "p"\n', 'set cohort.train_on = "healthy" to judge predicted ages on them'),
    ],
)
def test_the_healthy_are_refused_where_they_would_change_nothing(tables: str, says: str) -> None:
    text = ANALYSES_ONLY
    if "TABLE" in tables:
        tables, more = tables.split("TABLE\n")
        text += more
    assert says in only_message(text + tables)


@pytest.mark.parametrize(
    "tables",
    [
        'predicted = "p"\n[cohort]\ntrain_on = "healthy"\n' + HEALTHY,
        HEALTHY + COX.format("healthy"),
        HEALTHY + '[survival]\nstrata = ["healthy"]\nmodels = [{ name = "m", covariates = ["x"] }]\n',
        HEALTHY + '[groups]\ncolumn = "healthy"\nequals = 0\nreference = 1\n',
        COX.format("x") + '[cohort]\nhealthy = "all"\n',
    ],
)
def test_the_healthy_are_taken_where_an_analysis_rests_on_them(tables: str) -> None:
    parse_campaign(ANALYSES_ONLY + tables)


@pytest.mark.parametrize(
    ("written", "mend"),
    [
        ('"18-38"', "it holds two: set cohort.age_min_years = 18 and cohort.age_max_years = 38"),
        ('"18 – 38"', "it holds two: set cohort.age_min_years = 18 and cohort.age_max_years = 38"),
        ('"40 to 59.5 years"', "it holds two: set cohort.age_min_years = 40 and cohort.age_max_years = 59.5"),
        ("[18, 38]", "it holds two: set cohort.age_min_years = 18 and cohort.age_max_years = 38"),
        ('"18"', "write it without quotation marks: cohort.age_{which}_years = 18"),
        ('"adults"', "set cohort.age_{which}_years to a number"),
    ],
)
@pytest.mark.parametrize("which", ["min", "max"])
def test_an_age_limit_that_is_a_range_is_told_so(written: str, mend: str, which: str) -> None:
    text = (
        '[campaign]\nname = "t"\npurpose = "Try an age limit"\nseed = 1\n[table]\nid = "who"\nage = "age"\n'
        f"[survival]\n[cohort]\nage_{which}_years = {written}\n"
    )
    with pytest.raises(CampaignErrors) as refused:
        parse_campaign(text)
    assert f"cohort.age_{which}_years = " in str(refused.value)
    assert mend.format(which=which) in str(refused.value)
