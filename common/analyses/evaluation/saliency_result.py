"""What the maps of where a model looks are, typed."""

from __future__ import annotations

from pydantic import Field as Described

from fedage.common.record.parts import AnalysisResult, Number


class MapOfInput(AnalysisResult):
    """The grid over one image of an exam."""

    name: str = Described(description="which image, e.g. L-CC")
    shape: tuple[int, ...] = Described(description="sides of the preprocessed image in pixels or voxels")
    cells: tuple[int, ...] = Described(description="cells along each side")


class MapOfGroup(AnalysisResult):
    """The mean map of some patients."""

    group: str = Described(description="all, a range of ages such as 40-50, or a value such as density = 2")
    n: int = Described(description="patients, of the sites that tell the group")
    shares: dict[str, tuple[Number, ...]] = Described(
        description="by image, each cell's mean tempered share of the change of a predicted age, cells in C order; "
        "null where no site tells it. Over all images of an exam the shares have sum 1"
    )


class Saliency(AnalysisResult):
    """Mean maps of where a model looks."""

    n: int = Described(description="patients")
    images: tuple[MapOfInput, ...] = Described(description="the grids")
    groups: tuple[MapOfGroup, ...] = Described(description="those that any site tells, all patients first")
