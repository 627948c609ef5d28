"""Cox's models against published figures of real data, whichever way the sites are cut."""

import numpy as np
import pytest
from lifelines import CoxPHFitter

from fedage.common.analyses.survival.cox_by_site import CoxBySite
from fedage.common.analyses.survival.cox_pooled import CoxPooled

EFRON = (-0.3794222, -0.0574377, 0.3138998, -0.1497957, -0.4337039, -0.0848711, 0.0914971)
BRESLOW = (-0.3790219, -0.0572459, 0.3141298, -0.1511146, -0.4327826, -0.0849828, 0.0911115)


def coefs(result):
    return np.array([covariate["coef"] for covariate in result["covariates"]])


def pooled_rossi(tools, rossi, distinct, **changes):
    options = {"time": "week", "event": "arrest", "subset": None, **changes}
    covariates = tuple(c for c in tools.rossi if c not in options.get("strata", ()))
    return CoxPooled("cox:rossi", covariates, distinct(rossi["week"]), **options)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("ties", "coef", "log_likelihood"), [("efron", EFRON, -658.7476594), ("breslow", BRESLOW, -659.1206057)]
)
def test_rossi_over_three_random_sites(tools, rossi, distinct, ties, coef, log_likelihood, seed):
    found = tools.result_of(pooled_rossi(tools, rossi, distinct, ties=ties), tools.cut(rossi, 3, seed))
    assert coefs(found) == pytest.approx(coef, abs=1e-6)
    assert found["log_likelihood"] == pytest.approx(log_likelihood, abs=1e-6)
    assert (found["n"], found["events"], found["left_out"]) == (432, 114, 0)
    if ties == "efron":
        assert found["null_log_likelihood"] == pytest.approx(-675.3806323, abs=1e-6)
        assert found["covariates"][0]["se"] == pytest.approx(0.1913795, abs=1e-6)
    assert found["exchanges"] <= 6


def test_rossi_stratified_by_race_as_levels_and_as_sites(tools, rossi, distinct):
    by_levels = tools.result_of(
        pooled_rossi(tools, rossi, distinct, strata=("race",), levels=((0.0, 1.0),)), tools.cut(rossi, 3, 5)
    )
    sites = {f"race-{race:.0f}": tools.cohort_of(part) for race, part in rossi.groupby("race")}
    others = tuple(c for c in tools.rossi if c != "race")
    by_site = tools.result_of(CoxBySite("cox:r", others, time="week", event="arrest", subset=None), sites)
    inside = CoxBySite("cox:r", others, time="week", event="arrest", subset=None, strata=("race",))
    in_one = tools.result_of(inside, {"all": tools.cohort_of(rossi)})
    for found in (by_levels, by_site, in_one):
        assert coefs(found)[0] == pytest.approx(-0.3787674, abs=1e-6)
        assert found["log_likelihood"] == pytest.approx(-620.5636085, abs=1e-6)
        assert coefs(found) == pytest.approx(coefs(by_site), rel=1e-10)
        assert found["log_likelihood"] == pytest.approx(by_site["log_likelihood"], rel=1e-10)


def test_lung_by_its_eighteen_hospitals(tools, lung, distinct):
    hospitals = {f"inst-{inst:02.0f}": tools.cohort_of(part) for inst, part in lung.groupby("inst")}
    assert len(hospitals) == 18
    found = tools.result_of(CoxBySite("cox:l", ("age", "sex"), time="time", event="status", subset=None), hospitals)
    assert coefs(found) == pytest.approx([0.0192049, -0.4923516], abs=1e-6)
    assert found["log_likelihood"] == pytest.approx(-323.5007078, abs=1e-6)
    assert found["n"] == 227

    nobody_lost = {**hospitals, "unknown": tools.cohort_of(lung[lung["inst"].isna()])}
    pooled = CoxPooled("cox:l", ("age", "sex"), distinct(lung["time"]), time="time", event="status", subset=None)
    found = tools.result_of(pooled, nobody_lost)
    assert coefs(found) == pytest.approx([0.0170453, -0.5132185], abs=1e-6)
    assert found["log_likelihood"] == pytest.approx(-742.8482458, abs=1e-6)
    assert found["n"] == 228


def test_lung_stratified_by_a_column_with_a_missing_value(tools, lung):
    inside = CoxBySite("cox:l", ("age", "sex"), time="time", event="status", subset=None, strata=("inst",))
    found = tools.result_of(inside, {"all": tools.cohort_of(lung)})
    assert (found["n"], found["left_out"]) == (227, 1)
    assert found["log_likelihood"] == pytest.approx(-323.5007078, abs=1e-6)


