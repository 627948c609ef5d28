"""Soft labels of ages against numbers worked out apart, and against the normal distribution's own integrals."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from fedage.common.losses.age_bins import divergence, edges_years, mean_and_sd_years, soft_labels

PUBLISHED = edges_years(42, 82, 1)


def label(age: float, *, edges: torch.Tensor = PUBLISHED, sd: float = 1.0) -> np.ndarray:
    return soft_labels(torch.tensor([age], dtype=torch.float64), edges, sd=sd)[0].numpy()


def test_the_published_bins() -> None:
    assert PUBLISHED.tolist() == list(range(42, 83))


def test_the_label_of_71_3_years() -> None:
    found = label(71.3)
    np.testing.assert_allclose(found[27:32], [0.0860764, 0.2852881, 0.3759478, 0.1973982, 0.0410985], atol=2e-7)
    assert found.sum() == pytest.approx(1, abs=1e-6)


def test_the_divergence_of_a_uniform_prediction() -> None:
    labels = soft_labels(torch.tensor([71.3]), PUBLISHED, sd=1.0)
    assert divergence(torch.full((1, 40), -math.log(40)), labels).item() == pytest.approx(2.2299206, abs=1e-6)
    both = torch.cat([labels, labels])
    uniform = torch.full((2, 40), -math.log(40))
    assert divergence(uniform, both).item() == pytest.approx(2.2299206, abs=1e-6), "a mean over the batch"


def test_the_divergence_of_the_label_from_itself_is_none() -> None:
    labels = soft_labels(torch.tensor([45.0, 63.7, 78.9]), PUBLISHED, sd=1.0)
    assert divergence(labels.double().log().float().clamp(min=-200), labels).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("age", "mean"), [(42.5, 43.052149), (80.0, 79.940387), (71.3, 71.3), (60.0, 60.0)])
def test_the_mean_of_a_label_near_the_ends_is_pulled_inwards(age: float, mean: float) -> None:
    found, _ = mean_and_sd_years(torch.from_numpy(label(age)).log()[None].clamp(min=-200), PUBLISHED)
    assert found.item() == pytest.approx(mean, abs=2e-5)


@pytest.mark.parametrize(("age", "mass"), [(42.5, 0.6914625), (80.0, 0.9772499), (84.0, 0.0227501)])
def test_what_the_published_label_lacks_to_1_is_made_up_in_proportion(age: float, mass: float) -> None:
    published = np.diff(norm.cdf(PUBLISHED.numpy(), loc=age))
    assert published.sum() == pytest.approx(mass, abs=1e-6)
    np.testing.assert_allclose(label(age), published / published.sum(), atol=1e-6)


@pytest.mark.parametrize(
    ("first", "last", "width", "sd"), [(12.0, 98.0, 1.0, 1.0), (0.0, 20.0, 0.25, 0.5), (5.0, 95.0, 5.0, 3.0)]
)
def test_other_bins_are_integrals_of_the_normal(first: float, last: float, width: float, sd: float) -> None:
    edges, age = edges_years(first, last, width), (first + last) / 2 + 0.3 * width
    expected = np.diff(norm.cdf(edges.numpy(), loc=age, scale=sd))
    np.testing.assert_allclose(label(age, edges=edges, sd=sd), expected / expected.sum(), atol=1e-6)
    assert edges[-1].item() == last


def test_mean_and_sd_of_two_bins() -> None:
    q = torch.zeros(1, 40)
    q[0, 8], q[0, 18] = 0.5, 0.5  # centres 50.5 and 60.5
    mean, sd = mean_and_sd_years(q.log(), PUBLISHED)
    assert (mean.item(), sd.item()) == pytest.approx((55.5, 5.0), abs=1e-5)


def test_one_bin_has_no_spread_and_a_uniform_prediction_the_most() -> None:
    certain = torch.full((1, 40), -math.inf)
    certain[0, 3] = 0.0
    mean, sd = mean_and_sd_years(certain, PUBLISHED)
    assert (mean.item(), sd.item()) == (45.5, 0.0)
    mean, sd = mean_and_sd_years(torch.full((1, 40), -math.log(40)), PUBLISHED)
    assert mean.item() == pytest.approx(62)
    assert sd.item() == pytest.approx(math.sqrt((40**2 - 1) / 12))


def test_the_gradient_is_prediction_minus_label() -> None:
    """So the loss does not bend anywhere: it is smooth in the logits, and in the age."""
    logits = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = soft_labels(torch.tensor([50.0, 61.2, 75.9]), edges_years(42, 82, 5), sd=3.0).double()
    assert torch.autograd.gradcheck(lambda z: divergence(z.log_softmax(1), labels), (logits,))
    (gradient,) = torch.autograd.grad(divergence(logits.log_softmax(1), labels), logits)
    torch.testing.assert_close(gradient, (logits.softmax(1) - labels) / 3, rtol=1e-6, atol=1e-8)
