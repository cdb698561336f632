import copy
import json

import pytest
import torch

from dualrs.serving import input_on_record, verify
from dualrs.serving.messages import CertifyOptions


@pytest.fixture
def record(make_service, image):
    service = make_service(keep_inputs=True)
    options = CertifyOptions(n=1000, compare=["min"])
    ticket = service.ticket(image, options, 1e12)
    (future,) = service.desk.admit([ticket])
    outcome = future.result(60)
    record = service.answer(ticket, outcome, "1" * 16, options).record
    return json.loads(json.dumps(record))


def test_a_record_is_found_again(record, build_model, image):
    assert torch.equal(input_on_record(record), image)
    result = verify(record, build_model(), image, digest="0" * 64)
    assert result.verified
    assert result.same == {"routed": True, "min": True}
    assert result.remarks == ()


def test_another_radius_or_vote_is_noticed(record, build_model, image):
    for change in ("radius", "votes"):
        forged = copy.deepcopy(record)
        certificate = forged["certificates"]["min"]
        if change == "radius":
            certificate["radius"] *= 1.01
        else:
            certificate["stages"][0]["counts"] = [1, 99]
        result = verify(forged, build_model(), image)
        assert not result.verified
        assert result.same == {"routed": True, "min": False}


def test_another_seed_is_noticed(record, build_model, image):
    assert not verify({**record, "seed": str(int(record["seed"]) + 1)}, build_model(), image).verified


def test_another_input_model_or_noise_is_refused(record, build_model, image):
    with pytest.raises(ValueError, match="another input"):
        verify(record, build_model(), image * 0.999)
    with pytest.raises(ValueError, match="another model"):
        verify(record, build_model(), image, digest="1" * 64)
    with pytest.raises(ValueError, match="noise on record"):
        verify(record, build_model(generator="shake256"), image)


def test_a_base_classifier_that_runs_otherwise_is_remarked_on(record, build_model, image):
    result = verify(record, build_model(batch_size=32), image)
    assert result.verified
    assert "batch_size" in result.remarks[0]


@pytest.mark.parametrize(
    "damage",
    [
        {"format": 9},
        {"certificates": {}},
        {"certificates": None},
        {"asked": {"rules": ["routed"], "options": {}}},
        {"asked": {"rules": ["routed", "min"], "options": {"time_budget": 1.0}}},
        {"seed": None},
        {"input": {}},
    ],
)
def test_a_damaged_record_is_refused(record, build_model, image, damage):
    with pytest.raises(ValueError, match="record"):
        verify({**record, **damage}, build_model(), image)
    with pytest.raises(ValueError, match="record"):
        verify({name: value for name, value in record.items() if name != "functions"}, build_model(), image)
