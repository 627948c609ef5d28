"""Which columns of several sites' tables give the features of one campaign."""

import pytest

from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.estimators.configure import FeaturesDiffer, agreed_features, configured
from fedage.common.estimators.table import FeaturesMissing

TEXT = """
[campaign]
name = "c"
purpose = "Agree on the features"
seed = 1
[estimator]
name = "table-ridge"
[estimator.options]
features = {features}
exclude = ["*_id", "row"]
[table]
age = "age"
"""


def campaign(*features: str) -> Campaign:
    return parse_campaign(TEXT.format(features=list(features)).replace("'", '"'))


@pytest.mark.parametrize("features", [("a", "b"), ("a*", "b"), ("[ab]",)])
def test_a_column_that_is_no_feature_may_be_anywhere(features: tuple[str, ...]) -> None:
    asked = campaign(*features)
    agreed = agreed_features(asked, {"north": ("a", "b"), "south": ("b", "c", "a"), "west": ("a", "b", "row")})
    estimator = configured(asked, agreed)
    assert estimator.row_columns == ("feature:a", "feature:b")
    assert configured(asked, ("b", "c", "a")).row_columns == estimator.row_columns


def test_excluded_columns_may_differ_and_others_may_not() -> None:
    agreed = agreed_features(campaign("*"), {"north": ("a", "n_id"), "south": ("a", "s_id")})
    assert configured(campaign("*"), agreed).row_columns == ("feature:a",)
    with pytest.raises(FeaturesDiffer, match="columns at south that are no numeric column at north: c, d; name"):
        agreed_features(campaign("*"), {"north": ("a",), "south": ("a", "c", "d")})


def test_a_site_without_a_feature_is_named() -> None:
    with pytest.raises(FeaturesMissing, match=r"site south: .*names 'b', which no numeric column"):
        agreed_features(campaign("a", "b"), {"north": ("a", "b"), "south": ("a",)})


def test_a_campaign_that_only_analyses_has_none() -> None:
    text = TEXT.partition("[estimator]")[0] + '[table]\nage = "age"\n[survival]\n'
    assert agreed_features(parse_campaign(text), {"north": ("a",), "south": ("b",)}) == ()
