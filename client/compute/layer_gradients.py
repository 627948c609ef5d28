"""Gradients of each row's own loss by one pass forward and one backward over the whole batch, at the layers.

A layer is replaced by one whose backward step keeps its input and the gradient of its output, from which each row's
gradient of its weights follows (Goodfellow 2015, arXiv 1510.01799; the hooks of Opacus, and the single backward pass of
Bu et al. 2023, arXiv 2210.00038). Hooks see a tensor after what follows has changed it in place, as our networks do; a
layer's own backward step does not, so that any network of the layers below may be used. Norms are of the gradients that
are summed, and not of products of inputs (ghost norms), whose rounding would be another one.

Shape legend: R rows, T places of a convolution's output, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Step = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]
"""Gradients of a layer's input, and of each row of its weight and of its bias."""
Gradients = dict[int, torch.Tensor]
"""Of each row, (R, …), by the id of the parameter."""
_FEW_PLACES = 128
"""Up to so many places one product of matrices for all rows is faster than a convolution for each (measured)."""


class NotByLayer(RuntimeError):
    """A network whose gradients do not follow from its layers alone."""


def can_be_kept(module: nn.Module) -> bool:
    """Whether every learnt parameter is of a layer whose rows are told apart."""
    known = {id(one) for layer in module.modules() if _is_known(layer) for one in layer.parameters(recurse=False)}
    return all(id(one) in known for one in module.parameters() if one.requires_grad)


def gradients_of_rows(module: nn.Module, losses: Callable[[], torch.Tensor], *, rows: int) -> Gradients:
    """Gradients of the parameters of `module`, of each of the losses (R,) that a pass over it makes.

    Raises
    ------
    NotByLayer
        If a layer is given something else than one part for each row.
    """
    found: Gradients = {}
    link = torch.zeros((), requires_grad=True)  # so that a layer whose input needs no gradient has a backward step
    with _keeping(module, link, found, rows=rows):
        torch.autograd.grad(losses().sum(), [link], allow_unused=True)
    return found


def _is_known(layer: nn.Module) -> bool:
    if type(layer) in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        return layer.padding_mode == "zeros" and isinstance(layer.padding, tuple)
    return type(layer) in (nn.Linear, nn.GroupNorm, nn.LayerNorm)


@contextmanager
def _keeping(module: nn.Module, link: torch.Tensor, found: Gradients, *, rows: int) -> Iterator[None]:
    layers = [
        layer
        for layer in module.modules()
        if _is_known(layer) and any(one.requires_grad for one in layer.parameters(recurse=False))
    ]
    try:
        for layer in layers:
            layer.forward = _forward(layer, link, found, rows)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _forward(layer: nn.Module, link: torch.Tensor, found: Gradients, rows: int) -> Callable[[torch.Tensor], Any]:
    def forward(x: torch.Tensor) -> Any:
        if x.shape[0] != rows:
            raise NotByLayer(f"a layer is given {x.shape[0]} parts for {rows} rows")
        return _Kept.apply(x, link, layer, found)  # type: ignore[no-untyped-call]

    return forward


