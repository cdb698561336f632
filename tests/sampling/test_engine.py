"""The engine attributes every vote to its input, noise level and model, and hands none out twice."""

import threading
import tracemalloc
import weakref
from collections import Counter
from itertools import count

import numpy as np
import pytest
import torch
from torch import nn

from dualrs.certificates import Certificate, VoteRequest, certify, dual_certify, predict
from dualrs.sampling import (
    CallableBackend,
    Engine,
    Job,
    NoiseKey,
    NotAFixedFunctionError,
    OnnxBackend,
    TorchBackend,
    block_rows,
    export_onnx,
    input_digest,
    standard_normal_block,
)
from dualrs.sampling import engine as engine_module
from dualrs.sampling.sources import FloatNoise
from dualrs.sampling.votes import KeptVotes, RunningVotes

CHECKS = 1  # calls that come first, with which the engine looks whether a base classifier is a fixed function


def ask(*requests):
    """A procedure that makes these requests; its certificate records the answers by rule."""
    answers = []
    for request in requests:
        answers.append((yield request))
    ask.answers.append(answers)
    return Certificate(0, 0.0, None, 0.001, "ask", ())


ask.answers = []


class Recorder:
    """A base classifier with K classes by the first coordinate, which keeps every batch that it is voted on."""

    batch_size = None
    name, device = "recorder", "cpu"

    def __init__(self, classes=4):
        self.batches, self._calls, self._classes = [], 0, classes

    def logits(self, batch):
        self._calls += 1
        if self._calls > CHECKS:
            self.batches.append(batch.clone())
        first = batch.reshape(len(batch), -1)[:, 0]
        return torch.stack([-((first - c) ** 2) for c in range(self._classes)], dim=1)

    @property
    def rows(self):
        return torch.cat(self.batches)


def network():
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(32, 4)
    )
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return net.eval()


IMAGES = torch.rand((50, 2, 6, 6), generator=torch.Generator().manual_seed(1))


def run(base, xs, procedures, *, batch_size=256, seed=0):
    """Certificates by input and name."""
    backend = base if hasattr(base, "logits") else TorchBackend(base)
    engine = Engine(lambda name, shape: backend, batch_size=batch_size)
    jobs = (Job(i, x, procedures(), seed) for i, x in enumerate(xs))
    results = {result.key: result.outcomes for result in engine.run(jobs)}
    return [{name: outcome.certificate for name, outcome in results[i].items()} for i in range(len(results))], engine


def single():
    return {"answer": certify(0.5, n0=30, n=200)}


def several():
    return {
        "answer": certify(0.5, n0=30, n=200),
        "other": certify(0.5, n0=50, n=90),
        "predict": predict(0.5, n=77),
        "small": predict(0.25, n=40),
        "dual": dual_certify(
            1.0, [0.25, 0.3, 0.5, 0.6], n0=20, n=60, estimator="estimator", experts=["classifier"] * 4
        ),
    }


def test_counts_do_not_depend_on_the_batch_size():
    reference, _ = run(network(), IMAGES[:6], single)
    for batch_size in (1, 7, 64):
        assert run(network(), IMAGES[:6], single, batch_size=batch_size)[0] == reference


def test_counts_do_not_depend_on_the_company():
    together, _ = run(network(), IMAGES, single)
    for i in (0, 17, 49):
        assert run(network(), IMAGES[i : i + 1], single)[0][0] == together[i]
    assert run(network(), IMAGES.flip(0), single)[0][::-1] == together


def test_counts_do_not_depend_on_procedures_that_share_votes():
    shared, _ = run(network(), IMAGES[:4], several)
    for name in several():
        alone, _ = run(network(), IMAGES[:4], lambda name=name: {name: several()[name]})
        assert [certificates[name] for certificates in alone] == [certificates[name] for certificates in shared]


def test_shared_votes_are_computed_once():
    recorder = Recorder()
    _, engine = run(recorder, IMAGES[:1], lambda: {"a": certify(0.5, n0=30, n=200), "b": predict(0.5, n=100)})
    assert engine.stats["classifier"].votes == 230


def test_the_seed_and_nothing_else_changes_counts():
    first, _ = run(network(), IMAGES[:3], single, seed=1)
    torch.manual_seed(99)
    assert run(network(), IMAGES[:3], single, seed=1)[0] == first
    assert run(network(), IMAGES[:3], single, seed=2)[0] != first


