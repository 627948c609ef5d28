"""The network of `breast-4view`, after Mammo-AGE: one backbone for all views, an exam's head and a head for each view.

Shape legend: B exams, V = 4 views, of which R are there in all; C channels of the backbone, d of the local path, K
ages, D draws of an embedding. Features of a view are (C, h, w).

*Missing views* (our own rule): a view that is not there passes through no layer and counts in no normalisation. In the
exam's vector (4C) and map (4C, h, w) the mean of the exam's other views stands in its place; it has no local head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from fedage.common.networks.attention import LocalBlock, Projection, dropped
from fedage.common.networks.backbones import Features
from fedage.common.networks.names import Backbone, Norm

DENSITIES = 4
"""ACR A to D."""
VIEWS = 4


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Which parts a network has.

    Parameters
    ----------
    norm, backbone, width
        As `Features`.
    ages
        K.
    draws
        D in training; 0 for an embedding that is its mean alone.
    exam, local
        Whether the exam has a head, whether the views have.
    density
        Whether density is predicted, and its logits are looked at by the heads.
    channels, blocks
        d, and the blocks of the local path.
    dropout
        Part of the values set to 0 before layers of the heads, and in attention.
    """

    norm: Norm
    backbone: Backbone
    width: int
    ages: int
    draws: int
    exam: bool
    local: bool
    density: bool
    channels: int
    blocks: int
    dropout: float


class GaussianHead(nn.Module):
    """(R, inputs) to the mean and log variance of an embedding (R, E), and logits (D, R, K) of its draws."""

    def __init__(self, inputs: int, embedded: int, parts: Parts) -> None:
        super().__init__()
        self.mean = nn.Linear(inputs, embedded)
        self.draws, self.dropout = parts.draws, parts.dropout
        if parts.draws:
            self.log_variance = nn.Linear(inputs, embedded)
            self.variance_norm: nn.Module = (
                nn.BatchNorm1d(embedded, eps=1e-3, affine=False)
                if parts.norm == "batch"
                else nn.LayerNorm(embedded, eps=1e-3, elementwise_affine=False)
            )
        self.ages = nn.Linear(embedded, parts.ages)

    def forward(self, x: torch.Tensor, generator: torch.Generator | None) -> dict[str, torch.Tensor]:
        """`logits` (D, R, K), `mean` and `log_variance` (R, E); without a generator the logits of the mean, D = 1."""
        mean = functional.relu(self.mean(x))
        made, embedding = {"mean": mean}, mean[None]
        if self.draws:
            made["log_variance"] = self.variance_norm(self.log_variance(x))
            if generator is not None:
                shape = (self.draws, *mean.shape)
                noise = torch.randn(shape, generator=generator, device=mean.device).to(mean.dtype)
                embedding = mean + (0.5 * made["log_variance"]).exp() * noise
        made["logits"] = self.ages(dropped(embedding, self.dropout, generator))
        return made


