"""Noise sources: the float ones are what they say, from either generator."""

import math
from dataclasses import replace

import mpmath
import numpy as np
import pytest
import torch
from scipy.stats import kstest

from dualrs.certificates import certify
from dualrs.sampling import Engine, Job, NoiseKey, block_rows, input_digest, standard_normal_block
from dualrs.sampling.lattice import LatticeNoise
from dualrs.sampling.noise import uniform_block
from dualrs.sampling.sources import FloatNoise, NoiseBlock, normal_quantiles

SHAPE = (3, 8, 8)
KEY = NoiseKey(seed=0, digest=input_digest(torch.zeros(SHAPE)), model="classifier", sigma=0.5)
SOURCES = [FloatNoise(), FloatNoise("shake256"), LatticeNoise(), LatticeNoise("shake256")]
GENERATORS = ["sfc64", "shake256"]


def noisy(source, key, block=0, x=None):
    """The noisy copies of x that a block makes."""
    x = torch.full(SHAPE, 0.6) if x is None else x
    noise = source.draw(key, block, x.shape)
    out = np.empty((block_rows(x.shape), *x.shape), dtype=np.float32)
    source.write(noise.values, source.check(x), key.sigma, out)
    return out


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_noise_depends_on_its_key_alone(source):
    first = noisy(source, KEY, 3)
    noisy(source, KEY, 4)
    np.testing.assert_array_equal(first, noisy(replace(source), replace(KEY), 3))
    for key, block in ((replace(KEY, seed=1), 3), (replace(KEY, model="other"), 3), (KEY, 2)):
        correlation = np.mean((first - 0.6) * (noisy(source, key, block) - 0.6)) / 0.25
        assert abs(correlation) * math.sqrt(first.size) < 5


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
@pytest.mark.parametrize("shape", [(), (5,), (70_001,)])
def test_noisy_copies_are_gaussian_about_the_input(source, shape):
    values = (noisy(source, KEY, x=torch.full(shape, 0.2)).astype(np.float64).ravel() - 0.2) / KEY.sigma
    n = len(values)
    assert abs(values.mean()) < 5 / math.sqrt(n)
    assert abs(values.var() - 1) < 5 * math.sqrt(2 / n)
    assert kstest(values[:4000] + np.linspace(-1, 1, 4000) / 510 / KEY.sigma, "norm").pvalue > 1e-4


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_votes_do_not_depend_on_the_batch_size(source):
    def base(batch):
        return torch.stack([batch.mean(1) - 0.62, 0.62 - batch.mean(1), -((batch.mean(1) - 0.6) ** 2)], dim=1)

    def counts(batch_size):
        backend = type("Base", (), {"name": "b", "device": "cpu", "batch_size": None, "logits": staticmethod(base)})()
        engine = Engine(lambda name, shape: backend, batch_size=batch_size, noise=source)
        jobs = [Job(i, torch.full((5000,), 51 * i / 255), {"a": certify(0.5, n0=20, n=200)}) for i in range(3, 5)]
        return {r.key: [stage.counts for stage in r.outcomes["a"].certificate.stages] for r in engine.run(jobs)}

    reference = counts(256)
    assert all(sum(stages[1]) == 200 for stages in reference.values())
    assert counts(1) == counts(7) == reference


def test_the_default_source_is_the_one_that_was_always_there():
    np.testing.assert_array_equal(FloatNoise().draw(KEY, 2, SHAPE).values, standard_normal_block(KEY, 2, SHAPE).numpy())
    assert Engine(lambda name, shape: None).noise == FloatNoise("sfc64")


@pytest.mark.parametrize(
    ("generator", "expected"),
    [
        ("sfc64", [14650800841919742217, 929113942266615202]),
        ("shake256", [3855555686446140379, 12419724313345152640]),
    ],
)
def test_the_bits_of_a_key_never_change(generator, expected):
    """Otherwise no recorded certificate could be reproduced."""
    key = NoiseKey(7, b"\x01\x02", "expert-0.25", 0.25)
    assert uniform_block(key, 5, 2, generator).tolist() == expected


@pytest.mark.parametrize("generator", GENERATORS)
def test_all_bits_are_fair_and_uncorrelated(generator):
    uniforms = np.concatenate([uniform_block(KEY, block, 2**14, generator) for block in range(4)])
    bits = np.unpackbits(uniforms.view(np.uint8)).reshape(-1, 64).astype(np.float64) * 2 - 1
    n = len(bits)
    assert np.abs(bits.mean(0)).max() < 5 / math.sqrt(n)
    assert np.abs(bits.T @ bits / n - np.eye(64)).max() < 5.5 / math.sqrt(n)
    assert len(np.unique(uniforms)) == n


def test_quantiles_are_right_to_the_last_digits_in_both_tails():
    uniforms = np.array([0, 1, 2**20, 2**40, 2**62, 2**63 - 1], dtype=np.uint64)
    with mpmath.workdps(40):
        expected = [
            float(mpmath.sqrt(2) * mpmath.erfinv((mpmath.mpf(int(u)) + 0.5) * mpmath.mpf(2) ** -63 - 1))
            for u in uniforms
        ]
    np.testing.assert_allclose(normal_quantiles(uniforms), expected, rtol=1e-13, atol=1e-16)
    np.testing.assert_array_equal(normal_quantiles(~uniforms), -normal_quantiles(uniforms))


def test_sources_say_what_they_are_for_the_record():
    names = [source.name for source in SOURCES]
    assert len(set(names)) == len(names)
    assert names[0] == f"float32, numpy {np.__version__} SFC64 ziggurat"
    assert names[3] == "exact on multiples of 1/255, hashlib SHAKE-256"


@pytest.mark.parametrize("source", [FloatNoise, LatticeNoise])
def test_unknown_generators_are_refused(source):
    with pytest.raises(ValueError, match="unknown generator 'mt19937'; known: sfc64, shake256"):
        source("mt19937")


class Marking(FloatNoise):
    """Declares some rows of every block ambiguous."""

    def draw(self, key, block, shape):
        return NoiseBlock(super().draw(key, block, shape).values, (0, 5, block_rows(shape) - 1))


@pytest.mark.parametrize("batch_size", [1, 7, 5000])
def test_ambiguous_rows_count_as_trials_for_no_class(batch_size):
    backend = type("Base", (), {"name": "b", "device": "cpu", "batch_size": None})()
    backend.logits = lambda batch: torch.tensor([[0.0, 1.0]]).repeat(len(batch), 1)
    engine = Engine(lambda name, shape: backend, batch_size=batch_size, noise=Marking())
    (result,) = engine.run([Job(0, torch.zeros(1024), {"a": certify(0.5, n0=3, n=600)})])
    stages = result.outcomes["a"].certificate.stages
    # Blocks have 256 rows: marked are 0, 5, 255, 256, 261, 511 and 512, 517 of the 603.
    assert [stage.counts for stage in stages] == [(0, 2), (0, 593)]
    assert [stage.invalid for stage in stages] == [1, 7]


def test_errors_of_a_source_pass_through():
    class Failing(FloatNoise):
        def draw(self, key, block, shape):
            raise OSError("no entropy")

    backend = type("Base", (), {"name": "b", "device": "cpu", "batch_size": None, "logits": lambda self, b: b})()
    with pytest.raises(OSError, match="no entropy"):
        list(Engine(lambda name, shape: backend, noise=Failing()).run([Job(0, torch.zeros(2), {"a": certify(0.5)})]))
