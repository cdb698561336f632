"""The same work on many machines: a Ray cluster whose workers pull inputs, and may die at any moment."""

from dualrs.distributed.dispatcher import Dispatcher
from dualrs.distributed.ray_runner import RayRunner

__all__ = ["Dispatcher", "RayRunner"]
