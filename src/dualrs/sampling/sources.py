"""Noise sources: how a noisy copy of an input is made, behind one interface, and the one in float32.

What a certificate speaks of is a base classifier under noise N(0, σ²I) in real arithmetic. A source in floating
point only approximates that: see `dualrs.sampling.lattice` for one that does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from dualrs.sampling.noise import (
    GeneratorName,
    NoiseKey,
    block_rows,
    check_generator,
    standard_normal_block,
    uniform_block,
)


@dataclass(frozen=True)
class NoiseBlock:
    """A block of noise: ``values`` has one row per noisy copy; the ``ambiguous`` rows must vote for no class."""

    values: NDArray[Any]
    ambiguous: tuple[int, ...] = ()


class NoiseSource(Protocol):
    """Draws noise in blocks that depend on their key alone, and writes noisy copies of inputs.

    ``draw`` is the expensive half and runs in several threads at once; ``write`` is the cheap one.
    """

    @property
    def name(self) -> str:
        """What draws, for the record: arithmetic, generator, and the library whose version decides the values."""
        ...

    def check(self, x: Tensor) -> NDArray[Any]:
        """Returns an input as `write` takes it; raises ValueError if the source cannot add noise to it."""
        ...

    def draw(self, key: NoiseKey, block: int, shape: Sequence[int]) -> NoiseBlock:
        """The noise of a block, `block_rows` rows of this shape."""
        ...

    def write(self, noise: NDArray[Any], x: NDArray[Any], sigma: float, out: NDArray[np.float32]) -> None:
        """Writes the noisy copies of x, one for each of these rows of a block."""
        ...


@dataclass(frozen=True)
class FloatNoise:
    """Writes ``x + sigma * noise`` in float32, one rounding each; takes any input.

    Fast, and exact enough for every base classifier that was not built to look at the last bits: one that was
    can tell from them which input the noise was added to, and then a certificate may be wrong.

    Args:
        generator: "sfc64" draws normals by NumPy's ziggurat; "shake256" inverts the normal distribution function
            in float64 at 64-bit uniforms from a cryptographic generator.

    Raises:
        ValueError: there is no such generator.
    """

    generator: GeneratorName = "sfc64"

    def __post_init__(self) -> None:
        check_generator(self.generator)

    @property
    def name(self) -> str:
        """See `NoiseSource.name`."""
        if self.generator == "sfc64":
            return f"float32, {generator_record(self.generator)} ziggurat"
        return f"float32, {generator_record(self.generator)}, inverse CDF of scipy {scipy.__version__}"

    def check(self, x: Tensor) -> NDArray[np.float32]:
        """See `NoiseSource.check`."""
        return as_float32(x)

    def draw(self, key: NoiseKey, block: int, shape: Sequence[int]) -> NoiseBlock:
        """See `NoiseSource.draw`."""
        if self.generator == "sfc64":
            return NoiseBlock(standard_normal_block(key, block, shape).numpy())
        values = np.empty((block_rows(shape), *shape), dtype=np.float32)
        values.reshape(-1)[:] = normal_quantiles(uniform_block(key, block, values.size, self.generator))
        return NoiseBlock(values)

    def write(self, noise: NDArray[np.float32], x: NDArray[np.float32], sigma: float, out: NDArray[np.float32]) -> None:
        """See `NoiseSource.write`."""
        # NumPy, not torch: torch would split these over its own threads, which then fight with the backend's.
        np.multiply(noise, np.float32(sigma), out=out)
        np.add(out, x, out=out)


def normal_quantiles(uniforms: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The standard normal quantiles of ``(u + ½) / 2⁶⁴``; ``u`` and ``2⁶⁴ - 1 - u`` have opposite ones."""
    upper = uniforms >= np.uint64(2**63)
    # In the lower tail a double is exact where near one it would have no digits left.
    tail = np.where(upper, ~uniforms, uniforms).astype(np.float64)
    tail += 0.5
    tail *= 2.0**-64
    values: NDArray[np.float64] = ndtri(tail, out=tail)
    return np.negative(values, out=values, where=upper)


def generator_record(generator: GeneratorName) -> str:
    """The name of a generator and of what implements it, for the record."""
    return f"numpy {np.__version__} SFC64" if generator == "sfc64" else "hashlib SHAKE-256"


def as_float32(x: Tensor) -> NDArray[np.float32]:
    """The values of an input, on the CPU; may share its memory."""
    values: NDArray[np.float32] = x.detach().cpu().float().numpy()
    return values
