"""Places of patches, and local ages from them."""

import pytest
import torch

from fedage.common.networks.patches import PatchNetwork, corners, cut, is_brain, mean_of_known, starts


@pytest.mark.parametrize(
    ("side", "patch", "count", "expected"),
    [
        (160, 64, 3, [0, 48, 96]),
        (192, 64, 3, [0, 64, 128]),
        (160, 64, 4, [0, 32, 64, 96]),
        (192, 64, 4, [0, 43, 85, 128]),
        (80, 32, 3, [0, 24, 48]),
        (40, 32, 1, [4]),
        (32, 32, 1, [0]),
    ],
)
def test_places_lie_evenly_from_end_to_end(side: int, patch: int, count: int, expected: list[int]) -> None:
    assert starts(side, patch, count) == expected


@pytest.mark.parametrize(
    ("shape", "patch", "count"), [((160, 192, 160), 64, 3), ((80, 96, 80), 32, 3), ((9, 7, 8), 3, 4)]
)
def test_every_voxel_is_in_a_patch(shape, patch: int, count: int) -> None:
    covered = torch.zeros(shape)
    for i, j, k in corners(shape, patch=patch, per_axis=count):
        covered[i : i + patch, j : j + patch, k : k + patch] += 1
    assert covered.min() >= 1


def test_a_patch_is_the_part_of_its_own_volume_at_its_place() -> None:
    volumes = torch.arange(2 * 6 * 7 * 8, dtype=torch.float32).reshape(2, 1, 6, 7, 8)
    at = corners((6, 7, 8), patch=3, per_axis=2)
    patches = cut(volumes, torch.tensor([[0, 7], [3, 3]]), at, patch=3)
    assert patches.shape == (2, 2, 1, 3, 3, 3)
    assert torch.equal(patches[0, 0], volumes[0, :, :3, :3, :3])
    assert torch.equal(patches[0, 1], volumes[0, :, 3:, 4:, 5:])
    assert torch.equal(patches[1, 0], volumes[1, :, :3, 4:, 5:])
    assert torch.equal(patches[1, 0], patches[1, 1])


@pytest.mark.parametrize("by_place", [False, True])
def test_a_local_age_depends_on_its_own_patch_and_place_only(by_place: bool) -> None:
    torch.manual_seed(0)
    network = PatchNetwork(places=3, width=8, blocks=2, norm="group", by_place=by_place).eval()
    patches, places = torch.randn(2, 3, 1, 8, 8, 8), torch.arange(3).expand(2, 3)
    with torch.no_grad():
        ages = network(patches, places)
        changed = patches.clone()
        changed[0, 1] += 1.0
        other = network(changed, places)
        same_everywhere = network(patches[:, :1].expand(-1, 3, -1, -1, -1, -1), places)
    assert ages.shape == (2, 3)
    moved = (ages - other).abs() > 1e-6
    assert moved.tolist() == [[False, True, False], [False, False, False]]
    assert same_everywhere[0].unique().numel() == 3, "the same patch has another age at another place"


def test_a_patch_of_which_little_is_brain_has_no_age_but_where_none_has() -> None:
    patches = torch.zeros(2, 3, 1, 10, 10, 10)
    patches[0, 1].flatten()[:100] = 1.0
    patches[0, 2].flatten()[:99] = 1.0
    assert is_brain(patches).tolist() == [[False, True, False], [True, True, True]]
    ages = torch.tensor([[1.0, 2.0, 6.0]])
    assert mean_of_known(ages, torch.tensor([[True, False, True]])).tolist() == [3.5]
