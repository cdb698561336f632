"""Argument checks that name what was given and what would be right; results shaped like the arguments."""

from numbers import Integral, Real

import numpy as np
from numpy.typing import ArrayLike, NDArray


def positive(name: str, value: object) -> float:
    """Return `value` as a float, or refuse anything but one positive finite number."""
    number = _real(name, value)
    if not 0 < number < float("inf"):
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return number


def non_negative(name: str, value: object) -> float:
    """Return `value` as a float, or refuse anything but one finite number that is at least 0."""
    number = _real(name, value)
    if not 0 <= number < float("inf"):
        raise ValueError(f"{name} must be finite and at least 0, got {value}")
    return number


def failure_probability(name: str, value: object) -> float:
    """Return `value` as a float, or refuse anything but one number strictly between 0 and 1."""
    number = _real(name, value)
    if not 0 < number < 1:
        raise ValueError(f"{name} is a failure probability and must lie strictly in (0, 1), got {value}")
    return number


def probability(name: str, value: object) -> float:
    """Return `value` as a float, or refuse anything but one number in [0, 1]."""
    number = _real(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} is a probability and must lie in [0, 1], got {value}")
    return number


def integer(name: str, value: object, minimum: int) -> int:
    """Return `value` as an int, or refuse anything but one integer that is at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return int(value)


def integer_array(name: str, values: ArrayLike) -> NDArray[np.int64]:
    """Return `values` as int64, or refuse any other type: a rounded count is no longer a count."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {values!r} of dtype {array.dtype}: convert with int()")
    if array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must fit into 64 bits, got {values!r}")
    return array.astype(np.int64)


def real_array(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return `values` as float64, or refuse what is not a real number; NaN passes."""
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be real numbers, got {values!r} of dtype {array.dtype}")
    return array.astype(np.float64)


def as_given(result: NDArray[np.float64]) -> float | NDArray[np.float64]:
    """Return a Python float where all arguments were scalars, else the array."""
    return float(result) if np.ndim(result) == 0 else result


def _real(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {value!r} of type {type(value).__name__}")
    return float(value)