class FourViews(nn.Module):
    """Views of exams to logits of ages and of density; see the module's docstring."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.parts = parts
        self.backbone = Features(parts.backbone, norm=parts.norm, width=parts.width)
        c = self.backbone.channels
        beside = DENSITIES if parts.density else 0
        if parts.density:
            self.density_hidden, self.density = nn.Linear(4 * c, c), nn.Linear(c, DENSITIES)
        if parts.exam:
            self.latent = nn.Linear(4 * c, c)
            self.exam_head = GaussianHead(c + beside, c, parts)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        if parts.local:
            self.exam_map = Projection(4 * c, parts.channels, norm=parts.norm)
            self.view_map = Projection(c, parts.channels, norm=parts.norm)
            self.blocks = nn.ModuleList(
                LocalBlock(parts.channels, norm=parts.norm, dropout=parts.dropout) for _ in range(parts.blocks)
            )
            self.local_head = GaussianHead(c + parts.channels + beside, c + parts.channels, parts)

    def forward(
        self,
        views: Sequence[torch.Tensor],
        present: Sequence[torch.Tensor],
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, torch.Tensor]:
        """Views (B, 1, H, W) and who has them (B,), four each, to outputs by name.

        Returns
        -------
        `density` (B, 4) logits; `exam logits` (D, B, K), `exam mean` and `exam log_variance` (B, C) of the exam's head;
        the same of the views there, `local …` (D, R, K) and (R, C + d), with `local view` (R,) and `local exam` (R,)
        and how many an exam has, `local views` (B,).
        """
        there = torch.stack(list(present))  # (V, B)
        view, exam = there.nonzero(as_tuple=True)  # (R,)
        images = torch.stack(list(views))[view, exam]  # (R, 1, H, W)
        features = self.backbone(images.expand(-1, 3, -1, -1))  # (R, C, h, w)
        maps = self._exam_maps(features, view, exam, there)  # (B, 4C, h, w)
        vector = maps.mean(dim=(2, 3))  # (B, 4C)
        outputs: dict[str, torch.Tensor] = {}
        beside = vector[:, :0]
        if self.parts.density:
            hidden = dropped(self.density_hidden(self._drop(vector, generator)), self.parts.dropout, generator)
            outputs["density"] = beside = self.density(functional.relu(hidden))
        if self.parts.exam:
            latent = functional.relu(self.latent(self._drop(vector, generator)))
            outputs |= _named("exam", self.exam_head(torch.cat([latent, beside], dim=1), generator))
        if self.parts.local:
            pooled = self._local(features, maps, exam, generator)
            outputs |= _named("local", self.local_head(torch.cat([pooled, beside[exam]], dim=1), generator))
            outputs |= {"local view": view, "local exam": exam, "local views": there.sum(dim=0)}
        return outputs

    def _exam_maps(
        self, features: torch.Tensor, view: torch.Tensor, exam: torch.Tensor, there: torch.Tensor
    ) -> torch.Tensor:
        """(B, 4C, h, w), the mean of an exam's views where one is missing."""
        whole = features.new_zeros((*there.shape, *features.shape[1:]))  # (V, B, C, h, w)
        whole = whole.index_put((view, exam), features)
        known = there[:, :, None, None, None]
        mean = whole.sum(dim=0) / known.sum(dim=0).clamp(min=1)
        return torch.where(known, whole, mean).transpose(0, 1).flatten(1, 2)

    def _local(
        self, features: torch.Tensor, maps: torch.Tensor, exam: torch.Tensor, generator: torch.Generator | None
    ) -> torch.Tensor:
        """(R, d + C): the mean over positions of the attended map and of the features themselves."""
        seen = self.exam_map(maps).flatten(2).transpose(1, 2)[exam]  # (R, h·w, d)
        x = self.view_map(features)
        for block in self.blocks:
            x = block(x, seen, generator)
        return torch.cat([x, features], dim=1).mean(dim=(2, 3))

    def _drop(self, x: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        return dropped(x, self.parts.dropout, generator)


def _named(prefix: str, made: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix} {name}": tensor for name, tensor in made.items()}


def exam_embedding(outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """An exam's embedding (B, E): the means of the exam's head (C) and of its views' (C + d each), of those there are.

    A view that is missing has the mean of the exam's other views, as in the exam's vector.
    """
    parts = [outputs["exam mean"]] if "exam mean" in outputs else []
    if "local mean" in outputs:
        view, exam = outputs["local view"].long(), outputs["local exam"].long()
        each, count = outputs["local mean"], outputs["local views"]  # (R, C + d), (B,)
        mean = each.new_zeros((len(count), each.shape[1])).index_add(0, exam, each) / count[:, None].clamp(min=1)
        whole = mean[None].expand(VIEWS, -1, -1).clone()  # (V, B, C + d)
        parts += list(whole.index_put((view, exam), each))
    return torch.cat(parts, dim=1)