@pytest.mark.parametrize("make", [TorchBackend, lambda net: OnnxBackend(export_onnx(net, IMAGES[:32]))])
def test_a_row_has_the_same_logits_wherever_it_stands(make):
    backend = make(network())
    batch = IMAGES[:32]
    reference = backend.logits(batch)
    for seed in range(5):
        order = torch.randperm(32, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(backend.logits(batch[order]), reference[order])
    alone = torch.zeros_like(batch)
    alone[9] = batch[9]
    assert torch.equal(backend.logits(alone)[9], reference[9])


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4), (70_001,)])
def test_noisy_copies_are_x_plus_sigma_times_the_keyed_block_in_order(shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(3))
    recorder, sigma, votes = Recorder(), 0.3, 2 * block_rows(shape) + 3
    engine = Engine(lambda name, s: recorder, batch_size=50)
    list(engine.run([Job("x", x, {"a": ask(VoteRequest("m", sigma, votes - 1), VoteRequest("m", sigma, 1))}, seed=4)]))
    key = NoiseKey(4, input_digest(x), "m", sigma)
    blocks = np.concatenate([standard_normal_block(key, b, shape).numpy() for b in range(4)])
    expected = x.numpy() + np.float32(sigma) * blocks[:votes]
    found = torch.cat([batch[:50] for batch in recorder.batches])
    np.testing.assert_array_equal(found[:votes].numpy(), expected)


def test_no_vote_is_used_twice_and_every_vote_asked_for_is_counted():
    """The counts of successive requests are those of successive, disjoint stretches of the keyed noise."""
    x, sizes = torch.tensor([1.0]), (100, 1, 9_000, 37)
    ask.answers.clear()
    backend = Recorder(classes=3)
    requests = [VoteRequest("m", sigma, size) for size in sizes for sigma in (0.7, 0.4)]
    list(
        Engine(lambda name, shape: backend, batch_size=64).run(
            [Job("x", x, {"a": ask(*requests), "b": ask(*requests[3:])})]
        )
    )
    for answers, asked in zip(sorted(ask.answers, key=len), (requests[3:], requests), strict=True):
        cursor = Counter()
        for votes, request in zip(answers, asked, strict=True):
            start = cursor[request.sigma]
            cursor[request.sigma] += request.count
            key = NoiseKey(0, input_digest(x), "m", request.sigma)
            blocks = torch.cat([standard_normal_block(key, b, (1,)) for b in range(4)])
            noisy = x + request.sigma * blocks[start : start + request.count]
            expected = np.bincount(noisy[:, 0].round().clamp(0, 2).int().numpy(), minlength=3)
            assert votes.sum() == request.count
            assert np.abs(votes - expected).sum() <= 2  # rounding at the border of two classes


def test_every_noisy_copy_is_evaluated_once():
    recorders = {"classifier": Recorder(), "estimator": Recorder()}
    engine = Engine(lambda name, shape: recorders[name], batch_size=64)
    list(engine.run(Job(i, x, several()) for i, x in enumerate(IMAGES[:5])))
    for name, recorder in recorders.items():
        # The rest of a batch is drawn ahead of its streams, so no row is a copy of another.
        rows = [tuple(row.flatten().tolist()) for row in recorder.rows]
        assert len(set(rows)) == len(rows) >= engine.stats[name].votes


def test_models_and_noise_levels_have_independent_noise():
    recorders = {"a": Recorder(), "b": Recorder()}
    engine = Engine(lambda name, shape: recorders[name], batch_size=40)
    x = torch.zeros(3)
    list(engine.run([Job(0, x, {"p": ask(*[VoteRequest(m, s, 40) for m in "ab" for s in (1.0, 2.0)])})]))
    stretches = [recorders[m].batches[i] / (i + 1) for m in "ab" for i in (0, 1)]
    for i, first in enumerate(stretches):
        for second in stretches[:i]:
            assert (first == second).sum() == 0


def test_batches_are_full_when_there_are_many_inputs():
    xs = torch.rand((300, 4), generator=torch.Generator().manual_seed(0))
    certificates, engine = run(Recorder(), xs, lambda: {"a": certify(0.5, n0=13, n=101)}, batch_size=128)
    stats = engine.stats["classifier"]
    assert stats.votes == sum(certificate["a"].samples for certificate in certificates)
    assert stats.fill_rate > 0.99
    assert stats.slots % 128 == 0
    assert stats.seconds_per_vote > 0


