"""Arrays written atomically and read without unpickling."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dualrs.files import atomic_write


def write_npy(path: Path, array: npt.NDArray[Any]) -> None:
    """Write `array` to a `.npy` file, atomically."""
    with atomic_write(path) as file:
        np.save(file, array, allow_pickle=False)


def read_npy(path: Path) -> npt.NDArray[Any]:
    """Read a `.npy` file into memory, C-ordered.

    The file is mapped before it is copied, so a header that promises more than the file holds allocates
    nothing.

    Raises:
        ValueError: If the file is truncated, is not `.npy`, or holds Python objects (they are not unpickled).
    """
    return np.array(np.lib.format.open_memmap(path, mode="r"), order="C")
