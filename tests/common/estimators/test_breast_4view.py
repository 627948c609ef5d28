from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fedage.client.compute.patient_gradients import ClippedGradients
from fedage.client.compute.training import predict_columns, train_locally
from fedage.common.campaign.types import Training
from fedage.common.estimators import make
from fedage.common.estimators.base import Batch, Samples
from fedage.common.estimators.breast_4view import VIEWS
from fedage.common.estimators.takes import Content
from fedage.common.networks.arrays import ModelRefused, outline
from fedage.common.preprocessing.image import Exam, Image, SampleRefused
from tests.of_estimators import network

TINY: dict[str, Any] = {
    "image_height": 64,
    "image_width": 32,
    "width": 8,
    "norm": "group",
    "local_channels": 8,
    "local_blocks": 1,
    "draws": 2,
    "dropout": 0.0,
    "age_min_years": 40,
    "age_max_years": 75,
    "augment": False,
}
AGES = torch.tensor([41.2, 55.0, 63.7, 70.0])
DENSITIES = torch.tensor([1.0, 4.0, torch.nan, 2.0])


def tiny(**options: Any) -> Any:
    return make("breast-4view", {**TINY, **options})


def batch(*, exams: int = 4, seed: int = 0, lacking: tuple[tuple[str, int], ...] = ()) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    views = {name: torch.randn(exams, 1, 64, 32, generator=generator) for name in VIEWS}
    present = {name: torch.ones(exams, dtype=torch.bool) for name in VIEWS}
    for name, exam in lacking:
        present[name][exam] = False
    targets = {"age_years": AGES[:exams].clone(), "density": DENSITIES[:exams].clone()}
    return Batch(views, present, targets)


def loss_of(estimator: Any, given: Batch, *, seed: int = 0) -> tuple[torch.Tensor, torch.nn.Module]:
    phase = network(estimator)
    module = phase.build(seed=seed).train()
    changed = phase.training_batch(given, generator=torch.Generator().manual_seed(3))
    return phase.loss(phase.output(module, changed), changed), module


def ages_of(estimator: Any, given: Batch, *, seed: int = 0) -> torch.Tensor:
    phase = network(estimator)
    with torch.inference_mode():
        return phase.age_years(phase.output(phase.build(seed=seed).eval(), given))


# --- the published network ---


@pytest.mark.parametrize(
    ("backbone", "features", "whole"),
    [
        ("resnet18", 11_176_512, 17_090_060),
        ("resnet50", 23_508_032, 78_724_108),
        ("efficientnet-b0", 4_007_548, 27_494_472),
        ("densenet121", 6_953_856, 23_010_124),
        ("convnext-tiny", 27_818_592, 38_017_068),
    ],
)
def test_parameters_are_those_of_the_published_networks(backbone: str, features: int, whole: int) -> None:
    phase = network(make("breast-4view", {"backbone": backbone, "norm": "batch"}))
    module = outline(lambda: phase.build(seed=0))
    assert sum(p.numel() for p in module.backbone.parameters()) == features
    assert sum(p.numel() for p in module.parameters()) == whole


