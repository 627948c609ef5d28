"""The plug-in point "estimator": inputs, targets and phases, on images and tables alike. Imports no torch.

An estimator says what one exam must hold, how it becomes named arrays, which columns it learns from and predicts, and
the phases its model is made in, one after another. A phase is fitted in *rounds* (a network and a loss) or is *exact*
(an additive analysis whose solution becomes arrays of the model). Nothing outside asks which estimator it has.

Shape legend: n patients, B patients in a batch; a sample is one patient's named arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from fedage.common.analyses.columns import MAX_AGE_YEARS
from fedage.common.estimators.takes import Takes
from fedage.common.preprocessing.image import Exam, FloatImage, SampleRefused
from fedage.common.statistics.statistic import FloatArray

if TYPE_CHECKING:
    import torch

    from fedage.common.analyses.exact import ExactAnalysis, NoisedAnalysis, SumsNoise
    from fedage.common.statistics.influence import InfluenceRule

Arrays = Mapping[str, NDArray[Any]]
"""A model, by the names of its arrays."""
ROW = "row"
"""Name of the input, and of the array, that is a row of the sites' tables, or beside images of their outcomes."""
PREDICTED_YEARS = "predicted_years"
PREDICTED_SD_YEARS = "predicted_sd_years"
"""Column with the SD that a model states of its predicted age; an estimator that predicts it is held to it."""
COMPUTED = "model:"
"""Begins the names of columns that a model computes for an exact phase, so that none is taken for a site's own."""


class Options(BaseModel):
    """Base of an estimator's own options in `[estimator.options]`: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


AnyOptions = Options
"""The base by a name that an estimator's own `Options` does not hide."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """One thing that an exam must hold.

    Parameters
    ----------
    name
        Its name in `Exam.images`.
    rank
        Axes of what is found: 1 a row of the site's table, 2 an image, 3 a volume.
    modalities
        DICOM modalities it is found in; a NIfTI volume of a BIDS data set counts as `MR`.
    takes
        Which images of these modalities; the site leaves out all others and counts them by reason.
    optional
        Whether an exam may do without it; a row beside images without some values, which `present[ROW]` says.
    """

    name: str
    rank: int
    modalities: tuple[str, ...] = ()
    takes: Takes = field(default_factory=Takes)
    optional: bool = False


@dataclass(frozen=True, kw_only=True)
class Target:
    """A column of the cohort that is learnt from: `age_years`, `is_male`, or an outcome; NaN where it is not known.

    Only patients with an age are trained on. A column that too few patients of a site know, or differ in, counts as
    unknown for all of the site.

    Parameters
    ----------
    column
        Its name.
    optional
        Whether a site without the column takes part, nothing of it known there.
    values
        The values that it may have; empty for any.
    """

    column: str
    optional: bool = False
    values: tuple[float, ...] = ()


AGE = Target(column="age_years")


@dataclass(frozen=True, kw_only=True)
class Output:
    """A column that is predicted, with the bounds that predictions are cut to.

    A prediction that is no number counts as the upper bound: a model made so that one patient's is none would tell of
    that patient by subtraction.
    """

    column: str
    lower: float
    upper: float


AGE_OUTPUT = Output(column=PREDICTED_YEARS, lower=0.0, upper=MAX_AGE_YEARS)


class Rows(Protocol):
    """An array (n, …) in memory or on disk; its rows are read by their numbers.

    One on disk may have `will_read(rows)`, which fetches them in the background.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, rows: NDArray[np.intp] | slice, /) -> NDArray[Any]: ...


@runtime_checkable
class _Announced(Protocol):
    def will_read(self, rows: NDArray[np.intp] | slice, /) -> None: ...


