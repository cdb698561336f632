"""Gaussian noise on a lattice, in integers: certificates that hold for the arithmetic that ran.

Voráček & Hein (ICLR 2023) show that rounding ``x + σ·z`` in floating point leaks x, so that a certificate for
it can be wrong, and that integers repair this. For inputs ``x = m/L`` with integers ``0 ≤ m ≤ L``:

- **The classifier that is smoothed** is f∘q. In real arithmetic, q rounds x + δ, δ ~ N(0, σ²I), to multiples of
  1/L and clips them to [-K/L, 1 + K/L], K = ⌈6σL⌉. Every theorem on smoothing holds for f∘q as for any function.
- **What is drawn.** Since x is on the lattice, q(x + δ) = clip((m + j)/L) with the integer ``j = round(δ·L)``. It
  is below or at i exactly where δ·L < i + ½, that is where a uniform U in [0, 1) lies below
  ``t_i = Φ((i + ½)/(σL))``. Beyond |j| = J = K + L all sums are clipped alike, so 2J thresholds are enough.
- **Exactness.** Let u be the first 64 bits of U and ``T_i = ⌊2⁶⁴·t_i⌋``. Where u < T_i, U < t_i; where u > T_i,
  U > t_i. Only u = T_i leaves j open, with probability 2⁻⁶⁴ each; such a row is marked and votes for no class.
  Hence no class gets more votes than it would under the exact noise, and every lower bound stays one.
- **The row** that f sees is ``float32(m + j) / float32(L)``, one fixed function of the integer, part of f.

The thresholds come from the series ``Φ(x) = ½ + φ(x)·(x + x³/3 + x⁵/(3·5) + …)``, all of whose terms are positive,
in decimals of 70 digits.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dualrs.sampling.noise import GeneratorName, NoiseKey, block_rows, check_generator, uniform_block
from dualrs.sampling.sources import NoiseBlock, as_float32, generator_record

_ROUNDING = 2.0**-22  # how far a float32 value in [0, 1] may lie from what was meant, after a rounding or two
_MOST_THRESHOLDS = 2**18
_DIGITS = 70
_PI = Decimal("3.141592653589793238462643383279502884197169399375105820974944592307816406286208999")
_FAR = 10  # Φ(-10) < 2⁻⁷⁶
_CELL_BITS = 16
_TABLE_LOCK = threading.Lock()


@dataclass(frozen=True)
class LatticeNoise:
    """Writes noisy copies that are exactly Gaussian on the lattice of multiples of 1/levels.

    A certificate with this noise holds around the lattice point that the input stands for, in real arithmetic, for
    every base classifier, also one that looks at the last bits.

    Args:
        generator: of the uniform 64-bit integers; "shake256" is cryptographic.
        levels: the largest integer that stands for an input value; 255 for 8-bit images.

    Raises:
        ValueError: there is no such generator, or levels is below 1.
    """

    generator: GeneratorName = "sfc64"
    levels: int = 255

    def __post_init__(self) -> None:
        check_generator(self.generator)
        if not isinstance(self.levels, int) or self.levels < 1:
            raise ValueError(f"levels must be an integer of at least 1 (255 for 8-bit images); got {self.levels!r}")

    @property
    def name(self) -> str:
        """See `NoiseSource.name`."""
        return f"exact on multiples of 1/{self.levels}, {generator_record(self.generator)}"

    def check(self, x: Tensor) -> NDArray[np.int32]:
        """Returns the integers m of an input m/levels; raises ValueError if it is none, beyond float32 rounding."""
        values = as_float32(x).astype(np.float64)
        if values.size and not (values.min() >= 0 and values.max() <= 1):  # NaN too
            raise ValueError(
                f"the input's values lie in [{values.min():g}, {values.max():g}]; exact noise takes values in [0, 1]"
            )
        integers = np.rint(values * self.levels)
        errors = np.abs(values - integers / self.levels)
        if values.size and errors.max() > _ROUNDING:
            worst = np.unravel_index(int(errors.argmax()), values.shape)
            raise ValueError(
                f"exact noise takes multiples of 1/{self.levels}; the input's value {values[worst]:.9g} at "
                f"{tuple(map(int, worst))} is {errors[worst]:.3g} away from the nearest. Quantise the input first: "
                f"(x * {self.levels}).round() / {self.levels}"
            )
        return integers.astype(np.int32)

    def draw(self, key: NoiseKey, block: int, shape: Sequence[int]) -> NoiseBlock:
        """See `NoiseSource.draw`; the values are the integers j."""
        rows = block_rows(shape)
        uniforms = uniform_block(key, block, rows * math.prod(shape), self.generator)
        steps, ambiguous = lattice_table(key.sigma, self.levels).steps(uniforms)
        marked: tuple[int, ...] = ()
        if ambiguous.any():
            marked = tuple(np.flatnonzero(ambiguous.reshape(rows, -1).any(axis=1)).tolist())
        return NoiseBlock(steps.reshape(rows, *shape), marked)

    def write(self, noise: NDArray[Any], x: NDArray[np.int32], sigma: float, out: NDArray[np.float32]) -> None:
        """See `NoiseSource.write`."""
        reach = clip_margin(sigma, self.levels)
        sums = noise + x.astype(noise.dtype)
        np.clip(sums, -reach, self.levels + reach, out=sums)
        np.copyto(out, sums, casting="same_kind")
        np.divide(out, np.float32(self.levels), out=out)


def clip_margin(sigma: float, levels: int) -> int:
    """K: how many steps of the lattice noisy values may leave [0, 1] by."""
    return math.ceil(6 * sigma * levels)


class LatticeTable:
    """The thresholds T_i, i from -J to J - 1, in ascending order, and a fast way to find a uniform among them.

    The top 16 bits of a uniform name its cell. Most cells hold at most one threshold, so one comparison decides;
    for the others, far out in the tails, a binary search does.
    """

    def __init__(self, sigma: float, levels: int) -> None:
        margin = clip_margin(sigma, levels)
        largest = margin + levels  # J
        if 2 * largest > _MOST_THRESHOLDS:
            raise ValueError(
                f"exact noise at σ = {sigma:g} on multiples of 1/{levels} needs {2 * largest} thresholds, more than "
                f"{_MOST_THRESHOLDS}; use fewer levels"
            )
        self.thresholds = thresholds(sigma, levels, largest)
        self._largest = largest
        # What the sums of noise and input, before clipping, fit into.
        dtype = np.int16 if largest + levels < 2**15 else np.int32
        edges = np.arange(2**_CELL_BITS, dtype=np.uint64) << np.uint64(64 - _CELL_BITS)
        first = np.searchsorted(self.thresholds, edges)
        # The last threshold lies beyond Φ(6), in the last cell, so that every cell has a next threshold.
        self._guards = self.thresholds[first]
        self._crowded = np.diff(first, append=2 * largest) > 1
        self._first: NDArray[Any] = (first - largest).astype(dtype)

    def steps(self, uniforms: NDArray[np.uint64]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The integer j that each uniform stands for, and where it equals a threshold, so that j is left open."""
        cells = (uniforms >> np.uint64(64 - _CELL_BITS)).view(np.int64)
        guards = self._guards[cells]
        steps = self._first[cells]
        steps += uniforms > guards
        ambiguous: NDArray[np.bool_] = uniforms == guards
        crowded = np.flatnonzero(self._crowded[cells])
        if crowded.size:
            found = uniforms[crowded]
            below = np.searchsorted(self.thresholds, found)
            steps[crowded] = below - self._largest
            ambiguous[crowded] = below < np.searchsorted(self.thresholds, found, side="right")
        return steps, ambiguous