def test_padding_is_never_counted():
    """Zeros would be voted class 0; x itself is far within class 3."""
    x = torch.tensor([50.0])
    (found,), engine = run(Recorder(), x[None], lambda: {"a": certify(0.1, n0=3, n=20)}, batch_size=500)
    assert [stage.counts for stage in found["a"].stages] == [(0, 0, 0, 3), (0, 0, 0, 20)]
    assert engine.stats["classifier"].fill_rate == 23 / 500


@pytest.mark.parametrize("procedures", [1, 2])
def test_one_input_alone_fills_batches_with_the_votes_it_will_ask_for_next(procedures):
    """Every request of a sequential procedure would else cost a batch of its own."""
    x, sizes = torch.tensor([1.0]), (10, 30, 7, 1, 52, 100)
    backend = Recorder(classes=3)
    engine = Engine(lambda name, s: backend, batch_size=128)
    jobs = {str(i): ask(*(VoteRequest("m", 2.0, size) for size in sizes)) for i in range(procedures)}
    ask.answers.clear()
    list(engine.run([Job(0, x, jobs)]))
    assert engine.stats["m"].slots == 256
    assert engine.stats["m"].votes == 200
    answers = list(ask.answers)
    ask.answers.clear()
    list(Engine(lambda name, s: backend, batch_size=128).run([Job(0, x, {"a": ask(VoteRequest("m", 2.0, 200))})]))
    ((whole,),) = ask.answers
    assert len(answers) == procedures
    for counts in answers:
        assert [count.sum() for count in counts] == list(sizes)
        assert (sum(counts) == whole).all()


def test_the_backend_may_insist_on_its_batch_size():
    backend = Recorder()
    backend.batch_size = 16
    found, _ = run(backend, IMAGES[:3], single)
    assert {len(batch) for batch in backend.batches} == {16}
    assert found == run(Recorder(), IMAGES[:3], single)[0]


def test_rows_with_nan_count_for_no_class():
    def base(batch):
        logits = torch.cat([batch, -batch], dim=1)
        logits[batch[:, 0] > 1, 1] = float("nan")
        return logits

    ask.answers.clear()
    x = torch.tensor([0.5])
    list(Engine(lambda n, s: CallableBackend(base)).run([Job(0, x, {"a": ask(VoteRequest("m", 0.5, 4000))})]))
    (((votes,)),) = ask.answers
    key = NoiseKey(0, input_digest(x), "m", 0.5)
    noisy = x + 0.5 * standard_normal_block(key, 0, (1,))[:4000, 0]
    assert votes.tolist() == [int(((noisy > 0) & (noisy <= 1)).sum()), int((noisy <= 0).sum())]
    assert votes.sum() < 4000


def test_all_nan_abstains():
    backend = CallableBackend(lambda batch: torch.full((len(batch), 3), float("nan")))
    (found,), _ = run(backend, IMAGES[:1], single)
    assert found["answer"].abstained
    assert found["answer"].stages[0].invalid == 30


def test_many_classes_are_counted_right():
    classes = 70_000

    def base(batch):
        logits = torch.zeros((len(batch), classes))
        logits[:, 65_535] = 1.0
        return logits

    ask.answers.clear()
    engine = Engine(lambda n, s: CallableBackend(base), batch_size=8)
    list(engine.run([Job(0, torch.zeros(1), {"a": ask(VoteRequest("m", 1.0, 10))})]))
    ((votes,),) = ask.answers
    assert votes.shape == (classes,)
    assert votes[65_535] == 10


def test_an_input_that_changes_while_votes_are_drawn_is_certified_as_it_was_given():
    memory = torch.zeros(1)

    def jobs():
        for value in (0.0, 1.0, 2.0):
            memory.fill_(value)
            yield Job(value, memory, {"a": certify(0.01, n0=5, n=20)})

    found = {r.key: r.outcomes["a"].certificate for r in Engine(lambda n, s: Recorder(), batch_size=200).run(jobs())}
    assert {key: certificate.label for key, certificate in found.items()} == {0.0: 0, 1.0: 1, 2.0: 2}


def test_a_base_that_works_in_place_on_its_input_is_harmless_if_it_is_a_fixed_function():
    def base(batch):
        batch.mul_(2).sub_(1)
        return torch.cat([batch, -batch], dim=1)

    xs = torch.tensor([[0.4], [0.55]])
    found, _ = run(CallableBackend(base), xs, single, batch_size=64)
    expected, _ = run(CallableBackend(lambda b: torch.cat([b * 2 - 1, 1 - b * 2], dim=1)), xs, single, batch_size=64)
    assert found == expected


def test_inputs_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"one shape: the first has \(4,\), input 1 has \(5,\)"):
        run(Recorder(), [torch.zeros(4), torch.zeros(5)], single)


