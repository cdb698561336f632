import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualrs.certificates import Certificate, Route, StageCounts, VoteRequest, run_procedure

SELECTION = StageCounts("selection", "classifier", 0.5, (90, 8), 100, None)
ESTIMATION = StageCounts("estimation", "classifier", 0.5, (9586, 400), 10_000, 0.001)
CERTIFICATE = Certificate(3, 0.830493, 0.5, 0.001, "cohen", (SELECTION, ESTIMATION))
ROUTES = (Route(0.5, 0.0, 0.830493, "wide"), Route(0.5, 0.9, None, "deep"))
ABSTENTION = Certificate(None, 0.0, None, 0.001, "min", (SELECTION,), estimator_radius=0.0)


class TestVoteRequest:
    def test_holds_plain_numbers(self):
        request = VoteRequest("classifier", np.float64(0.5), np.int64(100))
        assert request == VoteRequest("classifier", 0.5, 100)
        assert (type(request.sigma), type(request.count)) == (float, int)

    def test_is_frozen(self):
        with pytest.raises(FrozenInstanceError):
            VoteRequest("classifier", 0.5, 100).count = 3

    @pytest.mark.parametrize("sigma", [0.0, -1.0, float("inf"), float("nan")])
    def test_refuses_impossible_noise(self, sigma):
        with pytest.raises(ValueError, match="sigma must be positive and finite, got"):
            VoteRequest("classifier", sigma, 100)

    def test_refuses_no_votes(self):
        with pytest.raises(ValueError, match="count must be at least 1, got 0"):
            VoteRequest("classifier", 0.5, 0)

    @pytest.mark.parametrize("count", [1.0, True, "1"])
    def test_refuses_counts_that_are_not_integers(self, count):
        with pytest.raises(TypeError, match="count must be an integer, got"):
            VoteRequest("classifier", 0.5, count)


class TestStageCounts:
    def test_counts_the_invalid_votes(self):
        assert (SELECTION.invalid, ESTIMATION.invalid) == (2, 14)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"counts": (90, 11)}, r"counts 101 votes \(90, 11\) but drew only 100"),
            ({"counts": (90, -1)}, "every count must be at least 0, got -1"),
            ({"counts": ()}, "one entry per class"),
            ({"trials": 0}, "trials must be at least 1"),
            ({"level": 1.0}, "level is a failure probability"),
            ({"sigma": 0.0}, "sigma must be positive"),
        ],
    )
    def test_refuses_what_cannot_have_been_counted(self, change, message):
        with pytest.raises(ValueError, match=message):
            replace(SELECTION, **change)


class TestCertificate:
    def test_knows_its_cost_and_whether_it_answers(self):
        assert (CERTIFICATE.samples, CERTIFICATE.abstained) == (10_100, False)
        assert (ABSTENTION.samples, ABSTENTION.abstained) == (100, True)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"label": None}, "its radius must be 0, got 0.83"),
            ({"label": -1}, "label must be at least 0, got -1"),
            ({"radius": float("inf")}, "radius must be finite and at least 0, got inf"),
            ({"radius": float("nan")}, "radius must be finite and at least 0, got nan"),
            ({"radius": -0.1}, "radius must be finite and at least 0, got -0.1"),
            ({"alpha": 0.0}, "alpha is a failure probability"),
            ({"sigma": -1.0}, "sigma must be positive"),
            ({"estimator_radius": float("inf")}, "estimator_radius must be finite"),
            ({"classifier_radius": -1.0}, "classifier_radius must be finite"),
        ],
    )
    def test_refuses_what_it_cannot_promise(self, change, message):
        with pytest.raises(ValueError, match=message):
            replace(CERTIFICATE, **change)

    def test_refuses_a_label_that_is_no_class(self):
        with pytest.raises(TypeError, match=r"label must be an integer, got 3\.0"):
            replace(CERTIFICATE, label=3.0)

    @pytest.mark.parametrize(
        "certificate",
        [
            CERTIFICATE,
            ABSTENTION,
            replace(CERTIFICATE, estimator_radius=0.9, classifier_radius=0.830493),
            replace(CERTIFICATE, expert="wide", routes=ROUTES),
        ],
    )
    def test_survives_json(self, certificate):
        fields = certificate.to_dict()
        through_json = json.loads(json.dumps(fields))
        assert through_json == fields
        assert Certificate.from_dict(through_json) == certificate

    def test_records_that_do_not_say_who_answered_can_be_read(self):
        certificate = replace(CERTIFICATE, expert="wide", routes=ROUTES)
        fields = certificate.to_dict()
        del fields["expert"]
        for route in fields["routes"]:
            del route["expert"]
        read = Certificate.from_dict(fields)
        assert (read.expert, [route.expert for route in read.routes]) == (None, [None, None])
        assert replace(read, expert="wide", routes=ROUTES) == certificate

    def test_from_dict_checks_the_fields(self):
        with pytest.raises(ValueError, match="radius must be finite"):
            Certificate.from_dict({**CERTIFICATE.to_dict(), "radius": float("nan")})
        with pytest.raises(TypeError, match="confidence"):
            Certificate.from_dict({**CERTIFICATE.to_dict(), "confidence": 0.999})
        with pytest.raises(TypeError, match="stages"):
            Certificate.from_dict({k: v for k, v in CERTIFICATE.to_dict().items() if k != "stages"})

    def test_reads_as_one_line(self):
        assert str(CERTIFICATE) == "label 3, certified radius 0.8304 at σ=0.5 (α=0.001, 10100 samples)"
        assert str(ABSTENTION) == "abstained (α=0.001, 100 samples)"
        alone = replace(CERTIFICATE, radius=0.0)
        assert str(alone) == "label 3 for this input alone at σ=0.5 (α=0.001, 10100 samples)"
        unknown = replace(CERTIFICATE, sigma=None)
        assert str(unknown) == "label 3, certified radius 0.8304 (α=0.001, 10100 samples)"

    @given(st.floats(1e-300, 1e6))
    def test_never_prints_more_than_was_proved(self, radius):
        printed = float(str(replace(CERTIFICATE, radius=radius)).split()[4])
        assert printed <= radius < printed + 1.1e-4


class TestRunProcedure:
    def test_hands_over_answers_and_returns_the_certificate(self):
        seen = []

        def procedure():
            seen.append((yield VoteRequest("a", 0.5, 1)))
            seen.append((yield VoteRequest("b", 0.5, 2)))
            return ABSTENTION

        certificate = run_procedure(procedure(), lambda request: np.array([request.count]))
        assert certificate is ABSTENTION
        assert [votes.tolist() for votes in seen] == [[1], [2]]

    def test_an_answer_that_runs_dry_is_no_certificate(self):
        def procedure():
            yield VoteRequest("a", 0.5, 1)
            return ABSTENTION

        def dry(_request):
            raise StopIteration

        with pytest.raises(StopIteration):
            run_procedure(procedure(), dry)
