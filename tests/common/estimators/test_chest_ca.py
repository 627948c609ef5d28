import numpy as np
import pytest
import torch
from monai.transforms import RandAffineGrid
from pydantic import ValidationError
from scipy import ndimage

from fedage.client.compute.training import predict_columns
from fedage.client.compute.training import train_locally as train_samples
from fedage.common.campaign.types import Training
from fedage.common.estimators import make
from fedage.common.estimators.base import ROW, Batch, Samples
from fedage.common.networks.arrays import load_arrays
from fedage.common.preprocessing.augmentation import RandomChanges
from fedage.common.preprocessing.image import Exam, Image, SampleRefused
from tests.of_estimators import network, train_locally

_SEED_OF_5 = 236_996_814
"""The first number below 2³² of torch's generator with seed 5."""


def _image(pixels, spacing_mm=(0.2, 0.2)) -> Image:
    return Image(pixels=np.asarray(pixels, dtype=np.float32), spacing_mm=spacing_mm, modality="DX", view="PA")


def _gradient(rows: int, columns: int) -> np.ndarray:
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    return 1000 + 3 * y + 2 * x


def sample_of(estimator, image: Image) -> np.ndarray:
    return estimator.preprocess(Exam({"image": image}))["image"]


@pytest.fixture
def small():
    return make("chest-ca", {"image_size": 64, "width": 8})


# --- preprocessing ---


def test_a_sample_has_mean_0_and_variance_1_whatever_gain_and_offset(small):
    pixels = np.random.default_rng(0).normal(size=(200, 150))
    sample = sample_of(small, _image(pixels))
    assert sample.shape == small.shapes()["image"] == (1, 64, 64)
    assert sample.dtype == np.float32
    assert abs(sample.mean()) < 1e-5
    assert abs(sample.std() - 1) < 1e-5
    np.testing.assert_allclose(sample_of(small, _image(700 * pixels + 4000)), sample, atol=2e-3)


def test_halving_averages_over_the_area(small):
    # 64 × 64 out of 128 × 128; the antialiased triangle spans four pixels with weights 1, 3, 3, 1 over 8 (inside).
    pixels = np.random.default_rng(1).uniform(size=(128, 128))
    taps = np.zeros((64, 128))
    for row in range(64):
        for offset, weight in zip((-1, 0, 1, 2), (1, 3, 3, 1), strict=True):
            if 0 <= 2 * row + offset < 128:
                taps[row, 2 * row + offset] = weight
    taps /= taps.sum(axis=1, keepdims=True)
    expected = taps @ pixels @ taps.T
    expected = np.clip(expected, *np.percentile(expected, (0.5, 99.5)))
    expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(sample_of(small, _image(pixels))[0], expected, atol=1e-4)


def test_crops_the_middle_of_the_longer_side(small):
    pixels = _gradient(128, 128)
    padded = np.pad(pixels, ((30, 30), (0, 0)), constant_values=99999.0)
    np.testing.assert_array_equal(sample_of(small, _image(padded)), sample_of(small, _image(pixels)))


def test_unequal_spacing_does_not_stretch_the_patient(small):
    # The same disc, once in square pixels and once with rows twice as tall and half as many.
    y, x = np.mgrid[0:256, 0:256] - 127.5
    disc = np.exp(-(x**2 + y**2) / (2 * 40.0**2))
    squashed = disc.reshape(128, 2, 256).mean(axis=1)
    same = sample_of(small, _image(disc, (0.5, 0.5)))
    np.testing.assert_allclose(sample_of(small, _image(squashed, (1.0, 0.5))), same, atol=0.05)
    stretched = sample_of(small, _image(squashed, (0.5, 0.5)))
    assert np.abs(stretched - same).max() > 0.5


def test_outliers_are_clipped(small):
    pixels = _gradient(128, 128)
    marked = pixels.copy()
    marked[:4, :4] = 1e6  # a lead marker
    difference = np.abs(sample_of(small, _image(marked)) - sample_of(small, _image(pixels)))
    assert np.median(difference) < 0.05


@pytest.mark.parametrize(
    ("pixels", "spacing_mm", "code"),
    [
        (np.zeros((3, 64, 64)), (0.2, 0.2), "not-two-dimensional"),
        (_gradient(31, 400), (0.2, 0.2), "too-small"),
        (_gradient(60, 60), (1.0, 0.4), "too-small"),
        (np.full((100, 100), 7.0), (0.2, 0.2), "blank-image"),
        (_gradient(100, 100) * np.nan, (0.2, 0.2), "not-finite"),
        (_gradient(100, 100), (0.2, 0.0), "bad-spacing"),
        (_gradient(100, 100), (float("nan"), 0.2), "bad-spacing"),
    ],
)
def test_what_is_no_radiograph_is_refused_with_a_code(small, pixels, spacing_mm, code):
    with pytest.raises(SampleRefused) as refused:
        sample_of(small, _image(pixels, spacing_mm))
    assert refused.value.code == code


