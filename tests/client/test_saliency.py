"""Maps at a site: MONAI's occlusion where that has an answer, the same for any predictor, and a run in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.visualize import OcclusionSensitivity

from fedage.client.compute.saliency import changes_years, saliency, shares
from fedage.common.analyses.evaluation.saliency_result import Saliency
from fedage.common.campaign_file import parse_campaign
from fedage.common.estimators import make
from fedage.common.estimators.base import PREDICTED_YEARS, Samples
from fedage.common.estimators.inputs import image_shapes
from fedage.common.statistics.coarse_grid import CoarseGrid
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.results import read_results
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import InProcessGrid, memory_site
from tests.of_estimators import built

CAMPAIGN = """
[campaign]
name = "where"
purpose = "See where a model looks, on pictures of nobody"
seed = 7
sites = ["a", "b"]
wait_s = 1
approval_wait_s = 1
[estimator]
name = "chest-ca"
[estimator.options]
image_size = 64
width = 8
[cohort]
age_min_years = 40
age_max_years = 85
[training]
rounds = 1
batch_size = 8
quorum = 2
round_deadline_s = 1
[validation.fractions]
train = 0.5
validation = 0.25
test = 0.25
[privacy]
minimum_count = 5
[analyses.saliency]
cells = 2
"""


class Linear:
    """Age = the sum of pixels times weights."""

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = weights

    def __call__(self, samples: Samples) -> dict[str, np.ndarray]:
        return {PREDICTED_YEARS: (samples["x"] * self.weights).sum(axis=tuple(range(1, samples["x"].ndim)))}


@pytest.mark.parametrize("shape", [(8, 6), (9, 5), (4, 6, 5)])
def test_of_a_linear_model_a_cell_has_what_its_pixels_add(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    x, weights = rng.normal(size=(7, 1, *shape)).astype(np.float32), rng.normal(size=(1, *shape))
    grid = CoarseGrid.of("x", shape, longest=3)
    changed = changes_years(Linear(weights), Samples({"x": x}), [grid])
    for column, where in zip(grid.columns, grid.slices(), strict=True):
        cell = (slice(None), slice(None), *where)
        pixels = x[cell].reshape(7, -1).astype(float)
        part = (pixels.mean(axis=1, keepdims=True) - pixels) @ weights[cell[1:]].ravel()
        np.testing.assert_allclose(changed[column], part, rtol=1e-4, atol=1e-5)
    maps = saliency(Linear(weights), Samples({"x": x}), [grid], batch_size=3, device="cpu")
    np.testing.assert_allclose(maps, shares(np.column_stack(list(changed.values()))), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")  # within MONAI
def test_a_network_has_monais_numbers() -> None:
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 5), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(1))
    x = torch.randn(2, 1, 16, 16)
    # Every cell of mean 0, as MONAI's `mean_patch` multiplies a patch by its mean instead of filling it.
    x -= torch.nn.functional.avg_pool2d(x, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    network(x)

    def years(samples: Samples) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            return {PREDICTED_YEARS: network(torch.from_numpy(samples["x"]))[:, 0].numpy().astype(np.float64)}

    grid = CoarseGrid.of("x", (16, 16), longest=2)
    ours = changes_years(years, Samples({"x": x.numpy()}), [grid])
    monai = OcclusionSensitivity(network, mask_size=8, mode=0.0, overlap=0.0, activate=False, verbose=False)
    for k in range(2):
        theirs = (monai(x[k : k + 1])[0][0, 0] - network(x[k : k + 1])).detach().numpy()
        for column, where in zip(grid.columns, grid.slices(), strict=True):
            np.testing.assert_allclose(theirs[where], ours[column][k], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([1.0, -3.0], [0.25, 0.75]),
        ([0.0, 0.0], [0.5, 0.5]),
        ([np.nan, 2.0], [0.5, 0.5]),
        ([np.inf, 2.0], [0.5, 0.5]),
        ([0.0, -1e-30], [0.0, 1.0]),
    ],
)
def test_a_map_has_sum_one_whatever_the_model_says(changes: list[float], expected: list[float]) -> None:
    assert shares(np.array([changes])).tolist() == [expected]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("chest-ca", {"image_size": 64, "width": 8}),
        ("brain-sfcn", {"shape": [32, 32, 32], "spacing_mm": 6.0, "coarsest_mm": 6.0, "width": 8, "poolings": 3}),
        ("breast-4view", {"image_height": 64, "image_width": 32, "width": 16, "local_path": False}),
    ],
)
def test_an_estimator_has_maps_of_all_its_images_and_of_a_missing_one_none(name: str, options: dict) -> None:
    estimator = make(name, options)
    rng = np.random.default_rng(3)
    shapes = estimator.shapes()
    arrays = {key: rng.normal(size=(2, *shape)).astype(np.float32) for key, shape in shapes.items()}
    lacking = next(iter(shapes)) if len(shapes) > 1 else ""
    present = {lacking: np.array([True, False])} if lacking else {}
    if lacking:
        arrays[lacking][1] = 0
    grids = [CoarseGrid.of(key, sides, longest=2) for key, sides in image_shapes(estimator)]
    predictor = estimator.predictor(built(estimator, seed=1), device="cpu")
    maps = saliency(predictor, Samples(arrays, present), grids, batch_size=2, device="cpu", threads=1)
    np.testing.assert_allclose(maps.sum(axis=1), 1, rtol=1e-12)
    if lacking:
        first = len(grids[0].columns)
        assert not maps[1, :first].any()
        assert maps[0, :first].all()


@pytest.mark.slow
def test_a_run_in_memory_tells_mean_maps_and_keeps_each_patients_at_the_site(tmp_path: Path) -> None:
    members = [memory_site(name, tmp_path / "sites", seed=number) for number, name in enumerate("ab")]
    grid = InProcessGrid(members)
    place = Place(folder=tmp_path / "run", run="r1", environment="simulation", guard=True)
    conduct(PollingGrid(grid, poll_s=0.01), parse_campaign(CAMPAIGN), place, key=None, admitted=grid.names)
    step = read_results(tmp_path / "run" / "results.json").analyses["saliency"]
    assert isinstance(step.result, Saliency), step
    everybody = step.result.groups[0]
    kept = []
    for path in (tmp_path / "sites").rglob("predictions-*.npz"):
        with np.load(path) as archive:
            names = [name for name in archive.files if name.startswith("column:saliency:")]
            kept.append(np.column_stack([archive[name] for name in names]))
    maps = np.concatenate(kept)
    maps = maps[np.isfinite(maps).all(axis=1)]
    np.testing.assert_allclose(maps.sum(axis=1), 1, rtol=1e-12)
    told = np.array([share if share is not None else np.nan for share in everybody.shares["image"]])
    assert np.isfinite(told).any()
    assert everybody.n == 40
    assert "Where the model looks" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
