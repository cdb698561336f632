"""From vote requests to counts: noise, inference backends and the engine."""

from dualrs.sampling.backends import (
    Backend,
    CallableBackend,
    NotAFixedFunctionError,
    check_fixed_function,
    precision_of,
    refuse_training_mode,
)
from dualrs.sampling.choice import Arithmetic, BackendName, Base, make_backend, make_noise
from dualrs.sampling.engine import Engine, Job, JobResult, Outcome
from dualrs.sampling.lattice import LatticeNoise
from dualrs.sampling.noise import GeneratorName, NoiseKey, block_rows, input_digest, standard_normal_block
from dualrs.sampling.onnx_backend import OnnxBackend, export_onnx
from dualrs.sampling.sources import FloatNoise, NoiseBlock, NoiseSource
from dualrs.sampling.streams import ModelStats
from dualrs.sampling.torch_backend import CompiledBackend, Precision, TorchBackend

__all__ = [
    "Arithmetic",
    "Backend",
    "BackendName",
    "Base",
    "CallableBackend",
    "CompiledBackend",
    "Engine",
    "FloatNoise",
    "GeneratorName",
    "Job",
    "JobResult",
    "LatticeNoise",
    "ModelStats",
    "NoiseBlock",
    "NoiseKey",
    "NoiseSource",
    "NotAFixedFunctionError",
    "OnnxBackend",
    "Outcome",
    "Precision",
    "TorchBackend",
    "block_rows",
    "check_fixed_function",
    "export_onnx",
    "input_digest",
    "make_backend",
    "make_noise",
    "precision_of",
    "refuse_training_mode",
    "standard_normal_block",
]
