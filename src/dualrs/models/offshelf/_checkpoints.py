"""Weights from files, and where in a checkpoint they are. Nothing is unpickled but tensors and plain values."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# Where trainings keep the weights in what they save; MACER (Zhai et al. 2020) calls them "net".
_USUAL_ENTRIES = ("state_dict", "model_state_dict", "net", "model", "weights")

# Segments that wrappers put into the names of weights: DataParallel, torch.compile, averages of weights.
_WRAPPERS = {"module", "_orig_mod"}


class CheckpointError(ValueError):
    """A file whose weights cannot be used; the message says what was found and what would be right."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights from a file.

    Args:
        weights: by name, without the names of wrappers.
        arch: the architecture that the file names, if it does.
        source: for messages.
    """

    weights: Mapping[str, Tensor]
    arch: str | None
    source: str


def read_checkpoint(path: Path, entry: str | None = None) -> Checkpoint:
    """Reads weights from a safetensors file or one that ``torch.save`` wrote; runs no code from it.

    Args:
        path: of the file; only the ending ``.safetensors`` has a meaning.
        entry: where in the file the weights are, as keys and positions joined by dots ("state_dict.0"); None looks at
            the usual places.

    Raises:
        CheckpointError: the file is none, needs code to be read, or has no weights there.
    """
    if path.suffix == ".safetensors":
        content: Any = _read_safetensors(path)
    else:
        content = _read_pickled(path)
    arch = content.get("arch") if isinstance(content, Mapping) else None
    if entry is not None:
        content = _entry(content, entry, path)
    elif isinstance(content, Mapping) and not _is_weights(content):
        found = [key for key in _USUAL_ENTRIES if key in content]
        if not found:
            raise CheckpointError(
                f"{path} has no weights at any of the usual entries ({', '.join(_USUAL_ENTRIES)}); it has "
                f"{_list(map(repr, content))}: name the right one as entry"
            )
        entry, content = found[0], content[found[0]]
    if not _is_weights(content):
        raise CheckpointError(
            f"{path}: {f'entry {entry!r}' if entry else 'the content'} is {_describe(content)}, no mapping from names "
            f"to tensors; {_hint(content, entry)}"
        )
    weights: dict[str, Tensor] = {}
    for key, value in content.items():
        name = ".".join(part for part in key.split(".") if part not in _WRAPPERS)
        if name in weights:
            raise CheckpointError(f"{path} has {name!r} twice, once behind the name of a wrapper: name one as entry")
        weights[name] = value
    return Checkpoint(weights, arch if isinstance(arch, str) else None, str(path))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is no complete safetensors file: {error}") from error


def _read_pickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("WeightsUnpickler error:")[2].strip().splitlines()
        raise CheckpointError(
            f"{path} cannot be read as tensors and plain values alone ({reason[0] if reason else 'no such file'}); "
            "anything more would run code from it. If you trust it, convert it once where its code is installed:\n"
            f"    saved = torch.load({str(path)!r}, weights_only=False)  # runs its code\n"
            "    weights = saved.state_dict() if isinstance(saved, torch.nn.Module) else saved['state_dict']\n"
            "    safetensors.torch.save_file({k: v.contiguous() for k, v in weights.items()}, 'weights.safetensors')"
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is no complete file that torch.save wrote: {error}") from error


def _entry(content: Any, entry: str, path: Path) -> Any:
    for key in entry.split("."):
        if isinstance(content, Mapping) and key in content:
            content = content[key]
        elif _is_list(content) and key.isdigit() and int(key) < len(content):
            content = content[int(key)]
        else:
            raise CheckpointError(f"{path} has no entry {entry!r}: there is no {key!r} in {_describe(content)}")
    return content


def _is_weights(content: Any) -> bool:
    if not isinstance(content, Mapping) or not content:
        return False
    return all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())


def _is_list(content: Any) -> bool:
    return isinstance(content, Sequence) and not isinstance(content, str)


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a mapping with {_list(map(repr, content))}"
    if _is_list(content):
        return f"a list of {len(content)}"
    return f"a {type(content).__name__}"


def _hint(content: Any, entry: str | None) -> str:
    prefix = f"{entry}." if entry else ""
    if _is_list(content):
        inside = [f"{prefix}{i}" for i, value in enumerate(content) if _is_weights(value)]
    else:
        inside = (
            [f"{prefix}{key}" for key in content if _is_weights(content[key])] if isinstance(content, Mapping) else []
        )
    return f"there are at entry {' or '.join(map(repr, inside))}" if inside else "name where they are as entry"


def _list(names: Any) -> str:
    shown = list(names)
    return ", ".join(shown[:6]) + (f" and {len(shown) - 6} more" if len(shown) > 6 else "")
