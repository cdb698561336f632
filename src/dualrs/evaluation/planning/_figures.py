"""What a forecast consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dualrs.smoothing import DualSmoothedClassifier, SmoothedClassifier

Model = SmoothedClassifier | DualSmoothedClassifier


@dataclass(frozen=True)
class Estimate:
    """A figure, and the ends between which it will lie with about 95 %."""

    expected: float
    low: float
    high: float

    def times(self, factor: float) -> Estimate:
        """The same in other units."""
        return Estimate(self.expected * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class ModelWork:
    """The work of one base classifier.

    Attributes:
        name: by which procedures ask for it.
        sigma: at which it votes.
        backend, device, precision, batch_size: on what it runs.
        votes_per_input: the mean number of its votes, each counted once however many methods read it.
        votes: in the whole run.
        votes_per_second: when its batches are full, noise included.
        seconds: that a device will be busy with it.
    """

    name: str
    sigma: float
    backend: str
    device: str
    precision: str
    batch_size: int
    votes_per_input: float
    votes: float
    votes_per_second: float
    seconds: float


@dataclass(frozen=True)
class Devices:
    """What the run takes on so many devices like the one measured, each of which takes an input when it is free.

    Attributes:
        devices: how many.
        wall_seconds: from the first batch to the last, and the start-up.
        device_hours: of all devices, idle or not.
        cost: device-hours times the price of one; None without a price.
    """

    devices: int
    wall_seconds: Estimate
    device_hours: Estimate
    cost: Estimate | None


@dataclass(frozen=True)
class Memory:
    """Memory of a process, in bytes.

    Attributes:
        peak: the most that it will have resident.
        measured: the most that this process had, by the end of the sample.
        results: what grows with the images, when the run sums up its results at the end.
        device: the most that was allocated on a GPU; None where none was used.
    """

    peak: int
    measured: int
    results: int
    device: int | None


@dataclass(frozen=True)
class Option:
    """The run as planned, or with one change: what it takes, and what it finds on the inputs of the sample.

    Attributes:
        change: what is changed, in words; "as planned" for the run itself.
        images: how many inputs it certifies.
        votes: in the whole run; ``share_of_votes`` of those as planned.
        seconds: on one device, start-up included; ``share_of_time`` of those as planned.
        average_radius: of the first method, wrong labels and abstentions as 0.
        certified_accuracy: of the first method, by radius.
        abstained: the share of inputs on which the first method abstains.
        margin: half the width of the 95 % interval of a certified accuracy of 50 % on so many images.
        remark: what is lost beside radius, or taken for granted.
    """

    change: str
    images: int
    votes: float
    share_of_votes: float
    seconds: float
    share_of_time: float
    average_radius: float
    certified_accuracy: Mapping[str, float]
    abstained: float
    margin: float
    remark: str = ""


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Attributes:
        data: the name of the data set; ``images`` of its ``size`` are to be certified.
        method: whose radii and accuracies are forecast; ``methods`` are all that share the votes.
        n0, n, alpha, tolerance, target: as in the run.
        sample: how many of the images were voted on, ``sample_votes`` times by every base classifier, in
            ``sample_seconds``.
        models: what each base classifier has to do.
        votes: of all of them; a method that reads another's votes adds none.
        seconds: of the run on one device, start-up included.
        startup_seconds: until the first steady batch: making, compiling and checking the backends.
        per_image_seconds: for an image, without the start-up.
        other_seconds: of ``seconds``, in which procedures compute bounds and images are read.
        longest_seconds: for the costliest image of the sample, which no number of devices makes shorter.
        further_sigma_seconds: that one more expert with a row of its own would add; None where experts have none.
        devices: the run on one device and on several.
        memory: of each process.
        options: the run as planned, then with one change each.
        radii: of the certified accuracies.
        pace: the fastest and the slowest part of the sample by its mean time; far from 1 on a busy machine.
    """

    data: str
    images: int
    size: int
    method: str
    methods: tuple[str, ...]
    n0: int
    n: int
    alpha: float
    tolerance: float
    target: float | None
    sample: int
    sample_votes: int
    sample_seconds: float
    models: tuple[ModelWork, ...]
    votes: Estimate
    seconds: Estimate
    startup_seconds: float
    per_image_seconds: float
    other_seconds: float
    longest_seconds: float
    further_sigma_seconds: float | None
    devices: tuple[Devices, ...]
    memory: Memory
    options: tuple[Option, ...]
    radii: tuple[float, ...]
    pace: tuple[float, float]

    @property
    def planned(self) -> Option:
        """The run as planned."""
        return self.options[0]

    def to_dict(self) -> dict[str, Any]:
        """Gives plain dicts, lists and numbers that `json.dumps` takes as they are."""
        return asdict(self)
