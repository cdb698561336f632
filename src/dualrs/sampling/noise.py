"""Gaussian noise that depends on nothing but its key.

Noise is drawn in blocks; a block is determined by the run seed, the input's digest, the model, the noise
level and the block's number. So an input meets the same noise alone, in a batch, in a data set, after a
restart or on another worker.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GeneratorName = Literal["sfc64", "shake256"]
"""Where random bits come from: NumPy's SFC64, or the hash function SHAKE-256 as a keystream."""

_BLOCK_VALUES = 2**18
_BLOCK_ROWS = 4096


def input_digest(x: Tensor) -> bytes:
    """A digest of an input's shape and float32 values; equal inputs have equal digests, on any device."""
    values = np.ascontiguousarray(x.detach().to("cpu", torch.float32).numpy(), dtype="<f4")
    values = values + np.float32(0)  # -0.0 equals 0.0
    return hashlib.blake2b(repr(values.shape).encode() + values.tobytes(), digest_size=16).digest()


def block_rows(shape: Sequence[int]) -> int:
    """How many noise vectors of this shape make a block: a power of two, at most about a megabyte in all."""
    rows = max(1, _BLOCK_VALUES // max(1, math.prod(shape)))
    return min(_BLOCK_ROWS, 1 << (rows.bit_length() - 1))


@dataclass(frozen=True)
class NoiseKey:
    """What, with the number of a block, determines its noise.

    Args:
        seed: of the run; any integer.
        digest: `input_digest` of the input.
        model: the name under which procedures ask for the model.
        sigma: the noise level.
    """

    seed: int
    digest: bytes
    model: str
    sigma: float


def standard_normal_block(key: NoiseKey, block: int, shape: Sequence[int]) -> Tensor:
    """Independent standard normal values, float32, shape ``(block_rows(shape), *shape)``.

    The 256-bit seed of the generator (NumPy's SFC64, ziggurat sampling) is a cryptographic hash of the key and
    the block's number, so distinct blocks are independent for every purpose but an attack on the hash.
    """
    generator = np.random.Generator(_sfc64(key, block))
    return torch.from_numpy(generator.standard_normal((block_rows(shape), *shape), dtype=np.float32))


def uniform_block(key: NoiseKey, block: int, count: int, generator: GeneratorName) -> NDArray[np.uint64]:
    """Independent 64-bit integers, all equally likely, from the named generator with the same seed as the normals.

    "sfc64" is statistically sound and fast. "shake256" is the output of a cryptographic hash function of the
    seed: whoever does not know the run's seed cannot tell it from chance.
    """
    if generator == "sfc64":
        return _sfc64(key, block).random_raw(count)
    stream = hashlib.shake_256(_block_seed(key, block)).digest(8 * count)
    return np.frombuffer(stream, dtype="<u8").astype(np.uint64, copy=False)


def check_generator(generator: str) -> None:
    """Raises ValueError unless this is the name of a generator."""
    if generator not in get_args(GeneratorName):
        raise ValueError(f"unknown generator {generator!r}; known: {', '.join(get_args(GeneratorName))}")


def _sfc64(key: NoiseKey, block: int) -> np.random.SFC64:
    entropy = int.from_bytes(_block_seed(key, block), "little")
    return np.random.SFC64(np.random.SeedSequence(entropy, pool_size=8))


def _block_seed(key: NoiseKey, block: int) -> bytes:
    material = hashlib.blake2b(digest_size=32)
    for part in (str(key.seed).encode(), key.digest, key.model.encode(), struct.pack("<d", key.sigma)):
        material.update(struct.pack("<q", len(part)) + part)
    material.update(struct.pack("<q", block))
    return material.digest()
