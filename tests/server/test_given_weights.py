"""A campaign whose first model begins with published weights: their file, their digest, and what a site accepts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from safetensors.numpy import load_file

from fedage.client.cohort.site_cohort import SiteCohort
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.campaign_file.describe import campaign_sentences
from fedage.common.errors import FedAgeError
from fedage.common.estimators.base import Samples
from fedage.common.estimators.breast_4view import VIEWS
from fedage.common.estimators.derive import NoFirstModel, model_before
from fedage.common.networks.arrays import ModelRefused, arrays_sha256, outline, shapes_of
from fedage.common.networks.backbones import Features
from fedage.common.networks.published import backbone_arrays
from fedage.common.protocol.basis import Basis, join_basis, split_basis
from fedage.common.protocol.messages import split_payload
from fedage.common.statistics.cohort import Cohort
from fedage.deploy.machine.given_weights import GIVEN, keep_given, load_given
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.cli.published_weights import write_weights
from fedage.server.record.results import Results, read_results
from fedage.server.sites.session import CampaignFailed
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import InProcessGrid, Meddle, MemorySite

TEXT = """
[campaign]
name = "given"
purpose = "Begin with weights from a file"
seed = 3
sites = ["a", "b"]
wait_s = 1
approval_wait_s = 1
[privacy]
minimum_count = 3
[estimator]
name = "breast-4view"
[estimator.options]
image_height = 64
image_width = 32
width = 8
local_path = false
draws = 0
augment = false
norm = "batch"
weights_sha256 = "{digest}"
[training]
rounds = 2
batch_size = 6
quorum = 1
round_deadline_s = 1
"""


def backbone_of(*, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = shapes_of(outline(lambda: Features("resnet18", width=8).network))
    return {name: rng.uniform(0.5, 1.5, shape).astype(np.float32) * 0.05 for name, shape in shapes.items()}


GIVEN_ARRAYS = backbone_of()
CAMPAIGN_TEXT = TEXT.format(digest=arrays_sha256(GIVEN_ARRAYS))


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    import hashlib

    file = tmp_path / "weights.safetensors"
    file.write_bytes(safetensors.numpy.save({name: GIVEN_ARRAYS[name] for name in sorted(GIVEN_ARRAYS)}))
    assert hashlib.sha256(file.read_bytes()).hexdigest() == arrays_sha256(GIVEN_ARRAYS)
    assert arrays_sha256(dict(reversed(GIVEN_ARRAYS.items()))) == arrays_sha256(GIVEN_ARRAYS)


def first(basis: Basis) -> dict[str, np.ndarray]:
    return model_before(parse_campaign(CAMPAIGN_TEXT), (), fold=0, phase=0, basis=basis)


def test_the_first_model_has_the_given_backbone_and_everything_else_from_the_seed() -> None:
    model = first(Basis(given=GIVEN_ARRAYS))
    plain = model_before(parse_campaign(TEXT.format(digest="")), (), fold=0, phase=0, basis=Basis())
    for name, array in model.items():
        given = GIVEN_ARRAYS.get(name.removeprefix("backbone.network."))
        np.testing.assert_array_equal(array, plain[name] if given is None else given)
    assert sum(name.startswith("backbone.network.") for name in model) == len(GIVEN_ARRAYS)


def one_bit(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    changed = {name: array.copy() for name, array in arrays.items()}
    changed["conv1.weight"].view(np.uint32)[0, 0, 0, 0] ^= 1
    return changed


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (None, "did not come"),
        (one_bit(GIVEN_ARRAYS), "not those whose digest"),
        ({name: array for name, array in GIVEN_ARRAYS.items() if name != "conv1.weight"}, "not those whose digest"),
        ({**GIVEN_ARRAYS, "more": np.zeros(2, np.float32)}, "not those whose digest"),
        ({name: array.astype(np.float64) for name, array in GIVEN_ARRAYS.items()}, "not those whose digest"),
    ],
)
def test_other_weights_are_refused(given: Any, why: str) -> None:
    with pytest.raises(NoFirstModel, match=why):
        first(Basis(given=given))


def test_weights_of_another_network_are_refused_in_a_line() -> None:
    other = {"conv1.weight": np.zeros((8, 3, 7, 7), np.float32)}
    campaign = parse_campaign(TEXT.format(digest=arrays_sha256(other)))
    with pytest.raises(NoFirstModel, match="is missing") as refused:
        model_before(campaign, (), fold=0, phase=0, basis=Basis(given=other))
    assert "\n" not in str(refused.value)


def test_they_travel_with_every_bit() -> None:
    payload = join_basis(Basis(given=GIVEN_ARRAYS))
    back = split_basis(payload).given
    assert back is not None
    assert arrays_sha256(back) == arrays_sha256(GIVEN_ARRAYS)
    assert split_payload(payload) == ({}, {})


@pytest.mark.parametrize("digest", ["abc", "g" * 64, "A" * 64])
def test_what_is_no_digest_is_a_mistake_of_the_file(digest: str) -> None:
    with pytest.raises(CampaignErrors, match="weights_sha256"):
        parse_campaign(TEXT.format(digest=digest))


def test_who_approves_is_told_that_weights_come_from_outside() -> None:
    assert any(
        "from outside the campaign" in sentence for sentence in campaign_sentences(parse_campaign(CAMPAIGN_TEXT))
    )
    assert not any(
        "from outside" in sentence for sentence in campaign_sentences(parse_campaign(TEXT.format(digest="")))
    )


# --- the coordinator's file ---


def test_the_file_is_held_against_the_digest_and_goes_into_the_runs_folder(tmp_path: Path) -> None:
    campaign = parse_campaign(CAMPAIGN_TEXT)
    file, other, broken = (tmp_path / name for name in ("right", "other", "broken"))
    file.write_bytes(safetensors.numpy.save(GIVEN_ARRAYS))
    other.write_bytes(safetensors.numpy.save(backbone_of(seed=1)))
    broken.write_bytes(file.read_bytes()[:-5])
    keep_given(campaign, file, folder=tmp_path)
    assert (tmp_path / GIVEN).read_bytes() == file.read_bytes()
    assert arrays_sha256(load_given(file, sha256=arrays_sha256(GIVEN_ARRAYS))) == arrays_sha256(GIVEN_ARRAYS)
    for path, why in (
        (None, "give their file as --weights"),
        (other, "give the file whose digest it names"),
        (broken, "cannot be read as a file of weights"),
        (tmp_path / "absent", "No such file"),
    ):
        with pytest.raises(FedAgeError, match=why):
            keep_given(campaign, path)
    with pytest.raises(FedAgeError, match="leave out --weights"):
        keep_given(parse_campaign(TEXT.format(digest="")), file)


# --- the key map ---


def torchvision_names(backbone: str) -> list[tuple[str, str]]:
    """Their name by ours, for the networks whose names follow by a rule."""
    names = list(shapes_of(outline(lambda: Features(backbone).network)))  # type: ignore[arg-type]
    rules = {
        "resnet18": [],
        "resnet50": [],
        "densenet121": [(r"\.layers\.", "."), (r"^", "features.")],
        "convnext-tiny": [(r"scale$", "layer_scale")],
        "efficientnet-b0": [(r"_blocks", "features.1")],
    }
    found = []
    for name in names:
        theirs = name
        for pattern, into in rules[backbone]:
            theirs = re.sub(pattern, into, theirs)
        found.append((name, theirs))
    return found


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "densenet121", "convnext-tiny", "efficientnet-b0"])
def test_a_published_state_dict_becomes_the_backbones_arrays(backbone: Any) -> None:
    shapes = shapes_of(outline(lambda: Features(backbone).network))
    published: dict[str, np.ndarray] = {}
    for number, (ours, theirs) in enumerate(torchvision_names(backbone)):
        shape = shapes[ours]
        linear = backbone == "convnext-tiny" and len(shape) == 4 and shape[2:] == (1, 1)
        published[theirs] = np.zeros(shape[:2] if linear else shape, dtype=np.float32)
        published[theirs].flat[-1] = number + 1
        if theirs.endswith("running_var"):
            published[theirs.replace("running_var", "num_batches_tracked")] = np.zeros(())
    published["fc.weight" if "resnet" in backbone else "classifier.weight"] = np.zeros((1000, 7))
    made = backbone_arrays(published, backbone)
    assert {name: array.shape for name, array in made.items()} == shapes
    for ours, theirs in torchvision_names(backbone):
        assert made[ours].flat[-1] == published[theirs].flat[-1]


def test_a_state_dict_of_another_network_is_refused(tmp_path: Path) -> None:
    names = shapes_of(outline(lambda: Features("resnet18").network))
    state = {name: torch.zeros(shape) for name, shape in names.items()}
    file, out = tmp_path / "resnet18.pth", tmp_path / "out.safetensors"
    torch.save(state, file)
    digest = write_weights(file, backbone="resnet18", out=out)
    assert arrays_sha256(load_file(out)) == digest
    for backbone in ("resnet50", "densenet121", "convnext-tiny"):
        with pytest.raises(FedAgeError, match=f"has .*; give the state dict of a network of the kind {backbone}"):
            write_weights(file, backbone=backbone, out=out)
    swapped = {**state, "conv1.weight": torch.zeros(64, 3, 5, 5)}
    with pytest.raises(ModelRefused, match=r"conv1.weight \(64, 3, 5, 5\)"):
        backbone_arrays({name: tensor.numpy() for name, tensor in swapped.items()}, "resnet18")
    file.write_bytes(b"no file of tensors")
    with pytest.raises(FedAgeError, match="cannot be read as a state dict"):
        write_weights(file, backbone="resnet18", out=out)
    with pytest.raises(FedAgeError, match="convnext-tiny, sfcn"):
        write_weights(file, backbone="vgg", out=out)


# --- a run ---


def members(folder: Path) -> list[MemorySite]:
    made = []
    for seed, name in enumerate("ab"):
        rng = np.random.default_rng(seed)
        columns = {"age_years": rng.uniform(40, 75, 24), "is_male": np.zeros(24), "healthy": np.ones(24)}
        arrays = {view: rng.normal(size=(24, 1, 64, 32)).astype(np.float32) for view in VIEWS}
        found = SiteCohort(cohort=Cohort(columns), samples=Samples(arrays))
        made.append(MemorySite(name, found, folder / "sites", unit=rng.random(24)))
    return made


def run(folder: Path, *, given: bool = True, meddle: Meddle | None = None) -> Results:
    place = Place(folder=folder / "run", run="r1", environment="simulation", guard=True)
    place.folder.mkdir(parents=True)
    if given:
        (place.folder / GIVEN).write_bytes(safetensors.numpy.save(GIVEN_ARRAYS))
    grid = InProcessGrid(members(folder), meddle=meddle)
    conduct(PollingGrid(grid, poll_s=0.01), parse_campaign(CAMPAIGN_TEXT), place, key=None, admitted=grid.names)
    return read_results(folder / "run" / "results.json")


@pytest.mark.slow
def test_a_run_begins_with_them_also_for_a_site_that_comes_late(tmp_path: Path) -> None:
    asked: dict[int, int] = {}

    def late(message: Any, node: int) -> Any:
        if message.metadata.message_type.startswith("train"):
            asked[node] = asked.get(node, 0) + 1
            if node == 2 and asked[node] == 1:
                return None
        return message

    results = run(tmp_path, meddle=late)
    assert results.run.status == "finished", results.run
    assert [done.sites for done in results.rounds] == [("a",), ("a", "b")]
    model, begun = load_file(tmp_path / "run" / "model.safetensors"), first(Basis(given=GIVEN_ARRAYS))
    moved = np.sqrt(sum(np.square(model[name] - begun[name]).sum() for name in begun if "running" not in name))
    assert 0 < moved < 10


@pytest.mark.slow
def test_a_run_without_the_file_fails_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(CampaignFailed, match="cannot be read as a file of weights"):
        run(tmp_path, given=False)