def test_a_job_without_procedures_is_refused():
    with pytest.raises(ValueError, match="no procedures"):
        run(Recorder(), [torch.zeros(4)], dict)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_impossible_batch_sizes_are_refused(batch_size):
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        Engine(lambda n, s: Recorder(), batch_size=batch_size)


def test_a_wrong_number_of_outputs_is_refused():
    engine = Engine(lambda n, s: Recorder(classes=3), outputs={"classifier": 10})
    with pytest.raises(ValueError, match=r"'classifier' gave logits of shape \(256, 3\).*expected \(256, 10\)"):
        list(engine.run([Job(0, torch.zeros(2), single())]))


def test_a_random_base_is_refused_before_any_vote():
    backend = CallableBackend(lambda batch: torch.rand(len(batch), 3))
    with pytest.raises(NotAFixedFunctionError):
        run(backend, IMAGES[:1], single)


class Counting:
    """Makes a backend count its calls, and may turn it random."""

    calls, broken = 0, False

    def logits(self, batch):
        self.calls += 1
        logits = super().logits(batch)
        return torch.rand_like(logits) if self.broken else logits


class CountingOnnx(Counting, OnnxBackend):
    pass


class CountingTorch(Counting, TorchBackend):
    pass


class CountingCallable(Counting, CallableBackend):
    pass


FIXED = {
    "onnx": lambda: CountingOnnx(export_onnx(network(), IMAGES[:32])),
    "folded": lambda: CountingTorch(network(), name="torch folded"),
}
CHANGEABLE = {"torch": lambda: CountingTorch(network()), "callable": lambda: CountingCallable(network())}


@pytest.mark.parametrize("make", FIXED.values(), ids=FIXED)
def test_what_stays_as_it_is_is_checked_once_and_at_the_price_of_one_batch(make):
    backend = make()
    calls = []
    for _ in range(3):
        before = backend.calls
        run(backend, IMAGES[:1], lambda: {"a": predict(0.5, n=96)}, batch_size=32)
        calls.append(backend.calls - before)
    assert calls == [4, 3, 3]


@pytest.mark.parametrize("make", CHANGEABLE.values(), ids=CHANGEABLE)
def test_what_others_can_change_is_checked_in_every_run(make):
    backend = make()
    for runs in (1, 2, 3):
        run(backend, IMAGES[:1], lambda: {"a": predict(0.5, n=96)}, batch_size=32)
        assert backend.calls == 4 * runs
    backend.broken = True
    with pytest.raises(NotAFixedFunctionError):
        run(backend, IMAGES[:1], single, batch_size=32)


def test_another_shape_of_batch_and_another_backend_are_checked_anew():
    backend = FIXED["folded"]()
    for batch_size in (32, 96):  # in one row alone nothing could be seen that depends on the others
        before = backend.calls
        run(backend, IMAGES[:1], lambda: {"a": predict(0.5, n=96)}, batch_size=batch_size)
        assert backend.calls - before == 96 // batch_size + 1
    other = FIXED["folded"]()
    other.broken = True
    with pytest.raises(NotAFixedFunctionError):
        run(other, IMAGES[:1], single, batch_size=32)


def test_what_failed_its_check_is_checked_again():
    backend = FIXED["folded"]()
    backend.broken = True
    for _ in range(2):
        with pytest.raises(NotAFixedFunctionError):
            run(backend, IMAGES[:1], single, batch_size=32)


def test_models_that_share_a_backend_share_its_check():
    backend = FIXED["folded"]()
    engine = Engine(lambda name, shape: backend, batch_size=32)
    list(engine.run([Job(0, IMAGES[0], {"p": ask(VoteRequest("a", 1.0, 32), VoteRequest("b", 1.0, 32))})]))
    assert backend.calls == 3


@pytest.mark.parametrize("make", [*FIXED.values(), *CHANGEABLE.values()], ids=[*FIXED, *CHANGEABLE])
def test_the_votes_of_the_first_batch_are_those_of_the_checked_logits(make):
    backend = make()
    first, again = (run(backend, IMAGES[:1], single, batch_size=32)[0] for _ in range(2))
    assert first == again
    key = NoiseKey(0, input_digest(IMAGES[0]), "classifier", 0.5)
    noisy = IMAGES[0] + 0.5 * standard_normal_block(key, 0, IMAGES[0].shape)[:32]
    expected = np.bincount(TorchBackend(network()).logits(noisy).argmax(dim=1)[:30], minlength=4)
    assert first[0]["answer"].stages[0].counts == tuple(expected)


