"""The parts of a smoothed classifier as ONNX files, for whatever runs ONNX."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from dualrs.sampling import Backend, Base, OnnxBackend, TorchBackend
from dualrs.sampling import export_onnx as to_onnx
from dualrs.sampling.backends import agree
from dualrs.smoothing import DualSmoothedClassifier, Expert, SmoothedClassifier

_SIZES = (2, 1, 7)  # of the batches that are compared; the first is that of the export


def export_onnx(
    model: SmoothedClassifier | DualSmoothedClassifier,
    folder: str | Path,
    *,
    input_shape: Sequence[int] | None = None,
) -> Path:
    """Writes each base classifier as an ``.onnx`` file whose logits were compared with the network's own.

    All that belongs to a base classifier is inside: normalisation, denoiser, clipping. Its first dimension is the
    batch, of any size. The folder is a bundle as well, so `dualrs.load` gives the smoothed classifier back, with the
    same σ and names of experts; its certificates are about the ONNX files, which round differently in the last bits.

    Args:
        model: whose base classifiers are modules or ``.onnx`` files; the latter are copied.
        folder: appears whole or, on any error, stays as it was; replaced if it is a bundle already.
        input_shape: of one input; ``model.input`` has it if None.

    Raises:
        TypeError: a base classifier is a callable, which has no graph.
        ValueError: the shape of inputs or the number of classes is not known, or a network cannot be exported, or its
            file gives other logits.
        NotAFixedFunctionError: a network is in training mode.
        FileExistsError: the folder exists and is no bundle.
    """
    if input_shape is None:
        if model.input is None:
            raise ValueError("the shape of the model's inputs is not known: give input_shape, such as (3, 32, 32)")
        input_shape = model.input.shape
    with tempfile.TemporaryDirectory() as scratch:
        paths: dict[int, Path] = {}
        for name, base in model.bases.items():
            if id(base) not in paths:  # one base classifier may serve several σ
                paths[id(base)] = _write(base, name, Path(scratch) / f"{len(paths)}.onnx", tuple(input_shape))
        return _over(model, paths).save(folder)


def _write(base: Base | Backend, name: str, path: Path, shape: tuple[int, ...]) -> Path:
    if isinstance(base, str | Path):
        return Path(base)
    if not isinstance(base, nn.Module):
        raise TypeError(
            f"{name} is a {type(base).__name__}, which has no graph to export: a torch.nn.Module or the path of an "
            ".onnx file is needed"
        )
    # A copy on the CPU: the model stays where it runs.
    module = copy.deepcopy(base).to("cpu")
    own = TorchBackend(module)
    batches = [_inputs(size, shape) for size in _SIZES]
    try:
        content = to_onnx(module, batches[0], any_batch=True)
    except Exception as error:  # the exporter's own errors share no base class but this
        raise ValueError(f"{name} cannot be exported to ONNX: {error}") from error
    path.write_bytes(content)
    exported = OnnxBackend(path)
    for batch in batches:
        expected, found = own.logits(batch.clone()), exported.logits(batch.clone())
        if not agree(expected, found):
            raise ValueError(
                f"{name}: the exported model's logits differ from the network's by up to "
                f"{float((expected - found).abs().max()):g} on a batch of {len(batch)}"
            )
    return path


def _inputs(size: int, shape: tuple[int, ...]) -> Tensor:
    """Values about [0, 1] with noise on them: what the network will be asked."""
    return 0.5 + torch.randn((size, *shape), generator=torch.Generator().manual_seed(size))


def _over(
    model: SmoothedClassifier | DualSmoothedClassifier, paths: Mapping[int, Path]
) -> SmoothedClassifier | DualSmoothedClassifier:
    """The same smoothed classifier over other base classifiers."""
    other: SmoothedClassifier | DualSmoothedClassifier
    if isinstance(model, SmoothedClassifier):
        other = SmoothedClassifier(paths[id(model.base)], model.sigma, model.num_classes)
    else:
        experts = [Expert(paths[id(expert.base)], expert.sigma, expert.name) for expert in model.experts]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # whoever built the model was warned about σ_e
            other = DualSmoothedClassifier(paths[id(model.estimator)], model.sigma_e, experts, model.num_classes)
    other.input, other.classes, other.info = model.input, model.classes, model.info
    return other