@pytest.mark.parametrize(
    ("backbone", "norm"), [("resnet18", "group"), ("resnet18", "batch"), ("efficientnet-b0", "group")]
)
def test_a_backbone_halves_five_times(backbone: Any, norm: Any) -> None:
    from fedage.common.networks.backbones import Features

    features = Features(backbone, norm=norm)
    with torch.inference_mode():
        assert features.eval()(torch.zeros(1, 3, 96, 64)).shape == (1, features.channels, 3, 2)
    has_batch_norm = any(isinstance(layer, torch.nn.BatchNorm2d) for layer in features.modules())
    assert has_batch_norm == (norm == "batch")


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = network(tiny()).start({}, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    same, other = network(tiny()).start({}, seed=7), network(tiny()).start({}, seed=8)
    assert all(np.array_equal(first[name], same[name]) for name in first)
    assert not np.array_equal(first["local_head.ages.weight"], other["local_head.ages.weight"])


# --- missing views ---


@pytest.mark.parametrize(
    ("norm", "missing"), [("group", "L-CC"), ("group", "R-CC"), ("group", "L-MLO"), ("batch", "R-MLO")]
)
def test_what_lies_where_a_view_is_missing_changes_nothing(norm: str, missing: str) -> None:
    estimator = tiny(norm=norm)
    given = batch(lacking=((missing, 1), (missing, 2)))
    other = batch(lacking=((missing, 1), (missing, 2)))
    other.inputs[missing][1:3] = 1e6
    assert torch.equal(ages_of(estimator, given), ages_of(estimator, other))
    one, two = loss_of(estimator, given)[0], loss_of(estimator, other)[0]
    assert torch.equal(one, two)
    assert torch.isfinite(one)


def test_an_exam_is_predicted_the_same_beside_others_with_and_without_all_views() -> None:
    estimator = tiny()
    whole = ages_of(estimator, batch(lacking=(("R-CC", 3), ("L-CC", 0), ("R-CC", 0), ("L-MLO", 0))))
    for exam in range(4):
        given = batch(lacking=(("R-CC", 3), ("L-CC", 0), ("R-CC", 0), ("L-MLO", 0)))
        alone = Batch(
            {name: view[exam : exam + 1] for name, view in given.inputs.items()},
            {name: known[exam : exam + 1] for name, known in given.present.items()},
            {},
        )
        torch.testing.assert_close(ages_of(estimator, alone), whole[exam : exam + 1], rtol=1e-5, atol=1e-4)


def test_the_views_that_are_there_stand_for_a_missing_one_in_the_exams_vector() -> None:
    """All four views alike, or one of them missing: the exam's own head sees the same."""
    estimator = tiny(local_path=False)
    given = batch()
    alike = Batch(dict.fromkeys(VIEWS, given.inputs["L-CC"]), given.present, given.targets)
    lacking = batch(lacking=(("R-MLO", 0), ("L-CC", 2)))
    torch.testing.assert_close(
        ages_of(estimator, alike), ages_of(estimator, Batch(alike.inputs, lacking.present, {})), rtol=1e-5, atol=1e-4
    )


# --- losses ---


@pytest.mark.parametrize("unknown", [torch.nan, torch.inf])
def test_density_that_is_not_known_is_not_learnt_from(unknown: float) -> None:
    estimator = tiny()
    given = batch()
    given.targets["density"][2] = unknown
    loss, module = loss_of(estimator, given)
    loss.backward()
    phase = network(estimator)
    output = phase.output(module, phase.training_batch(given, generator=torch.Generator().manual_seed(3)))
    assert torch.isfinite(output["density"]).all()
    nobody = batch()
    nobody.targets["density"][:] = torch.nan
    none, untaught = loss_of(estimator, nobody)
    none.backward()
    expected = torch.nn.functional.cross_entropy(output["density"][[0, 1, 3]], torch.tensor([0, 3, 1]))
    assert (loss - none).item() == pytest.approx(0.2 * expected.item(), rel=1e-3)
    assert all(torch.isfinite(p.grad).all() for p in untaught.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "change",
    [
        {"exam_path": False},
        {"local_path": False},
        {"cross_entropy": 0.0},
        {"mean": 0.0},
        {"variance": 0.0},
        {"kl": 0.0},
        {"triplet": 0.0},
        {"triplet_form": "hinge"},
        {"triplet_margin": 1.0},
        {"density": 0.0},
        {"draws": 0},
        {"dropout": 0.5},
        {"local_blocks": 2},
        {"norm": "batch"},
        {"augment": True},
    ],
    ids=str,
)
def test_each_part_that_can_be_switched_changes_what_is_learnt(change: dict[str, Any]) -> None:
    base = {"kl": 1e-3, "triplet": 1e-2}
    plain, _ = loss_of(tiny(**base), batch())
    changed, _ = loss_of(tiny(**{**({} if "draws" in change else base), **change}), batch())
    assert abs(plain.item() - changed.item()) > 1e-5


def test_flips_change_what_is_learnt() -> None:
    assert loss_of(tiny(augment=True, flips=True), batch())[0] != loss_of(tiny(augment=True), batch())[0]


@pytest.mark.parametrize(
    "change",
    [{"local_path": False}, {"local_blocks": 2}, {"density": 0.0}, {"backbone": "resnet50"}, {"norm": "batch"}],
    ids=str,
)
def test_each_part_of_the_network_changes_what_is_predicted(change: dict[str, Any]) -> None:
    assert not torch.equal(ages_of(tiny(), batch()), ages_of(tiny(**change), batch()))


def test_training_draws_from_its_own_seed_alone() -> None:
    estimator = tiny(dropout=0.5, draws=3, augment=True)
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=(6, 1, 64, 32)).astype(np.float32) for name in VIEWS}
    targets = {"age_years": np.linspace(42, 70, 6), "density": np.full(6, np.nan)}
    phase = network(estimator)
    first = phase.start({}, seed=0)
    options: dict[str, Any] = {
        "training": Training(rounds=1, batch_size=3),
        "round_number": 1,
        "threads": 1,
        "device": "cpu",
    }
    made = []
    for noise, seed in ((1, 5), (2, 5), (2, 6)):
        torch.manual_seed(noise)
        made.append(train_locally(phase, first, Samples(arrays), targets, rng_seed=seed, **options).weights)
    assert all(np.array_equal(made[0][name], made[1][name]) for name in first)
    assert any(not np.array_equal(made[0][name], made[2][name]) for name in first)
    ages = [
        predict_columns(estimator.predictor(made[0], device="cpu"), Samples(arrays), threads=1)["predicted_years"]
        for _ in range(2)
    ]
    assert np.array_equal(*ages)
    assert ((ages[0] >= 40) & (ages[0] <= 75)).all()