def test_gbsg2_over_random_sites(tools, gbsg2, distinct):
    covariates = ("age", "estrec", "horTh", "menostat", "pnodes", "progrec", "tgrade_II", "tgrade_III", "tsize")
    model = CoxPooled("cox:g", covariates, distinct(gbsg2["time"]), time="time", event="cens", subset=None)
    found = tools.result_of(model, tools.cut(gbsg2, 4, 3))
    named = {covariate["name"]: covariate["coef"] for covariate in found["covariates"]}
    assert named["age"] == pytest.approx(-0.0094592, abs=1e-6)
    assert named["horTh"] == pytest.approx(-0.3462784, abs=1e-6)
    assert named["pnodes"] == pytest.approx(0.0487886, abs=1e-6)
    assert named["tgrade_III"] == pytest.approx(0.7796542, abs=1e-6)
    assert found["log_likelihood"] == pytest.approx(-1735.7321043, abs=1e-6)


def test_every_figure_of_a_covariate_against_lifelines(tools, gbsg2, distinct):
    covariates = ["age", "horTh", "pnodes"]
    fitter = CoxPHFitter().fit(gbsg2[[*covariates, "time", "cens"]], "time", "cens", fit_options={"precision": 1e-12})
    model = CoxPooled("cox:g", tuple(covariates), distinct(gbsg2["time"]), time="time", event="cens", subset=None)
    found = tools.result_of(model, tools.cut(gbsg2, 3, 0))
    for covariate in found["covariates"]:
        row = fitter.summary.loc[covariate["name"]]
        assert covariate["coef"] == pytest.approx(row["coef"], abs=1e-8)
        assert covariate["se"] == pytest.approx(row["se(coef)"], rel=1e-6)
        assert covariate["z"] == pytest.approx(row["z"], rel=1e-6)
        assert covariate["p"] == pytest.approx(row["p"], rel=1e-5)
        assert covariate["hazard_ratio"] == pytest.approx(row["exp(coef)"], rel=1e-8)
        assert covariate["ci95"] == pytest.approx([row["exp(coef) lower 95%"], row["exp(coef) upper 95%"]], rel=1e-6)
        assert covariate["sd"] == pytest.approx(gbsg2[covariate["name"]].std(), rel=1e-12)
        assert covariate["hazard_ratio_per_sd"] == pytest.approx(np.exp(row["coef"] * covariate["sd"]), rel=1e-7)
    ratio = fitter.log_likelihood_ratio_test()
    assert found["likelihood_ratio"]["chi2"] == pytest.approx(ratio.test_statistic, rel=1e-8)
    assert found["likelihood_ratio"]["p"] == pytest.approx(ratio.p_value, rel=1e-6)


def test_rounding_times_is_lifelines_on_rounded_times(tools, lung, distinct):
    rounded = lung.assign(time=np.ceil(lung["time"] / 90) * 90)
    fitter = CoxPHFitter().fit(
        rounded[["age", "sex", "time", "status"]], "time", "status", fit_options={"precision": 1e-12}
    )
    tables = CoxPooled("cox:l", ("age", "sex"), distinct(rounded["time"]), time="time", event="status", subset=None)
    by_site = CoxBySite("cox:l", ("age", "sex"), time="time", event="status", subset=None, time_grid_years=90.0)
    for found in (
        tools.result_of(tables, tools.cut(rounded, 3, 8)),
        tools.result_of(by_site, {"one": tools.cohort_of(lung)}),
    ):
        assert coefs(found) == pytest.approx(fitter.params_.to_numpy(), abs=1e-8)
        assert found["log_likelihood"] == pytest.approx(fitter.log_likelihood_, abs=1e-8)


def test_beyond_the_last_table_time_everybody_is_censored(tools, lung):
    times = tuple(float(t) for t in np.unique(lung["time"]) if t <= 400)
    late = lung["time"] > 400
    cut_off = lung.assign(time=lung["time"].clip(upper=400.0), status=np.where(late, 0.0, lung["status"]))
    fitter = CoxPHFitter().fit(
        cut_off[["age", "sex", "time", "status"]], "time", "status", fit_options={"precision": 1e-12}
    )
    found = tools.result_of(
        CoxPooled("cox:l", ("age", "sex"), times, time="time", event="status", subset=None), tools.cut(lung, 3, 8)
    )
    assert coefs(found) == pytest.approx(fitter.params_.to_numpy(), abs=1e-8)
    assert found["events"] == int(cut_off["status"].sum())