@dataclass(frozen=True)
class Samples:
    """Patients' named arrays.

    Parameters
    ----------
    arrays
        (n, …) each, images on disk, tables in memory; zeros where a patient lacks it.
    present
        By name, who has it, (n,); an array that everybody has is not in it.
    taken
        Rows of the arrays that these patients are; None for all of them in order.
    """

    arrays: Mapping[str, Rows]
    present: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    taken: NDArray[np.intp] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values()))) if self.taken is None else self.taken.size

    def __getitem__(self, name: str) -> NDArray[Any]:
        """An array (n, …) as a whole in memory."""
        return self.arrays[name][slice(None) if self.taken is None else self.taken]

    @property
    def in_memory(self) -> bool:
        """Whether no row has to be read from a disk."""
        return all(isinstance(array, np.ndarray) and not isinstance(array, np.memmap) for array in self.arrays.values())

    def of(self, rows: NDArray[np.intp]) -> Samples:
        """Those of some patients, nothing read yet."""
        return Samples(self.arrays, self.present, rows if self.taken is None else self.taken[rows])

    def at(self, rows: NDArray[np.intp] | slice) -> Samples:
        """Those of some patients, read into memory."""
        where = rows if self.taken is None else self.taken[rows]
        return Samples(
            {name: array[where] for name, array in self.arrays.items()},
            {name: known[where] for name, known in self.present.items()},
        )

    def will_read(self, rows: NDArray[np.intp] | slice) -> None:
        """Announce that `at` will ask for those of some patients; what is on a disk is fetched meanwhile."""
        where = rows if self.taken is None else self.taken[rows]
        for array in self.arrays.values():
            if isinstance(array, _Announced):
                array.will_read(where)

    def has(self, name: str) -> NDArray[np.bool_]:
        """Who has an array, (n,)."""
        if name not in self.present:
            return np.ones(len(self), dtype=np.bool_)
        return self.present[name] if self.taken is None else self.present[name][self.taken]


@dataclass(frozen=True)
class Batch:
    """A batch in training: inputs (B, …) float32, zeros where missing, who has them (B,), and targets (B,), NaN where
    not known.
    """

    inputs: Mapping[str, torch.Tensor]
    present: Mapping[str, torch.Tensor]
    targets: Mapping[str, torch.Tensor]


Predictor = Callable[[Samples], Mapping[str, FloatArray]]
"""Columns (n,) by name from samples; made once for a model and called batch by batch."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the campaign file says of whom an exact phase sums over, and of what may leave."""

    minimum_count: int
    healthy_only: bool = False
    cross_fitted: bool = False
    influence: InfluenceRule | None = None
    sites: tuple[str, ...] = ()
    """Those that train, where the file names its sites."""
    site: str = ""
    """The one that sums; empty at the coordinator."""
    noise: SumsNoise | None = None