def lattice_table(sigma: float, levels: int) -> LatticeTable:
    """The table of a noise level, computed once (a fraction of a second for 8-bit images)."""
    with _TABLE_LOCK:  # the first block of a noise level is often drawn with others at its side
        return _lattice_table(sigma, levels)


_lattice_table = lru_cache(maxsize=32)(LatticeTable)


def thresholds(sigma: float, levels: int, largest: int) -> NDArray[np.uint64]:
    """``⌊2⁶⁴·Φ((i + ½)/(σ·levels))⌋`` for i from ``-largest`` to ``largest - 1``, exactly."""
    with localcontext(prec=_DIGITS):
        whole, half = Decimal(2**64), Decimal("0.5")
        step = 1 / (2 * levels * Decimal(sigma))
        root = (2 * _PI).sqrt()
        lower = []
        for i in range(largest):
            x = (2 * i + 1) * step
            scaled = whole * (half - _half_mass(x, root)) if x < _FAR else half
            # Rounding reaches no further than 10⁻⁴⁰, so this is the floor unless an integer is as near as that.
            assert min(scaled % 1, 1 - scaled % 1) > Decimal("1e-40")
            lower.append(int(scaled))
    below = np.array(lower, dtype=np.uint64)
    return np.concatenate([below[::-1], ~below])  # Φ(x) + Φ(-x) = 1, and neither times 2⁶⁴ is an integer


def _half_mass(x: Decimal, root: Decimal) -> Decimal:
    """Φ(x) - ½ for x ≥ 0, by its series of positive terms; ``root`` is √(2π)."""
    square = x * x
    term = total = x
    odd = 1
    while term > total.scaleb(-_DIGITS):
        odd += 2
        term = term * square / odd
        total += term
    return (-square / 2).exp() / root * total
