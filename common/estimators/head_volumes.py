"""What estimators on T1-weighted volumes of the head share: which volumes they take, and the voxels of a sample."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from fedage.common.estimators.base import Batch, Estimator, Input, Options
from fedage.common.estimators.takes import Takes
from fedage.common.preprocessing.image import Exam, FloatImage
from fedage.common.preprocessing.names import Intensity

if TYPE_CHECKING:
    import torch

VOLUME = "t1w"
"""Name of the input, and of the sample's one array."""


class HeadVolumeOptions(Options):
    """`[estimator.options]` of an estimator on T1-weighted volumes of the head."""

    volumes: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9+]*(-[A-Za-z0-9+]+)?$",
        description="empty for the scanner's own volumes, else the space and description of derived ones that the "
        "sites supply, e.g. brain or MNI152NLin6Asym-brain",
    )
    shape: tuple[int, int, int] = Field(
        default=(160, 192, 160), strict=False, description="voxels of a sample, right × front × up"
    )
    spacing_mm: float = Field(default=1.0, ge=0.5, le=8, description="side of a sample's voxels")
    coarsest_mm: float = Field(
        default=3.0, ge=0.5, le=10, description="largest spacing of a volume that is taken; coarser ones are set aside"
    )
    intensity: Intensity = Field(
        default="mean",
        description="grey values: divided by the volume's mean, or z-scores of the voxels above 0 (foreground, for "
        "volumes without skull)",
    )


def head_input(volumes: str = "") -> Input:
    """The volume that an exam must hold; `volumes` as in the options."""
    view = "-".join(["T1W", *([volumes.upper()] if volumes else [])])
    takes = Takes(views=(view,), body_parts=("HEAD", "BRAIN", "SKULL"), may_be_unknown=frozenset(["body_part"]))
    return Input(name=VOLUME, rank=3, modalities=("MR",), takes=takes)


def shifted(batch: Batch, *, most_voxels: int, generator: torch.Generator) -> Batch:
    """The batch with each volume shifted by up to so many voxels along each axis and, half of them, mirrored."""
    from fedage.common.preprocessing.augmentation import shifted_and_mirrored

    volumes = shifted_and_mirrored(batch.inputs[VOLUME], most_voxels=most_voxels, generator=generator)
    return Batch({**batch.inputs, VOLUME: volumes}, batch.present, batch.targets)


class HeadVolumes(Estimator):
    """The samples of an estimator on T1-weighted volumes of the head, and how its network is usually trained."""

    inputs: tuple[Input, ...] = (head_input(),)
    trained_in_rounds: ClassVar[bool] = True
    max_step_norm: ClassVar[float] = 50.0
    max_path_norm: ClassVar[float] = 200.0
    # What heads of nobody were learnt with in deploy/guides/benchmarks.md.
    usual_training: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "rounds": 30,
            "local_epochs": 2,
            "batch_size": 10,
            "learning_rate": 3e-3,
            "final_learning_rate_fraction": 0.05,
            "weight_decay": 0.01,
        }
    )

    def __init__(self, options: HeadVolumeOptions) -> None:
        self.options: HeadVolumeOptions = options
        self.inputs = (head_input(options.volumes),)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """A volume (1, I, J, K)."""
        return {VOLUME: (1, *self.options.shape)}

    def preprocess(self, exam: Exam) -> Mapping[str, FloatImage]:
        """A volume (1, I, J, K), see `volume_sample`. Raises `SampleRefused`."""
        from fedage.common.preprocessing.volume import VolumeGrid, volume_sample

        chosen = self.options
        grid = VolumeGrid(
            shape=chosen.shape,
            spacing_mm=(chosen.spacing_mm,) * 3,
            coarsest_mm=(chosen.coarsest_mm,) * 3,
            intensity=chosen.intensity,
        )
        return {VOLUME: volume_sample(exam[VOLUME], grid)}
