"""Networks on the Hugging Face hub, by a description in JSON and weights in safetensors: no code, no pickles."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualrs.models.offshelf._checkpoints import CheckpointError
from dualrs.models.timm_network import DETERMINED, Published

_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class HubModel:
    """A network of timm on the hub.

    Args:
        architecture: timm's name for it.
        published: what its weights are for.
        arguments: further arguments of timm's constructor.
        weights: the file.
    """

    architecture: str
    published: Published
    arguments: dict[str, Any]
    weights: Path


def fetch_from_hub(name: str) -> HubModel:
    """Fetches a network's description and weights, or takes them from the hub's cache on this machine.

    Args:
        name: "owner/name" or "owner/name@revision".

    Raises:
        OSError: the hub cannot be reached and the cache does not have it, or there is no such repository.
        CheckpointError: it is no network of timm, or has no safetensors.
    """
    config = json.loads(_fetch(name, "config.json").read_text(encoding="utf-8"))
    if "architecture" not in config:
        kind = config.get("model_type") or config.get("_class_name") or "unknown"
        raise CheckpointError(
            f"hf:{name} is no network of timm (its config.json has no 'architecture'; its kind is {kind!r}): export it "
            "to ONNX and pass the .onnx file, or pass a Python callable as package.module:function"
        )
    try:  # older repositories have all at the top
        purpose = Published.from_config({**config.get("pretrained_cfg", {}), **config})
    except ValueError as error:
        raise CheckpointError(f"hf:{name}: {error}; download {_WEIGHTS} and pass it with what is missing") from error
    arguments = {key: value for key, value in config.get("model_args", {}).items() if key not in DETERMINED}
    return HubModel(str(config["architecture"]), purpose, arguments, _fetch(name, _WEIGHTS))


def _fetch(name: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    try:
        return Path(hf_hub_download(repository, file, revision=revision or None))
    except HFValidationError as error:
        raise CheckpointError(f"hf:{name} is no name on the hub, which is owner/name: {error}") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        # The first is also an EntryNotFoundError, but means that nobody could be asked.
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            reason = "so it is no network of timm"
            if file == _WEIGHTS:
                reason = (
                    "and weights are read from safetensors only. If it has a pickled file that you trust, convert it, "
                    "and pass the result with the name of the architecture"
                )
            raise CheckpointError(f"hf:{name} has no {file}, {reason}") from error
        raise OSError(
            f"{file} of hf:{name} is neither in the cache of this machine nor to be had from the hub: {error}. Where "
            f"the hub can be reached, `hf download {repository}` fills the cache; or pass a local file"
        ) from error
