"""A base classifier that fools certificates made with float32 noise, and cannot fool those made in integers.

After Voráček & Hein, ICLR 2023: floating-point sums remember what was added. A float32 number of size 1/2 or
more is a multiple of 2⁻²⁴, so 1 + z is one wherever it falls near zero, whatever the noise z was; 0.2 + z
seldom is. A classifier that looks at the last bits hence tells two inputs apart through any amount of noise.
"""

import math

import pytest
import torch

from dualrs.certificates import certify, predict
from dualrs.sampling import CallableBackend, Engine, Job
from dualrs.sampling.lattice import LatticeNoise
from dualrs.sampling.sources import FloatNoise

DIMENSIONS = 12
HERE = torch.ones(DIMENSIONS)
THERE = torch.full((DIMENSIONS,), 51 / 255)
DISTANCE = math.sqrt(DIMENSIONS) * 0.8
A, B = 0, 1


def peeping(batch):
    """Class A if every coordinate near zero is a multiple of 2⁻²⁴."""
    coarse = (batch * 2.0**24) % 1 == 0
    fooled = (coarse | (batch.abs() >= 0.5)).all(dim=1)
    return torch.stack([fooled, ~fooled], dim=1).float()


def certificates(noise, base=peeping, sigma=1.0):
    """The certificate at HERE, and the prediction THERE."""
    engine = Engine(lambda name, shape: CallableBackend(base), batch_size=1000, noise=noise)
    jobs = [
        Job("here", HERE, {"answer": certify(sigma, n0=100, n=10_000, alpha=0.001)}),
        Job("there", THERE, {"answer": predict(sigma, n=10_000, alpha=0.001)}),
    ]
    found = {result.key: result.outcomes["answer"].certificate for result in engine.run(jobs)}
    return found["here"], found["there"]


@pytest.mark.parametrize("generator", ["sfc64", "shake256"])
def test_float_noise_can_be_fooled_into_a_wrong_certificate(generator):
    here, there = certificates(FloatNoise(generator))
    assert here.label == A
    assert here.radius > 3.1 > DISTANCE + 0.3
    assert there.label == B  # within the certified ball


def spectacles(scale, width):
    """Variants of the peeping classifier, fit to other steps."""

    def base(batch):
        fooled = (((batch * scale) % 1 == 0) | (batch.abs() >= width)).all(dim=1)
        return torch.stack([fooled, ~fooled], dim=1).float()

    return base


@pytest.mark.parametrize("generator", ["sfc64", "shake256"])
@pytest.mark.parametrize(
    "base", [peeping, *(spectacles(scale, width) for scale in (2.0**24, 2.0**26, 51.0, 255.0) for width in (0.25, 2.0))]
)
def test_exact_noise_cannot_be_fooled(generator, base):
    here, there = certificates(LatticeNoise(generator), base)
    assert here.label == there.label or here.radius <= DISTANCE
    assert not there.abstained


def test_exact_noise_certifies_what_is_true():
    """The radius of a half-space is the distance to its border, up to the votes' uncertainty."""

    def halves(batch):
        lead = batch.mean(dim=1) - 0.8
        return torch.stack([lead, -lead], dim=1)

    truth = math.sqrt(DIMENSIONS) * 0.2
    here, there = certificates(LatticeNoise(), halves, sigma=0.5)
    assert (here.label, there.label) == (A, B)
    assert 0.93 * truth < here.radius < truth
