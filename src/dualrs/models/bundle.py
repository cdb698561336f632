"""Saved models: a folder with ``model.json`` and one safetensors (or ONNX) file per part.

Loading never unpickles, reads no file outside of the folder, and checks every file against the digest in
``model.json``, so a truncated or altered bundle is refused instead of certified.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import onnx
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from dualrs.models.manifest import MANIFEST, PLAIN_NAME, BundleError, Manifest, PartEntry, read_manifest
from dualrs.models.registry import Recipe, build_network, recipe_of

Part: TypeAlias = nn.Module | Path
"""A network of a registered architecture, or the path of an ``.onnx`` file."""


@dataclass(frozen=True)
class InputSpec:
    """What a bundle's inputs look like: their shape without the batch dimension, and the range of their values."""

    shape: tuple[int, ...]
    range: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Bundle:
    """What a saved model consists of.

    Args:
        sigmas: the noise level of each expert, ascending; experts that have names may share one.
        experts: the name of the part that each expert is; one part may be several.
        parts: by name.
        num_classes: K.
        sigma_e: noise level of the variance estimator, the part named "estimator"; None for a model with
            one noise level and no estimator.
        classes: the names of the classes, if known.
        input: what inputs look like, if known.
        info: anything else worth keeping (training, accuracies), as JSON values.
        names: of the experts, where their σ does not name them. Votes depend on them.
    """

    sigmas: tuple[float, ...]
    experts: tuple[str, ...]
    parts: Mapping[str, Part]
    num_classes: int
    sigma_e: float | None = None
    classes: tuple[str, ...] | None = None
    input: InputSpec | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] | None = None


def save_bundle(bundle: Bundle, folder: str | Path, *, half: bool = False) -> Path:
    """Writes a bundle; the folder appears whole or, on any error, stays as it was.

    Parts with the same weights, such as one network told different σ, share a file.

    Args:
        bundle: what to save.
        folder: replaced if it is a bundle already.
        half: store weights as float16, half the size. What is certified must then be the loaded model.

    Raises:
        TypeError: a part is neither a registered network nor an ``.onnx`` file.
        ValueError: the bundle is inconsistent, a part's name is no plain file name, or a weight does not fit
            into float16.
        FileExistsError: the folder exists and is no bundle.
    """
    folder = Path(folder)
    if strange := [name for name in bundle.parts if not re.fullmatch(PLAIN_NAME, name)]:
        raise ValueError(f"parts become files, so their names must match {PLAIN_NAME}; got {strange}")
    if folder.exists() and not (folder / MANIFEST).exists():
        raise FileExistsError(f"{folder} exists and is not a bundle; choose another folder or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        parts: dict[str, dict[str, Any]] = {}
        for name, part in bundle.parts.items():
            parts[name] = _write_part(part, name, new, half=half, written=parts)
        manifest = {
            "format": "dualrs-bundle",
            "version": 1,
            "num_classes": bundle.num_classes,
            "sigmas": bundle.sigmas,
            "experts": bundle.experts,
            # Left out where σ says as much, so that such a bundle stays what it always was, digest included.
            **({} if bundle.names is None else {"names": bundle.names}),
            "sigma_e": bundle.sigma_e,
            "classes": bundle.classes,
            "input": asdict(bundle.input) if bundle.input else None,
            "parts": parts,
            "info": bundle.info,
        }
        Manifest.model_validate(manifest)  # what could not be loaded is not written
        (new / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        new.chmod(0o755)
        if folder.exists():
            old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
            folder.replace(old)
            try:
                new.replace(folder)
            except BaseException:
                old.replace(folder)
                raise
            shutil.rmtree(old)
        else:
            new.replace(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return folder


def _write_part(
    part: Part, name: str, folder: Path, *, half: bool, written: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    if isinstance(part, Path):
        if part.suffix != ".onnx":
            raise TypeError(f"part {name!r}: a file must be an .onnx file; got {part}")
        content = onnx.load(part).SerializeToString()  # with the weights that the exporter put into other files
        entry: dict[str, Any] = {"file": f"{name}.onnx"}
    else:
        recipe = recipe_of(part)
        if recipe is None:
            raise TypeError(
                f"part {name!r} is a {type(part).__name__}, which a bundle cannot rebuild: use a network made by "
                "dualrs.models.build_network, or export it to ONNX and pass the path of the .onnx file"
            )
        weights = part.state_dict()
        if half:
            weights = {key: _half(value, f"{name}: {key}") for key, value in weights.items()}
        content = save_tensors({key: value.contiguous() for key, value in weights.items()})
        entry = {"file": f"{name}.safetensors", "network": recipe.name, "arguments": dict(recipe.arguments)}
    digest = hashlib.sha256(content).hexdigest()
    same = next((other["file"] for other in written.values() if other["sha256"] == digest), None)
    if same is None:
        (folder / entry["file"]).write_bytes(content)
    return {**entry, "file": same or entry["file"], "sha256": digest}


def _half(weight: Tensor, name: str) -> Tensor:
    if not weight.is_floating_point():
        return weight
    if weight.isfinite().all() and not weight.half().isfinite().all():
        raise ValueError(f"{name} reaches {weight.abs().max():g}, which float16 cannot hold; save with half=False")
    return weight.half()


def load_bundle(folder: str | Path) -> Bundle:
    """Reads a bundle; networks come back in eval mode, in float32.

    Raises:
        BundleError: there is no bundle, a file is missing, truncated or altered, or nothing known fits it.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    parts = {name: _read_part(entry, name, folder) for name, entry in manifest.parts.items()}
    return Bundle(
        sigmas=manifest.sigmas,
        experts=manifest.experts,
        names=manifest.names,
        parts=parts,
        num_classes=manifest.num_classes,
        sigma_e=manifest.sigma_e,
        classes=manifest.classes,
        input=InputSpec(manifest.input.shape, manifest.input.range) if manifest.input else None,
        info=manifest.info,
    )


def _read_part(entry: PartEntry, name: str, folder: Path) -> Part:
    path = folder / entry.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"bundle {folder}: the weights of {name!r} are missing ({entry.file})") from error
    found = hashlib.sha256(content).hexdigest()
    if found != entry.sha256:
        raise BundleError(
            f"bundle {folder}: {entry.file} ({len(content):,} bytes) is truncated or altered: its SHA-256 is {found}, "
            f"{MANIFEST} says {entry.sha256}"
        )
    if entry.network is None:
        _refuse_external_data(content, path)
        return path
    try:
        with torch.random.fork_rng(devices=[]):  # building draws initial weights; nobody else's random numbers
            network = build_network(Recipe(entry.network, entry.arguments))
        network.load_state_dict(load_tensors(content))
    except (SafetensorError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(f"bundle {folder}: {entry.file} does not fit network {entry.network!r}: {error}") from error
    return network.eval()


def _refuse_external_data(content: bytes, path: Path) -> None:
    """Raises BundleError unless the ONNX file holds all of its weights: no digest covers those elsewhere."""
    try:
        model = onnx.load_model_from_string(content)
        with tempfile.TemporaryDirectory() as nowhere:
            onnx.load_external_data_for_model(model, nowhere)
    except Exception as error:  # protobuf's and onnx's own errors share no base class but this
        raise BundleError(f"{path} is no ONNX model with all of its weights inside: {error}") from error
