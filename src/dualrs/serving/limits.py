"""What a service does at most: for one request, and for all of them together."""

from __future__ import annotations

from dataclasses import dataclass, fields

_MOST_SAMPLES = 10_000_000


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how many are served at a time.

    Attributes:
        n: the most estimation samples of each model.
        inputs: the most inputs of a batch.
        body: the most bytes of a request's body.
        pixels: the most pixels of an image file, before it is decoded.
        seconds: the most for an answer; what is proved by then is answered.
        body_seconds: the most that a request's head, and then its body, may take to arrive.
        active: how many inputs are certified at a time, each with an equal share of the votes.
        waiting: how many wait beyond these; who comes then is told to come back.
        connections: how many are open at a time.
        grace: seconds after which a service that is told to end answers with what is proved by then.

    Raises:
        ValueError: one of them is not positive, or ``n`` is above 10 000 000, beyond which no bound is computed.
    """

    n: int = 100_000
    inputs: int = 64
    body: int = 16 * 2**20
    pixels: int = 16 * 10**6
    seconds: float = 120.0
    body_seconds: float = 20.0
    active: int = 32
    waiting: int = 64
    connections: int = 512
    grace: float = 10.0

    def __post_init__(self) -> None:
        for name in (each.name for each in fields(self)):
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"{name} must be positive; got {value}")
        if self.n > _MOST_SAMPLES:
            raise ValueError(f"n must be at most {_MOST_SAMPLES}; got {self.n}")