def test_backends_that_no_set_can_hold_are_taken():
    class Unhashable(Recorder):
        __slots__ = ()
        __hash__ = None

    assert run(Unhashable(), IMAGES[:1], single)[0] == run(Recorder(), IMAGES[:1], single)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_of_equal_logits_the_first_gets_the_vote(dtype):
    class Tied(Recorder):
        def logits(self, batch):
            return torch.tensor([0, 2, 1, 2, 2], dtype=dtype).repeat(len(batch), 1)

    (found,), _ = run(Tied(), IMAGES[:1], single)
    assert found["answer"].stages[1].counts == (0, 200, 0, 0, 0)


def test_the_arithmetic_that_a_backend_says_it_runs_in_is_recorded():
    made = TorchBackend(network(), precision="bfloat16")
    for backend, precision in ((made, "bfloat16"), (Recorder(), "its own")):
        assert run(backend, IMAGES[:1], single)[1].stats["classifier"].precision == precision


def test_jobs_are_taken_up_lazily_and_results_come_early():
    taken = count()
    position = 0

    def jobs():
        nonlocal position
        while True:  # endless: an engine that collects its jobs first would never answer
            position = next(taken) + 1
            yield Job(position, torch.rand(4), {"a": certify(0.5, n0=10, n=200)})

    batch_size, largest = 64, 0
    results = Engine(lambda n, s: Recorder(), batch_size=batch_size).run(jobs())
    for finished in range(200):
        next(results)
        largest = max(largest, position - finished)
    assert largest <= batch_size + 1


def test_so_many_jobs_are_taken_up_at_once_whatever_they_ask_for():
    def jobs():
        for key in range(40):
            taken.append(key)
            yield Job(key, torch.rand(4), {"a": certify(0.5, n0=10, n=10_000)})

    finished = {}
    for at_once in (1, 16):
        taken = []
        engine = Engine(lambda n, s: Recorder(), batch_size=64, at_once=at_once)
        results = engine.run(jobs())
        next(results)
        finished[at_once] = len(taken)
        results.close()
    assert finished[1] < 16 <= finished[16] <= 18
    with pytest.raises(ValueError, match="at_once"):
        Engine(lambda n, s: Recorder(), at_once=0)


def test_a_model_that_few_ask_waits_for_none_where_somebody_waits_for_every_job(monkeypatch):
    monkeypatch.setattr(engine_module, "_PATIENCE", 4)

    def jobs():
        for key in range(64):
            model = "rare" if key == 5 else "common"
            yield Job(key, torch.rand(4), {"a": in_slices(certify(0.5, n0=10, n=2000, model=model), 16)})

    places = {}
    for at_once in (1, 16):
        engine = Engine(lambda n, s: Recorder(), batch_size=64, at_once=at_once)
        places[at_once] = [result.key for result in engine.run(jobs())].index(5)
    assert places[16] < 20
    assert places[1] > 40


def in_slices(procedure, rows):
    request = next(procedure)
    while True:
        counts = 0
        for start in range(0, request.count, rows):
            counts = counts + (yield VoteRequest(request.model, request.sigma, min(rows, request.count - start)))
        try:
            request = procedure.send(counts)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_results_before_an_interruption_are_kept(error):
    class Failing(Recorder):
        def logits(self, batch):
            if len(self.batches) == 60:
                raise error
            return super().logits(batch)

    kept = []

    def collect():
        engine = Engine(lambda n, s: Failing(), batch_size=64)
        for result in engine.run(Job(i, x, single()) for i, x in enumerate(IMAGES)):
            kept.append(result)

    with pytest.raises(error):
        collect()
    complete = {r.key: r.outcomes["answer"].certificate for r in kept}
    assert 10 <= len(complete) < 50
    reference, _ = run(Recorder(), IMAGES, single)
    assert all(reference[key]["answer"] == certificate for key, certificate in complete.items())


def test_a_consumer_may_stop_early():
    results = Engine(lambda n, s: Recorder(), batch_size=64).run(Job(i, x, single()) for i, x in enumerate(IMAGES))
    first = next(results)
    results.close()
    assert run(Recorder(), IMAGES, single)[0][first.key]["answer"] == first.outcomes["answer"].certificate


def test_errors_of_a_procedure_pass_through():
    def broken():
        yield VoteRequest("m", 1.0, 5)
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        run(Recorder(), IMAGES[:1], lambda: {"a": broken()})


