"""Which weight of a checkpoint belongs where in a network, and what is wrong where none does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from torch import Tensor, nn

from dualrs.models.offshelf._checkpoints import CheckpointError

# What stands before the normalisation layers' tensors and before the network's in published checkpoints
# (nn.Sequential of both), and in ours.
_NORMALISATION = ("normalize.", "normalizer.", "normalization.", "norm_layer.", "0.")
_NORMALISATION_TENSORS = {"mean", "std", "means", "sds", "mu", "sigma"}
_BODIES = ("", "body.")

# Other names of the same layers: of torchvision's ResNets, and of pytorch_resnet_cifar10.
_RENAMED = {"linear.": "head.", "fc.": "head.", "classifier.": "head.", "shortcut.": "downsample."}


def split_normalisation(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The network's weights, and the tensors of a normalisation layer in front of it by their last names."""
    layer = {
        key: value
        for key, value in weights.items()
        if key.startswith(_NORMALISATION) and key.rpartition(".")[2] in _NORMALISATION_TENSORS
    }
    body = {key: value for key, value in weights.items() if key not in layer}
    return body, {key.rpartition(".")[2]: value for key, value in layer.items()}


def fit_weights(network: nn.Module, weights: Mapping[str, Tensor], what: str, source: str) -> nn.Module:
    """Loads weights into a network whose normalisation is its own; it comes back in eval mode.

    Args:
        network: whose normalisation, if it has one, is ``network.normalize``.
        weights: by name; a common prefix, and the usual other names of layers, are seen through.
        what: the network, for messages.
        source: the file, for messages.

    Raises:
        CheckpointError: weights are missing, unknown or of another shape.
    """
    state = network.state_dict()
    needed = {key: value for key, value in state.items() if not key.startswith("normalize.")}
    given = _named_alike(weights, needed)
    optional = {key for key in needed if key.endswith(".num_batches_tracked")}  # old checkpoints lack it
    missing = [key for key in needed if key not in given and key not in optional]
    unknown = [key for key in given if key not in needed]
    reshaped = [key for key in given if key in needed and given[key].shape != needed[key].shape]
    if missing or unknown or reshaped:
        shapes = (f"{key} is {_shape(given[key])}, and would be {_shape(needed[key])}" for key in reshaped)
        parts = (
            _part("missing", missing, f"of {len(needed) - len(optional)} that it needs"),
            _part("unknown to it", unknown, f"of {len(given)} in the file"),
            _part("of another shape", reshaped, "", shapes),
        )
        raise CheckpointError(
            f"the weights in {source} do not fit {what}: {'; '.join(part for part in parts if part)}"
            f"{_suspect(given, needed, {*missing, *unknown}, reshaped)}"
        )
    network.load_state_dict({**state, **given})
    return network.eval()


def count_outputs(weights: Mapping[str, Tensor]) -> int | None:
    """The number of classes by the last linear layer, in the order of the file; None if there is no matrix."""
    matrices = [value for value in weights.values() if value.ndim == 2]
    return len(matrices[-1]) if matrices else None


def _named_alike(weights: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names that most of them share with what is needed."""
    whole = [dict(weights), without_common_prefix(weights)]
    whole += [{_rename(key): value for key, value in names.items()} for names in whole]
    candidates = [{f"{body}{key}": value for key, value in names.items()} for names in whole for body in _BODIES]
    return max(candidates, key=lambda names: len(names.keys() & needed.keys()))


def _rename(key: str) -> str:
    for old, new in _RENAMED.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
        key = key.replace(f".{old}", f".{new}")
    return key


def without_common_prefix(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the segments that all of them begin with: ``1.conv1.weight`` becomes ``conv1.weight``."""
    names = dict(weights)
    while names:
        heads = Counter(key.partition(".")[0] for key in names)
        if len(heads) > 1 or any(key.count(".") < 2 for key in names):
            break
        names = {key.partition(".")[2]: value for key, value in names.items()}
    return names


def _part(what: str, keys: Sequence[str], of: str, shown: Iterable[str] | None = None) -> str:
    if not keys:
        return ""
    first = list(keys if shown is None else shown)[:3]
    more = ", …" if len(keys) > len(first) else ""
    return f"{len(keys)} {'is' if len(keys) == 1 else 'are'} {what}{f' {of}' if of else ''} ({', '.join(first)}{more})"


def _suspect(
    given: Mapping[str, Tensor], needed: Mapping[str, Tensor], misnamed: AbstractSet[str], reshaped: Sequence[str]
) -> str:
    """What is probably wrong, if that can be told."""
    last = [key for key in needed if needed[key].ndim == 2][-1:]
    if reshaped and not misnamed and set(reshaped) <= {*last, *(key.replace("weight", "bias") for key in last)}:
        return f". So the weights are for {len(given[last[0]])} classes: pass num_classes={len(given[last[0]])}"
    if not given.keys() & needed.keys():
        return ". No name agrees: this is another architecture"
    return ""


def _shape(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "a number"
