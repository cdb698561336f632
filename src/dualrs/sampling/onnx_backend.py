"""ONNX: models from files, and modules exported to ONNX Runtime."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn

from dualrs.sampling.backends import as_logits


class OnnxBackend:
    """Runs an ONNX model with ONNX Runtime on the CPU.

    Args:
        model: the path of an ``.onnx`` file, or its content. It must have one input, float32, whose first
            dimension is the batch, and its first output must be the logits.
        precision: what is known of its arithmetic, for the record.

    Raises:
        ValueError: the file is no such model.
        FileNotFoundError: there is no such file.
    """

    name = "onnxruntime"
    device = "cpu"

    def __init__(self, model: str | os.PathLike[str] | bytes, *, precision: str = "its own") -> None:
        self.precision = precision
        self._what = what = "the given bytes" if isinstance(model, bytes) else os.fspath(model)
        if not isinstance(model, bytes) and not Path(model).is_file():
            raise FileNotFoundError(f"there is no file {what}")
        # A path, not the file's content: large models keep their weights in a second file beside the first.
        source = model if isinstance(model, bytes) else what
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own errors share no base class but this
            raise ValueError(f"{what} is not a model that ONNX Runtime can load: {error}") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)":
            raise ValueError(
                f"{what}: a base classifier has one float32 input; this model has "
                f"{[(node.name, node.type) for node in inputs]}"
            )
        self._input, self._output = inputs[0].name, self._session.get_outputs()[0].name
        # What is no integer is a dimension of any size.
        self._shape = [size if isinstance(size, int) else None for size in inputs[0].shape]
        self.batch_size: int | None = self._shape[0] if self._shape else None

    def logits(self, batch: Tensor) -> Tensor:
        """See `Backend.logits`."""
        if len(self._shape) != batch.ndim or any(
            size not in (None, given) for size, given in zip(self._shape, batch.shape, strict=True)
        ):
            expected = ", ".join("any" if size is None else str(size) for size in self._shape)
            raise ValueError(f"{self._what} takes batches of shape ({expected}); got {tuple(batch.shape)}")
        return as_logits(self._session.run([self._output], {self._input: batch.numpy()})[0], len(batch))


def export_onnx(module: nn.Module, example: Tensor, *, any_batch: bool = False) -> bytes:
    """The module as an ONNX model that takes batches of exactly the example's shape.

    Args:
        module: in eval mode.
        example: a batch.
        any_batch: let the model take batches of any size instead; the example must then hold two rows or more.
    """
    shapes = ({0: torch.export.Dim("batch")},) if any_batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        program = torch.onnx.export(
            module,
            (example,),
            input_names=["input"],
            output_names=["logits"],
            dynamic_shapes=shapes,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ValueError("torch.onnx.export returned no model")
    content: bytes = program.model_proto.SerializeToString()
    return content
