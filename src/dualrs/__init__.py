"""Certified robustness by dual randomized smoothing."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Certificate", "DualSmoothedClassifier", "Expert", "SmoothedClassifier", "__version__", "load"]

if TYPE_CHECKING:
    from dualrs.certificates import Certificate
    from dualrs.smoothing import DualSmoothedClassifier, Expert, SmoothedClassifier, load


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; `dualrs --help` and the mathematics do without it.
    if name == "Certificate":
        from dualrs.certificates import Certificate

        return Certificate
    if name in __all__:
        from dualrs import smoothing

        return getattr(smoothing, name)
    raise AttributeError(f"module 'dualrs' has no attribute {name!r}")