@pytest.mark.parametrize("size", [64, 256, 512])
def test_the_number_of_threads_changes_no_bit_of_a_sample(size):
    estimator = make("chest-ca", {"image_size": size})
    image = _image(4000 + 700 * np.random.default_rng(2).normal(size=(2 * size, 2 * size + 5)))
    before, made = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            made.append(sample_of(estimator, image))
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(sample, made[0]) for sample in made)


@pytest.mark.parametrize("kind", ["read-only", "every second column", "big-endian"])
def test_pixels_are_taken_however_they_lie_in_memory(small, kind):
    pixels = np.random.default_rng(4).normal(size=(128, 256)).astype(np.float32)
    wide = np.repeat(pixels, 2, axis=1)
    other = {"read-only": pixels.copy(), "every second column": wide[:, ::2], "big-endian": pixels.astype(">f4")}[kind]
    other.flags.writeable = kind != "read-only"
    image = Image(pixels=other, spacing_mm=(0.2, 0.2), modality="DX", view="PA")
    assert np.array_equal(sample_of(small, image), sample_of(small, _image(pixels)))
    assert np.array_equal(other, pixels)


# --- network and output ---


def test_initial_weights_depend_on_the_seed_alone(small):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = network(small).build(seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    same, other = network(small).build(seed=7), network(small).build(seed=8)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name]), name
    assert not torch.equal(first.head.weight, other.head.weight)


def test_starts_at_the_centre_and_a_unit_is_the_scale():
    estimator = make("chest-ca", {"image_size": 64, "width": 8, "centre_years": 50.0, "scale_years": 12.0})
    ages = network(estimator).age_years(torch.tensor([[0.0], [1.0], [-0.5]]))
    assert ages.tolist() == [50.0, 62.0, 44.0]
    start = network(estimator).age_years(network(estimator).build(seed=0).eval()(torch.randn(6, 1, 64, 64)))
    assert start.shape == (6,)
    assert (start - 50).abs().max() < 6


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Errors of 3 and −15 years on a scale of 15: 0.2 and 1; δ = 5 years is 1/3.
        ({"loss": "huber", "huber_delta_years": 5.0}, (0.5 * 0.2**2 + (1 - 0.5 / 3) / 3) / 2),
        ({"loss": "l1"}, (0.2 + 1.0) / 2),
        ({"loss": "mse"}, (0.2**2 + 1.0) / 2),
    ],
)
def test_losses_by_hand(options, expected):
    estimator = make("chest-ca", {"image_size": 64, "centre_years": 60.0, "scale_years": 15.0, **options})
    output = torch.tensor([[0.2], [0.0]])
    loss = network(estimator).loss(output, Batch({}, {}, {"age_years": torch.tensor([60.0, 75.0])}))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_a_delta_without_huber_is_a_contradiction():
    with pytest.raises(ValidationError, match="no effect"):
        make("chest-ca", {"loss": "l1", "huber_delta_years": 3.0})


# --- augmentation ---


def test_augmentation_draws_from_its_generator_alone(small):
    batch = torch.randn(4, 1, 64, 64)
    before = torch.get_rng_state()
    first = network(small).augment(batch, generator=torch.Generator().manual_seed(5))
    again = network(small).augment(batch, generator=torch.Generator().manual_seed(5))
    other = network(small).augment(batch, generator=torch.Generator().manual_seed(6))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert not torch.allclose(first, batch)
    assert first.shape == batch.shape
    assert torch.isfinite(first).all()


def test_augmentation_moves_little(small):
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    blob = torch.exp(-((x - 31.5) ** 2 + (y - 31.5) ** 2) / (2 * 6.0**2)).expand(64, 1, 64, 64)
    moved = network(small).augment(blob, generator=torch.Generator().manual_seed(0))
    weight = (moved - moved.amin(dim=(2, 3), keepdim=True)).clamp(min=0) ** 2
    centre = (weight * x).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))
    assert (centre - 31.5).abs().max() < 0.06 * 64
    assert (centre - 31.5).std() > 0.01 * 64


def test_switched_off_it_changes_nothing():
    estimator = make("chest-ca", {"image_size": 64, "augment": False})
    batch = torch.randn(2, 1, 64, 64)
    assert torch.equal(network(estimator).augment(batch, generator=torch.Generator()), batch)


@pytest.mark.parametrize("shape", [(64, 64), (64, 48), (31, 70)])
def test_images_are_moved_about_their_centre_as_scipy_moves_them(shape):
    changes = RandomChanges(
        shift_fraction=0.1, rotation_degrees=20.0, zoom_fraction=0.2, contrast_fraction=0.0, brightness_sd=0.0
    )
    images = torch.randn(3, 1, *shape, generator=torch.Generator().manual_seed(2))
    moved = changes.applied(images, generator=torch.Generator().manual_seed(5))
    # The draws again, each matrix as MONAI itself composes it.
    draws = RandAffineGrid(
        rotate_range=np.deg2rad(20), translate_range=(0.1 * shape[0], 0.1 * shape[1]), scale_range=(0.2, 0.2), lazy=True
    ).set_random_state(_SEED_OF_5)
    centre = (np.array(shape) - 1) / 2
    for before, after in zip(images[:, 0].numpy(), moved[:, 0].numpy(), strict=True):
        draws(spatial_size=shape)
        matrix = np.asarray(draws.get_transformation_matrix())
        offset = centre + matrix[:2, 2] - matrix[:2, :2] @ centre
        expected = ndimage.affine_transform(before.astype(float), matrix[:2, :2], offset, order=1, mode="nearest")
        np.testing.assert_allclose(after, expected, atol=1e-3)