def test_privacy_for_each_patient_takes_an_exam_by_itself() -> None:
    """With dropout, draws and missing views: a batch's clipped sum is that of its exams alone, but for rounding."""
    estimator = tiny(triplet=0.0, dropout=0.5, draws=2, density=0.0)
    phase = network(estimator)
    given = phase.training_batch(batch(lacking=(("R-CC", 1), ("L-MLO", 1))), generator=torch.Generator().manual_seed(3))
    module = phase.build(seed=0).train()
    where = torch.device("cpu")
    gradients = ClippedGradients(phase, module, clip_norm=1.0, where=where)
    together, alone = gradients.zeros(), gradients.zeros()
    gradients.add(together, given, np.arange(4))
    for exam in range(4):
        own = gradients.zeros()
        one = Batch(
            *(
                {name: x[exam : exam + 1] for name, x in part.items()}
                for part in (given.inputs, given.present, given.targets)
            )
        )
        gradients.add(own, one, np.zeros(1, dtype=np.intp))
        assert sum(float(x.square().sum()) for x in own.values()) == pytest.approx(1.0, rel=1e-3)
        for name, x in own.items():
            alone[name] += x
    assert all(torch.allclose(together[name], alone[name], rtol=1e-4, atol=1e-6) for name in alone)


def test_the_model_of_another_estimator_is_refused_in_a_line() -> None:
    other = network(make("chest-ca", {"width": 8, "image_size": 64})).start({}, seed=0)
    with pytest.raises(ModelRefused, match="campaign of the same estimator and options") as refused:
        tiny().predictor(other, device="cpu")
    assert "\n" not in str(refused.value)


# --- options ---


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"exam_path": False, "local_path": False}, "nothing predicts age"),
        ({"cross_entropy": 0.0, "mean": 0.0}, "age is not learnt"),
        ({"age_min_years": 60, "age_max_years": 60}, "must be above"),
        ({"backbone": "densenet121", "width": 32}, "has one width"),
        ({"draws": 0, "kl": 1e-5}, "needs a Gaussian embedding"),
        ({"draws": 0, "triplet": 1e-5}, "needs a Gaussian embedding"),
        ({"augment": False, "flips": True}, "no effect"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        make("breast-4view", options)


@pytest.mark.parametrize(
    ("options", "couples", "smallest", "kinked"),
    [
        ({}, True, 3, ""),
        ({"triplet": 0.0}, False, 2, ""),
        ({"draws": 0}, False, 2, ""),
        ({"triplet": 0.0, "norm": "group"}, False, 1, ""),
        ({"draws": 0, "norm": "group"}, False, 1, ""),
        ({"triplet_form": "hinge"}, True, 3, 'triplet_form = "hinge"'),
        ({"triplet_form": "hinge", "triplet": 0.0, "norm": "group"}, False, 1, ""),
    ],
)
def test_it_says_what_its_loss_asks_of_a_batch(
    options: dict[str, Any], couples: bool, smallest: int, kinked: str
) -> None:
    estimator = make("breast-4view", options)
    phase = network(estimator)
    assert (phase.couples_samples, phase.smallest_batch, estimator.kinked_loss) == (couples, smallest, kinked)


# --- which images, and what becomes of them ---


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"intent": ""}, None),
        ({"body_part": ""}, None),
        ({"intent": "PROCESSING"}, "other-intent"),
        ({"view": "MLO"}, "other-view"),
        ({"view": ""}, "unknown-view"),
        ({"laterality": "R"}, "other-laterality"),
        ({"laterality": ""}, "unknown-laterality"),
        ({"body_part": "CHEST"}, "other-body-part"),
        *(
            ({"special": name}, name)
            for name in ("spot", "magnification", "implant-displaced", "specimen", "biopsy", "tomosynthesis")
        ),
        ({"special": "generated-2d"}, "generated-2d"),
    ],
)
def test_it_takes_whole_views_for_presentation_alone(change: dict[str, str], why: str | None) -> None:
    content = {"view": "CC", "laterality": "L", "body_part": "BREAST", "intent": "PRESENTATION", **change}
    (chosen,) = (one for one in tiny().inputs if one.name == "L-CC")
    assert chosen.takes.why_not(Content(**content)) == why


