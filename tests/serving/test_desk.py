import secrets
import threading
import time

import pytest
import torch

from dualrs.serving import Limits
from dualrs.serving.desk import BusyError, ClosedError, Desk, InputError
from dualrs.serving.ticket import Asked, Ending, Ticket


def ticket(x, n=1000, *, rules=("routed",), anytime=False, seconds=60.0, seed=None, **options):
    asked = Asked(rules, {"n0": 100, "n": n, "alpha": 0.001, **options}, anytime)
    return Ticket(x, asked, secrets.randbits(63) if seed is None else seed, time.monotonic() + seconds)


@pytest.fixture
def open_desk(build_model):
    desks = []

    def start(model=None, **limits):
        desks.append(Desk(build_model() if model is None else model, Limits(grace=0.5, **limits)))
        desks[-1].open()
        return desks[-1]

    yield start
    for desk in desks:
        desk.close()


def test_certificates_are_those_of_the_model_alone(open_desk, build_model, image):
    desk, model = open_desk(), build_model()
    images = [image, 1 - image, torch.full_like(image, 0.5), *torch.rand(9, *image.shape)]
    tickets = [ticket(x, n=200 + 100 * i, rules=("routed", "min")) for i, x in enumerate(images)]
    for asked, future in zip(tickets, desk.admit(tickets), strict=True):
        for rule, certificate in future.result(60).items():
            assert certificate == model.certify(asked.x, seed=asked.seed, rule=rule, n=asked.asked.options["n"])
        assert asked.latest["routed"].label == future.result()["routed"].label
    assert desk.under_way == 0


def test_certificates_at_any_time_are_those_that_are_watched(open_desk, build_model, image):
    desk, shown = open_desk(), []
    (future,) = desk.admit([asked := ticket(image, anytime=True, tolerance=0.0, target=None)])
    certificate = build_model().certify(image, seed=asked.seed, n=1000, watch=lambda seen: bool(shown.append(seen)))
    assert future.result(60)["routed"] == certificate == shown[-1]
    assert len(shown) > 3


def test_a_small_request_does_not_wait_for_large_ones(open_desk, image):
    desk = open_desk()
    large = desk.admit([ticket(x, n=100_000) for x in torch.rand(8, *image.shape)])
    desk.admit([ticket(image, n=200)])[0].result(60)
    assert not any(future.done() for future in large)


def test_what_nobody_wants_any_more_costs_less_than_a_batch(open_desk, image):
    desk = open_desk()
    (future,) = desk.admit([asked := ticket(image, n=1_000_000)])
    while not asked.votes:
        time.sleep(0.001)
    asked.end(Ending.CLIENT)
    before = sum(stats.slots for stats in desk.stats.values())
    assert future.result(60)["routed"].abstained
    assert sum(stats.slots for stats in desk.stats.values()) - before <= 2 * 64  # one may have been under way


def test_at_its_deadline_a_ticket_has_what_is_proved_by_then(open_desk, image):
    (future,) = open_desk().admit([asked := ticket(image, n=10**7, anytime=True, seconds=0.5)])
    certificate = future.result(60)["routed"]
    assert certificate.label == 0
    assert certificate.radius > 0
    assert asked.ending is Ending.DEADLINE


def test_who_comes_when_there_is_no_room_is_told_when_to_come_back(open_desk, image):
    desk = open_desk(active=2, waiting=1)
    tickets = [ticket(image, n=10**6) for _ in range(3)]
    futures = [desk.admit([each])[0] for each in tickets]
    with pytest.raises(BusyError) as error:
        desk.admit([ticket(image)])
    assert 1 <= error.value.retry_after <= 60
    for each in tickets:
        each.end(Ending.CLIENT)
    for future in futures:
        future.result(60)
    assert desk.admit([ticket(image)])[0].result(60)["routed"].label == 0


def test_a_batch_is_taken_whole_or_not_at_all(open_desk, image):
    desk = open_desk(active=2, waiting=2)
    first = desk.admit([ticket(image, n=10**6, seconds=1.0)])
    with pytest.raises(BusyError):
        desk.admit([ticket(image) for _ in range(4)])
    assert desk.under_way == 1
    first[0].result(60)
    assert len(desk.admit([ticket(image) for _ in range(9)])) == 9  # more than there is ever room for, when it is free


def test_closing_answers_what_is_under_way(open_desk, image):
    desk = open_desk()
    quick, slow = desk.admit([ticket(image, n=500), asked := ticket(image, n=10**7, anytime=True)])
    while not asked.latest:
        time.sleep(0.01)
    desk.close()
    assert quick.result(0)["routed"].label == 0
    assert slow.result(0)["routed"].label == 0
    assert asked.ending is Ending.SHUTDOWN
    with pytest.raises(ClosedError):
        desk.admit([ticket(image)])
    desk.close()  # again, without harm


class Fails(torch.nn.Module):
    """Fails where a corner is lit."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        if (x[:, 0, 0, 0] > 50).any():
            raise self.error
        return 8 * torch.stack([part.mean(1) for part in x.flatten(1).chunk(2, 1)], 1)


def lit(image):
    x = image.clone()
    x[0, 0, 0] = 100.0
    return x


def test_an_input_that_fails_takes_no_other_with_it(open_desk, build_model, image):
    desk = open_desk(build_model(Fails(ValueError("a secret path")).eval()))
    good, bad, other = desk.admit([ticket(image), ticket(lit(image)), ticket(1 - image)])
    assert good.result(60)["routed"].label == 0
    assert other.result(60)["routed"].label == 1
    with pytest.raises(InputError) as error:
        bad.result(60)
    assert "secret" not in str(error.value)
    assert desk.ready


def test_an_engine_that_fails_lets_nobody_wait(open_desk, build_model, image):
    desk = open_desk(build_model(Fails(MemoryError()).eval()))
    futures = desk.admit([ticket(image, n=10**6), ticket(lit(image))])
    for future in futures:
        with pytest.raises(ClosedError, match="MemoryError"):
            future.result(60)
    assert not desk.ready
    with pytest.raises(ClosedError):
        desk.admit([ticket(image)])


def test_a_model_must_say_what_it_takes(build_model):
    model = build_model()
    model.input = None
    with pytest.raises(ValueError, match=r"model\.input"):
        Desk(model, Limits())


@pytest.mark.parametrize("limit", [{"n": 0}, {"n": 10**7 + 1}, {"active": 0}, {"seconds": -1.0}, {"body": 0}])
def test_limits_make_sense(limit):
    with pytest.raises(ValueError, match=next(iter(limit))):
        Limits(**limit)


def test_a_client_that_stops_waiting_does_no_harm(open_desk, image):
    desk = open_desk()
    (future,) = desk.admit([ticket(image)])
    assert not future.cancel()
    assert future.result(60)["routed"].label == 0
    assert threading.active_count() < 50
