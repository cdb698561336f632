"""Folding: batch normalisation merged into the layer before it.

In eval mode a BatchNorm multiplies each channel by one constant and adds another. So does the layer before it, if
that is a convolution or a linear layer: its weights and bias can take up both constants, and a pass over memory is
saved. Only the rounding differs.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

# The number of dimensions of a batch for which the layer's channels are those that a BatchNorm normalises: behind a
# linear layer these are the last dimension of (B, C), but not that of (B, L, C). Exactly these types: a subclass
# (a parametrised layer, one of the user's) may compute something else.
_RANKS: Mapping[type, int] = {
    nn.Linear: 2,
    nn.Conv1d: 3,
    nn.Conv2d: 4,
    nn.Conv3d: 5,
    nn.ConvTranspose1d: 3,
    nn.ConvTranspose2d: 4,
    nn.ConvTranspose3d: 5,
}
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def fold_batch_norms(module: nn.Module, example: Tensor) -> fx.GraphModule:
    """A private copy of the module that computes the same up to rounding, with fewer BatchNorm layers.

    Folded is every BatchNorm whose input is, by the traced graph, the output of a convolution or linear layer and
    of use to nothing else. Tracing can go wrong (a module may ask for the type of its input): compare the logits.

    Args:
        module: in eval mode; it is left as it is.
        example: a batch that it takes, on its device.

    Raises:
        ValueError: there is nothing to fold.
        Exception: whatever the module raises that cannot be copied or traced.
    """
    with torch.no_grad():
        # Tracing runs the module's code, which may keep what it sees: that must not be the owner's module.
        traced = fx.symbolic_trace(copy.deepcopy(module), concrete_args=_defaults(module))
        ranks = _Ranks(traced)
        ranks.run(example.clone())
        pairs = [pair for norm in traced.graph.nodes if (pair := _foldable(norm, traced, ranks.found)) is not None]
        for number, (layer, norm) in enumerate(pairs):
            # A layer of its own for every place: one that is used in two places may have a norm behind each.
            name = f"folded_{number}"
            traced.add_submodule(name, _folded(_submodule(traced, layer), _submodule(traced, norm)))
            layer.target = name
            norm.replace_all_uses_with(layer)
            traced.graph.erase_node(norm)
    if not pairs:
        raise ValueError("there is no BatchNorm behind a convolution or linear layer to fold")
    traced.delete_all_unused_submodules()
    traced.graph.lint()
    traced.recompile()
    return traced.requires_grad_(False)


def _defaults(module: nn.Module) -> dict[str, Any]:
    """The arguments that stay at their defaults: traced as unknown, none would be None."""
    parameters = inspect.signature(module.forward).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


class _Ranks(fx.Interpreter):
    """Runs a graph and notes how many dimensions every tensor in it has."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.found: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.found[n] = result.ndim
        return result


def _foldable(norm: fx.Node, traced: fx.GraphModule, ranks: Mapping[fx.Node, int]) -> tuple[fx.Node, fx.Node] | None:
    """The layer and the BatchNorm behind it, if the node is a BatchNorm that can be folded."""
    if not _is_plain(norm, traced, _NORMS) or len(norm.args) != 1 or norm.kwargs:
        return None
    layer, statistics = norm.args[0], _submodule(traced, norm)
    if not isinstance(layer, fx.Node) or not _is_plain(layer, traced, tuple(_RANKS)) or len(layer.users) != 1:
        return None
    before = _submodule(traced, layer)
    if ranks.get(layer) != _RANKS[type(before)] or statistics.training or statistics.running_mean is None:
        return None
    # The weights of a transposed convolution in groups have no dimension of all output channels.
    if isinstance(before, _TRANSPOSED) and before.groups > 1:
        return None
    return layer, norm


def _is_plain(node: fx.Node, traced: fx.GraphModule, types: tuple[type, ...]) -> bool:
    """Whether a node calls a layer of just these types whose forward nothing was put around or in place of."""
    if node.op != "call_module":
        return False
    layer = _submodule(traced, node)
    # Weight normalisation and pruning compute the weights anew in a hook, and would undo the folding.
    changed = layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer)
    return type(layer) in types and not changed


def _submodule(traced: fx.GraphModule, node: fx.Node) -> nn.Module:
    return traced.get_submodule(str(node.target))


def _folded(layer: Any, norm: Any) -> nn.Module:
    """A copy of the layer that does the work of both, its weights rounded once."""
    folded: nn.Module = copy.deepcopy(layer)
    tensors = (layer.weight, layer.bias, norm.running_mean, norm.running_var)
    weight, bias, mean, var = (_exact(tensor) for tensor in tensors)
    weight, bias = fuse_conv_bn_weights(
        weight, bias, mean, var, norm.eps, _exact(norm.weight), _exact(norm.bias), isinstance(layer, _TRANSPOSED)
    )
    folded.weight, folded.bias = (nn.Parameter(tensor.to(layer.weight), False) for tensor in (weight, bias))
    return folded


def _exact(tensor: Tensor | None) -> Any:
    # On the CPU, because not every device knows float64.
    return None if tensor is None else tensor.detach().cpu().double()
