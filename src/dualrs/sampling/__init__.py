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
from dualrs.sampling.intake import Intake, Listed, Mapped, Queued, as_intake
from dualrs.sampling.lattice import LatticeNoise
from dualrs.sampling.noise import GeneratorName, NoiseKey, block_rows, input_digest, standard_normal_block
from dualrs.sampling.onnx_backend import OnnxBackend, export_onnx
from dualrs.sampling.sources import FloatNoise, NoiseBlock, NoiseSource
from dualrs.sampling.streams import ModelStats
from dualrs.sampling.torch_backend import CompiledBackend, Precision, TorchBackend
from dualrs.sampling.work import Crew, Done, Failed, Item, LocalRunner, Runner, Work, add_stats, guarded

__all__ = [
    "Arithmetic",
    "Backend",
    "BackendName",
    "Base",
    "CallableBackend",
    "CompiledBackend",
    "Crew",
    "Done",
    "Engine",
    "Failed",
    "FloatNoise",
    "GeneratorName",
    "Intake",
    "Item",
    "Job",
    "JobResult",
    "LatticeNoise",
    "Listed",
    "LocalRunner",
    "Mapped",
    "ModelStats",
    "NoiseBlock",
    "NoiseKey",
    "NoiseSource",
    "NotAFixedFunctionError",
    "OnnxBackend",
    "Outcome",
    "Precision",
    "Queued",
    "Runner",
    "TorchBackend",
    "Work",
    "add_stats",
    "as_intake",
    "block_rows",
    "check_fixed_function",
    "export_onnx",
    "guarded",
    "input_digest",
    "make_backend",
    "make_noise",
    "precision_of",
    "refuse_training_mode",
    "standard_normal_block",
]
