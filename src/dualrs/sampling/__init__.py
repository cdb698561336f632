"""From vote requests to counts: noise, inference backends and the engine."""

from dualrs.sampling.backends import (
    Backend,
    BackendName,
    Base,
    CallableBackend,
    NotAFixedFunctionError,
    OnnxBackend,
    TorchBackend,
    check_fixed_function,
    export_onnx,
    make_backend,
    refuse_training_mode,
)
from dualrs.sampling.engine import Engine, Job, JobResult, Outcome
from dualrs.sampling.noise import NoiseKey, block_rows, input_digest, standard_normal_block
from dualrs.sampling.streams import ModelStats

__all__ = [
    "Backend",
    "BackendName",
    "Base",
    "CallableBackend",
    "Engine",
    "Job",
    "JobResult",
    "ModelStats",
    "NoiseKey",
    "NotAFixedFunctionError",
    "OnnxBackend",
    "Outcome",
    "TorchBackend",
    "block_rows",
    "check_fixed_function",
    "export_onnx",
    "input_digest",
    "make_backend",
    "refuse_training_mode",
    "standard_normal_block",
]