def test_a_procedure_may_ask_for_very_many_votes_that_are_there_already():
    requests = [VoteRequest("m", 1.0, 1)] * 5000
    ask.answers.clear()
    job = Job(0, torch.zeros(1), {"all": ask(VoteRequest("m", 1.0, 5000)), "each": ask(*requests)})
    list(Engine(lambda n, s: Recorder(), batch_size=1000).run([job]))
    totals = [sum(answers).tolist() for answers in ask.answers]
    assert totals[0] == totals[1]


def test_procedures_that_ask_for_nothing_are_complete_at_once():
    (found,), engine = run(Recorder(), IMAGES[:1], lambda: {"a": ask(), "b": ask()})
    assert set(found) == {"a", "b"}
    assert engine.stats == {}


def test_outcomes_keep_the_order_of_the_procedures_and_price_them():
    engine = Engine(lambda n, s: Recorder(), batch_size=64)
    (result,) = engine.run([Job("x", IMAGES[0], several())])
    assert list(result.outcomes) == list(several())
    stats = engine.stats["classifier"]
    assert result.outcomes["answer"].seconds == pytest.approx(230 * stats.seconds_per_vote, rel=0.9)
    assert all(outcome.seconds > 0 for outcome in result.outcomes.values())


class Weighing:
    """A base classifier that always answers 1, and records how much memory its engine holds while it works."""

    batch_size = None
    name, device = "weighing", "cpu"

    def __init__(self):
        self.most = 0
        self._answers = {}

    def logits(self, batch):
        self.most = max(self.most, tracemalloc.get_traced_memory()[0])
        if len(batch) not in self._answers:
            self._answers[len(batch)] = torch.tensor([[0.0, 1.0]]).repeat(len(batch), 1)
        return self._answers[len(batch)]


def memory_at(n, procedures):
    backend = Weighing()
    engine = Engine(lambda name, shape: backend, batch_size=4096)
    tracemalloc.start()
    try:
        list(engine.run([Job(0, torch.zeros(1), {str(i): certify(0.5, n=n) for i in range(procedures)})]))
    finally:
        tracemalloc.stop()
    return backend.most


def test_memory_does_not_grow_with_the_votes_of_a_single_procedure():
    memory_at(1_000, 1)  # what is made once
    assert memory_at(1_000_000, 1) < memory_at(50_000, 1) + 50_000


def test_memory_of_shared_votes_is_a_byte_each():
    memory_at(1_000, 2)
    assert memory_at(1_000_000, 2) < memory_at(50_000, 2) + 950_000 + 50_000


def test_streams_of_finished_jobs_are_dropped():
    inputs, alive = [], []

    class Watching(FloatNoise):
        def check(self, x):
            values = super().check(x)
            inputs.append(weakref.ref(values))  # jobs and their streams alone hold it
            return values

    class Looking(Recorder):
        def logits(self, batch):
            alive.append(sum(values() is not None for values in inputs))
            return super().logits(batch)

    backend = Looking()
    engine = Engine(lambda name, shape: backend, batch_size=64, noise=Watching())
    for _ in engine.run(Job(i, x, several()) for i, x in enumerate(IMAGES)):
        pass
    assert len(inputs) == len(IMAGES)
    assert 1 <= max(alive) <= 10
    assert not any(values() is not None for values in inputs)


@pytest.mark.parametrize("classes", [2, 127, 128, 129, 40_000])
def test_kept_votes_are_counted_over_any_stretch(classes):
    generator = np.random.default_rng(0)
    votes = generator.integers(-1, classes, 40_000).astype(np.int32)
    votes[:2] = -1, classes - 1
    kept, running = KeptVotes(), RunningVotes()
    for start in range(0, len(votes), 777):
        kept.append(votes[start : start + 777], classes)
        running.append(votes[start : start + 777], classes)
    for start, stop in [(0, 40_000), (0, 1), (1, 2), (16_383, 16_385), (5, 5), (10_000, 39_999)]:
        part = votes[start:stop]
        np.testing.assert_array_equal(kept.counts(start, stop), np.bincount(part[part >= 0], minlength=classes))
    np.testing.assert_array_equal(running.counts(0, 40_000), kept.counts(0, 40_000))


def test_no_thread_outlives_a_run():
    before = threading.active_count()
    results = Engine(lambda n, s: Recorder(), batch_size=64).run(Job(i, x, single()) for i, x in enumerate(IMAGES))
    next(results)
    assert threading.active_count() > before
    results.close()
    assert threading.active_count() == before
