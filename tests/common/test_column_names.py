"""What columns may be called where a campaign file names them, and that names stay names wherever they are shown."""

import numpy as np
import pytest

from fedage.common.analyses.columns import bound_of
from fedage.common.analyses.groups.group_difference import GroupDifference
from fedage.common.analyses.preparation import table_preparation
from fedage.common.campaign_file import parse_campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.toml.problems import CampaignErrors

TEXT = """
[campaign]
name = "names"
purpose = "Columns as the hospitals call them"
seed = 1
[table]
age = "age"
[survival]
models = [{{ name = "m", covariates = ["{0}"] }}]
[groups]
column = "dx"
equals = 1
reference = 0
covariates = ["{0}"]
"""
ALLOWED = ["tumour size", "ki-67", "Größe (cm)", "年齢", "2nd visit", "[bold]x[/]", "a·b", "<b>&", "x" * 100]
REFUSED = {
    "blank before": " age", "blank after": "age ", "tab": "a\\tb", "bell": "a\\u0007b", "turned": "a\\u202eb",
    "zero width": "a\\u200bb", "hard blank": "a\\u00a0b", "too long": "x" * 101, "nothing": "", "line": "a\\nb",
    "FedAge's own": table_preparation.INNER_PLACE.replace("\x00", "\\u0000"),
}  # fmt: skip


@pytest.mark.parametrize("name", ALLOWED)
def test_a_column_of_any_visible_name_is_allowed_where_a_campaign_names_columns(name: str) -> None:
    campaign = parse_campaign(TEXT.format(name))
    assert campaign.survival is not None
    assert campaign.groups is not None
    assert campaign.survival.models[0].covariates == campaign.groups.covariates == (name,)


@pytest.mark.parametrize("why", REFUSED)
def test_a_name_that_hides_something_is_refused(why: str) -> None:
    with pytest.raises(CampaignErrors, match="a column name") as found:
        parse_campaign(TEXT.format(REFUSED[why]))
    assert all(line.isprintable() for line in str(found.value).splitlines())


@pytest.mark.parametrize("covariates", [("a", "b·c", "a·b", "c"), ("group", "gap"), ("1 a", "a", "1")])
def test_the_sums_of_a_comparison_have_each_their_own_name(covariates: tuple[str, ...]) -> None:
    asked = GroupDifference("groups", "ill", equals=1.0, reference=0.0, covariates=covariates)
    size = len(asked.layout({}).fields)
    rng = np.random.default_rng(0)
    columns = {name: rng.normal(size=40) for name in (*covariates, "gap_years")}
    cohort = Cohort({**columns, "ill": np.repeat([0.0, 1.0], 20)})
    assert len({field.name for field in asked.local(cohort, {}).layout.fields}) == size


@pytest.mark.parametrize("name", ["is_stage", "is_ecog score", "is_grade"])
def test_a_column_that_begins_like_a_flag_is_no_flag(name: str) -> None:
    """Patients with a value above 1 were left out."""
    assert bound_of(name) == bound_of("stage") > 1e6
    assert bound_of("is_male") == 1