@pytest.mark.parametrize("count", [1, 4, 9])
def test_draws_are_those_of_a_numpy_random_state(small, count):
    """NumPy keeps that stream the same for ever, on every machine; a change of MONAI's order of draws would show."""
    state = np.random.RandomState(_SEED_OF_5)
    state.uniform(size=5 * count)  # an angle, two shifts, two zooms
    gain, offset = state.uniform(0.9, 1.1, count), state.normal(0, 0.1, count)
    for grey in (0.0, 2.0):
        made = network(small).augment(torch.full((count, 1, 64, 64), grey), generator=torch.Generator().manual_seed(5))
        np.testing.assert_allclose(made.amin(dim=(1, 2, 3)), grey * gain + offset, atol=1e-5)
        np.testing.assert_allclose(made.amax(dim=(1, 2, 3)), grey * gain + offset, atol=1e-5)


# --- sex as an input ---


def with_sex(images, is_male):
    return Samples({"image": images, ROW: np.asarray(is_male, dtype=np.float64)[:, None]})


def test_sex_changes_nothing_before_training_and_nothing_where_it_is_unknown(small):
    made = make("chest-ca", {"image_size": 64, "width": 8, "sex_input": True})
    assert made.row_columns == ("is_male",)
    assert [one.optional for one in made.inputs] == [False, True]
    assert "by_sex" not in network(small).start({}, seed=3)
    begin, plain = (network(one).start({}, seed=3) for one in (made, small))
    images = np.random.default_rng(1).normal(size=(4, 1, 64, 64)).astype(np.float32)
    samples = with_sex(images, [0, 1, np.nan, 1])
    expected = predict_columns(small.predictor(plain, device="cpu"), Samples({"image": images}))["predicted_years"]
    found = predict_columns(made.predictor(begin, device="cpu"), samples)["predicted_years"]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_what_differs_between_the_sexes_is_learnt(norm):
    """The same picture of boys and girls, who are four years apart: without sex there is nothing to be learnt."""
    options = {"image_size": 64, "width": 8, "augment": False, "centre_years": 8.0, "scale_years": 2.0, "norm": norm}
    made = make("chest-ca", {**options, "sex_input": True})
    images = np.repeat(np.random.default_rng(1).normal(size=(1, 1, 64, 64)), 12, axis=0).astype(np.float32)
    is_male = np.arange(12) % 2
    training = Training(rounds=1, local_epochs=12, batch_size=6, optimiser="adam", learning_rate=1e-2)
    update = train_samples(
        network(made), network(made).start({}, seed=3), with_sex(images, is_male), {"age_years": 6.0 + 4 * is_male},
        training=training, round_number=1, rng_seed=7, threads=1, device="cpu",
    )  # fmt: skip
    girl, boy, unknown = predict_columns(
        made.predictor(update.weights, device="cpu"), with_sex(images[:3], [0, 1, np.nan])
    )["predicted_years"]
    assert boy - girl > 2
    assert girl < unknown < boy


# --- months, and plain PyTorch ---


@pytest.mark.parametrize("centre", [60.0, 96.0, 24.0])
def test_months_given_as_years_are_no_childs_age(centre):
    with pytest.raises(ValidationError, match="give it in years, not in months"):
        make("chest-ca", {"age_in": "months", "centre_years": centre})
    assert make("chest-ca", {"age_in": "months", "centre_years": centre / 12}).coarsest_age_years == 1 / 12


def test_one_site_is_plain_pytorch_bit_for_bit():
    made = make("chest-ca", {"image_size": 64, "width": 8, "augment": False, "centre_years": 8.0, "scale_years": 5.0})
    rng = np.random.default_rng(1)
    images, age = rng.normal(size=(6, 1, 64, 64)).astype(np.float32), rng.uniform(0, 16, 6)
    begin = network(made).start({}, seed=3)
    training = Training(rounds=1, local_epochs=2, batch_size=3, optimiser="adam", learning_rate=1e-3)
    update = train_locally(made, begin, images, age, training=training, round_number=1, rng_seed=7, threads=1)
    plain = network(made).build(seed=0)
    load_arrays(plain, begin)
    optimiser = torch.optim.Adam(plain.parameters(), lr=1e-3)
    order = torch.Generator().manual_seed(7)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(2):
        for rows in torch.randperm(6, generator=order).split(3):
            target = (torch.from_numpy(age.astype(np.float32))[rows] - 8.0) / 5.0
            optimiser.zero_grad()
            ((plain(torch.from_numpy(images)[rows]).squeeze(1) - target) ** 2).mean().backward()
            optimiser.step()
    torch.set_num_threads(threads)
    for name, array in update.weights.items():
        np.testing.assert_array_equal(array, plain.state_dict()[name].numpy())