class _Kept(torch.autograd.Function):
    """A layer whose backward step adds each row's gradient of its parameters to those found."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, link: torch.Tensor, layer: Any, found: Gradients) -> torch.Tensor:
        del link
        ctx.layer, ctx.found = layer, found
        if isinstance(layer, nn.GroupNorm):
            rows, channels = x.shape[:2]
            places = x[0, 0].numel()
            made, *moments = torch.native_group_norm(
                x.contiguous(), layer.weight, layer.bias, rows, channels, places, layer.num_groups, layer.eps
            )
            ctx.save_for_backward(x, *moments)
            return made
        if isinstance(layer, nn.LayerNorm):
            made, *moments = torch.native_layer_norm(
                x, list(layer.normalized_shape), layer.weight, layer.bias, layer.eps
            )
            ctx.save_for_backward(x, *moments)
            return made
        ctx.save_for_backward(x)
        if isinstance(layer, nn.Linear):
            return functional.linear(x, layer.weight, layer.bias)
        convolved: torch.Tensor = layer._conv_forward(x, layer.weight, layer.bias)
        return convolved

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        of_kind: dict[type, Callable[..., Step]] = {
            nn.GroupNorm: _group_norm,
            nn.LayerNorm: _layer_norm,
            nn.Linear: _linear,
        }
        step: Callable[..., Step] = of_kind.get(type(ctx.layer), _convolution)
        grad, needs_input = grads[0].contiguous(), ctx.needs_input_grad[0]
        of_input, of_weight, of_bias = step(ctx.layer, grad, *ctx.saved_tensors, needs_input=needs_input)
        for parameter, own in ((ctx.layer.weight, of_weight), (ctx.layer.bias, of_bias)):
            if parameter is not None and own is not None:
                own = own.reshape(len(own), *parameter.shape)
                before = ctx.found.get(id(parameter))
                ctx.found[id(parameter)] = own if before is None else before + own
        return of_input, None, None, None


def _linear(layer: Any, grad: torch.Tensor, x: torch.Tensor, *, needs_input: bool) -> Step:
    of_input = grad @ layer.weight if needs_input else None
    if grad.dim() == 2:
        return of_input, grad[:, :, None] * x[:, None, :], grad
    grad, x = grad.flatten(1, -2), x.flatten(1, -2)
    return of_input, grad.transpose(1, 2) @ x, grad.sum(1)


def _convolution(layer: Any, grad: torch.Tensor, x: torch.Tensor, *, needs_input: bool) -> Step:
    def step(some: torch.Tensor, inputs: torch.Tensor, mask: list[bool]) -> Any:
        return torch.ops.aten.convolution_backward(
            some, inputs, layer.weight, None, layer.stride, layer.padding, layer.dilation, False,
            [0] * len(layer.stride), layer.groups, mask,
        )  # fmt: skip

    of_input = step(grad, x, [True, False, False])[0] if needs_input else None
    of_bias = None if layer.bias is None else grad.flatten(2).sum(2)
    dense = layer.groups == 1 and set(layer.dilation) == {1}
    if dense and (grad[0, 0].numel() <= _FEW_PLACES or set(layer.kernel_size) == {1}):
        return of_input, grad.flatten(2) @ _patches(layer, x), of_bias
    one_by_one = [step(grad[k : k + 1], x[k : k + 1], [False, True, False])[1] for k in range(len(x))]
    return of_input, torch.stack(one_by_one), of_bias


def _patches(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """What each place of the output was made from, (R, T, C · kernel)."""
    axes = x.dim() - 2
    x = functional.pad(x, [size for size in reversed(layer.padding) for _ in range(2)])
    for axis, (size, stride) in enumerate(zip(layer.kernel_size, layer.stride, strict=True)):
        x = x.unfold(2 + axis, size, stride)
    order = [0, *range(2, 2 + axes), 1, *range(2 + axes, 2 + 2 * axes)]
    return x.permute(order).flatten(1 + axes).flatten(1, axes)


def _group_norm(
    layer: Any, grad: torch.Tensor, x: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor, *, needs_input: bool
) -> Step:
    rows, channels, places = len(x), x.shape[1], x[0, 0].numel()
    of_input = None
    if needs_input:
        of_input = torch.ops.aten.native_group_norm_backward(
            grad, x.contiguous(), mean, scale, layer.weight, rows, channels, places, layer.num_groups,
            [True, False, False],
        )[0]  # fmt: skip
    each = channels // layer.num_groups
    mean, scale = (one.reshape(rows, -1).repeat_interleave(each, dim=1) for one in (mean, scale))
    grad, x = grad.reshape(rows, channels, -1), x.reshape(rows, channels, -1)
    of_bias = grad.sum(2)
    # Σ g (x − mean) · scale
    return of_input, (torch.linalg.vecdot(grad, x) - mean * of_bias) * scale, of_bias


def _layer_norm(
    layer: Any, grad: torch.Tensor, x: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor, *, needs_input: bool
) -> Step:
    shape = list(layer.normalized_shape)
    of_input = None
    if needs_input:
        of_input = torch.ops.aten.native_layer_norm_backward(
            grad, x, shape, mean, scale, layer.weight, layer.bias, [True, False, False]
        )[0]
    between = tuple(range(1, x.dim() - len(shape)))
    product = grad * (x - mean) * scale
    if not between:
        return of_input, product, grad
    return of_input, product.sum(between), grad.sum(between)