def picture(*, side: str = "L", gain: float = 1.0, offset: float = 0.0, marker: bool = False) -> Image:
    """A half disc at the chest wall with a bright spot above its middle."""
    y, x = np.mgrid[0:160, 0:100].astype(np.float32)
    inside = np.hypot(x, y - 80) < 70
    pixels = 0.05 + inside * (0.4 + 0.3 * np.exp(-((x - 30) ** 2 + (y - 50) ** 2) / 60) + 0.001 * x)
    if marker:
        pixels[4:14, 80:94] = 1.0
    if side == "R":
        pixels = pixels[:, ::-1]
    return Image(
        pixels=np.asarray(offset + gain * pixels, dtype=np.float32), spacing_mm=(1.0, 1.0), modality="MG", view="CC"
    )


def exam_of(**views: Image) -> Exam:
    return Exam({name.replace("_", "-"): image for name, image in views.items()})


def test_both_sides_and_any_gain_give_the_same_sample() -> None:
    given = exam_of(L_CC=picture(), R_CC=picture(side="R", gain=3000, offset=200))
    made = tiny().preprocess(given)
    assert set(made) == {"L-CC", "R-CC"}
    np.testing.assert_allclose(made["L-CC"], made["R-CC"], atol=1e-3)
    assert made["L-CC"].shape == (1, 64, 32)
    assert (made["L-CC"].min(), made["L-CC"].max()) == pytest.approx((-1, 1), abs=0.05)
    spot = np.unravel_index(made["L-CC"][0].argmax(), (64, 32))
    assert spot[0] < 32
    assert spot[1] < 20


def test_a_marker_beside_the_breast_is_left_out() -> None:
    made = tiny().preprocess(exam_of(L_CC=picture(), R_CC=picture(marker=True)))
    np.testing.assert_allclose(made["L-CC"], made["R-CC"], atol=0.02)


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (np.full((160, 100), 7.0), "blank-image"),
        (np.full((160, 100), np.nan), "not-finite"),
        (np.zeros((4, 160, 100)), "not-two-dimensional"),
        (picture().pixels[60:90, :60], "too-small"),
        (np.eye(160)[:, :100], "no-breast"),
    ],
)
def test_what_is_no_mammogram_names_its_view(image: np.ndarray, code: str) -> None:
    bad = Image(pixels=np.asarray(image, dtype=np.float32), spacing_mm=(1.0, 1.0), modality="MG")
    with pytest.raises(SampleRefused) as refused:
        tiny().preprocess(exam_of(L_CC=picture(), R_CC=picture(), L_MLO=bad))
    assert (refused.value.code, refused.value.input) == (code, "L-MLO")


@pytest.mark.parametrize(("needed", "refused"), [(1, False), (2, False), (3, True), (4, True)])
def test_an_exam_with_too_few_views_is_set_aside(needed: int, refused: bool) -> None:
    given = exam_of(L_CC=picture(), R_MLO=picture())
    estimator = tiny(views_needed=needed)
    if refused:
        with pytest.raises(SampleRefused, match=f"L-CC, R-MLO, {needed} views are needed"):
            estimator.preprocess(given)
    else:
        assert set(estimator.preprocess(given)) == {"L-CC", "R-MLO"}