@runtime_checkable
class RoundsPhase(Protocol):
    """A network that is trained in federated rounds."""

    @property
    def name(self) -> str:
        """Its name, unique in the estimator."""

    @property
    def couples_samples(self) -> bool:
        """Whether the loss relates the samples of a batch to each other (then no per-sample differential privacy)."""

    @property
    def smallest_batch(self) -> int:
        """Fewest patients that the loss can do with; a smaller last batch joins the one before."""

    def build(self, *, seed: int) -> torch.nn.Module:
        """The network with initial weights that depend on `seed` only (and not on the global random state)."""

    def start(self, before: Arrays, *, seed: int) -> dict[str, NDArray[Any]]:
        """The network's arrays before the first round, from the model of the phases before (none: no arrays)."""

    def training_batch(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """What is trained on: augmented, or synthesised, from a batch; all that is random is drawn from `generator`."""

    def output(self, module: torch.nn.Module, batch: Batch) -> Any:
        """What the network makes of a batch: a tensor, or tensors by name."""

    def loss(self, output: Any, batch: Batch) -> torch.Tensor:
        """Mean loss of a batch, scalar."""

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor | None:
        """Predicted columns by the model as it is in this phase; None for a phase that predicts no age yet."""


@runtime_checkable
class KinkedLoss(Protocol):
    """An estimator whose loss may bend at some error of one patient, and which says so.

    Attack: a coordinator moves all predictions by a constant, round by round. The derivative of |e|, or of huber, turns
    where the constant passes a patient's error, and two updates subtracted are that patient's gradient: the record, and
    the age. A squared loss has no such place. Rule: with a minimum count a site trains with no loss that bends.
    Residual risk: a loss of an installed package that does not say so; bends of the network itself.
    """

    @property
    def kinked_loss(self) -> str:
        """The option that asks for it, as the campaign file has it; empty for a loss that does not bend."""


@runtime_checkable
class ExactPhase(Protocol):
    """Arrays solved from sums over all sites; each site solves the same sums itself."""

    @property
    def name(self) -> str:
        """Its name, unique in the estimator."""

    def analysis(self, conditions: Conditions) -> ExactAnalysis | NoisedAnalysis:
        """The sums; its name is the phase's."""

    def solve(self, result: Mapping[str, Any], before: Arrays, *, seed: int) -> dict[str, NDArray[Any]]:
        """The whole model after this phase; what is random in it depends on `seed` only."""

    def columns(self, before: Arrays, *, device: str) -> Predictor | None:
        """Columns for the sums that the model before computes, e.g. an embedding, named `COMPUTED` …; None for none."""


Phase = RoundsPhase | ExactPhase


@dataclass(frozen=True)
class Standard:
    """How a model standardises the row of a table: medians that stand for missing values, means and 1 / SD, (p,).

    The model has them in arrays named `medians`, `means`, and `units` (1 / SD) or `sds`.
    """

    medians: FloatArray
    means: FloatArray
    units: FloatArray


class Estimator(Protocol):
    """One way to estimate age, configured by the campaign file; holds no data. Defaults are those of images."""

    name: ClassVar[str]
    title: ClassVar[str]
    Options: ClassVar[type[Options]]
    trained_in_rounds: ClassVar[bool]
    """Whether one of its phases is fitted in rounds."""
    max_step_norm: ClassVar[float] = 1.0
    """`training.max_step_norm` at most, and if not given: several times what an ordinary round moves the model."""
    max_path_norm: ClassVar[float] = 8.0
    """`training.max_path_norm` at most, whatever the rounds: several times what an ordinary run moves the model."""
    usual_training: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Keys of `[training]` that a new campaign file sets otherwise than by the table's own defaults."""
    prediction_batch: ClassVar[int] = 64
    """Patients that are predicted at a time."""
    samples_version: ClassVar[int] = 1
    """Raised when `preprocess` makes other arrays of the same exam; a site then makes its samples anew."""
    inputs: tuple[Input, ...]
    """On the class those of every configuration; an instance that its options give a row beside images has that too."""
    coarsest_age_years: float = math.inf
    """Widest interval that the age at an exam may be known to lie in; other exams are left out."""
    targets: tuple[Target, ...] = (AGE,)
    options: AnyOptions

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The columns predicted, `predicted_years` among them, with the bounds of the network; age alone by default."""
        return (AGE_OUTPUT,)

    @property
    def ages_years(self) -> tuple[float, float]:
        """The ages at exam that the model can learn and predict, both included; 0 to 130 unless an estimator says less.

        A campaign file may ask for fewer. One that states no limits asks for these, taken inwards to whole 5 years.
        """
        return (0.0, MAX_AGE_YEARS)

    @property
    def given_sha256(self) -> str:
        """The digest (`arrays_sha256`) of arrays that the first phase in rounds starts from; empty if it needs none.
        They travel with the first model. Attack: weights chosen for a site's patients instead of published ones. Rule:
        the campaign file has their digest, and a site starts from no others. Residual risk: a coordinator that makes a
        file of such weights and has it approved; who approves sees that weights come from outside the campaign.
        """
        return ""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases in order, each with a name of its own."""
        raise NotImplementedError

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of a sample's arrays by name."""
        raise NotImplementedError

    def preprocess(self, exam: Exam) -> Mapping[str, FloatImage]:  # noqa: ARG002 - of a table there are no images
        """An exam's images to named arrays, float32; one that the exam cannot give is left out.

        Raises `SampleRefused`, by default always: an estimator on tables takes no images, its row is read as it is.
        """
        raise SampleRefused("not-a-table", "this estimator takes rows of a table, not images")

    def predictor(self, arrays: Arrays, *, device: str) -> Predictor:
        """Predicted columns, `predicted_years` among them, by the finished model.

        Raises `ModelRefused` if the arrays are not those of this estimator.
        """
        raise NotImplementedError

    def for_table(self, columns: Sequence[str]) -> Self:  # noqa: ARG002 - of images there is no table
        """A copy that knows the numeric columns of the sites' tables; itself if it takes no row."""
        return self

    def for_any_table(self, features: int = 1) -> Self:  # noqa: ARG002 - of images there is no table
        """A copy whose phases can be looked at before a table has been seen; itself if it takes no row."""
        return self

    @property
    def row_columns(self) -> tuple[str, ...]:
        """The cohort's columns of a row, in order: `feature:NAME` for a column NAME, and `is_male`; maybe none."""
        return ()

    def standard(self, arrays: Arrays) -> Standard | None:  # noqa: ARG002 - of images there is no row
        """How a model standardises a row; None if it does not. A site refuses one that its patients lie far out of."""
        return None


def on_tables(estimator: Estimator | type[Estimator]) -> bool:
    """Whether it takes a row of the sites' tables and no image."""
    return all(one.rank == 1 for one in estimator.inputs)


def modalities(estimator: Estimator | type[Estimator]) -> tuple[str, ...]:
    """All modalities that its inputs are found in, each once."""
    return tuple(dict.fromkeys(modality for one in estimator.inputs for modality in one.modalities))
