import pytest

from dualrs.config import ConfigError
from dualrs.evaluation.config import CertifyConfig, evenly_spaced, load_certify_config

GOOD = {"model": "fashion-mnist", "data": "fashion-mnist-sample", "output": "runs/x"}


def test_inputs_are_spread_evenly_over_the_data_set():
    assert evenly_spaced(4, 10) == [0, 2, 5, 7]
    assert evenly_spaced(20, 3) == [0, 1, 2]
    assert CertifyConfig(**GOOD).indices(5) == [0, 1, 2, 3, 4]
    assert CertifyConfig(**GOOD, skip=4).indices(10) == [0, 4, 8]
    assert CertifyConfig(**GOOD, images=2).indices(10) == [0, 5]


def test_fields_given_elsewhere_override_those_of_the_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: a\ndata: b\noutput: c\nn: 7\n")
    config = load_certify_config(path, n=9, data="d")
    assert (config.model, config.data, config.n) == ("a", "d", 9)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("images: 3\nskip: 2", "give images or skip, not both"),
        ("alpha: 0", r"alpha: Input should be greater than 0 \(given: 0\)"),
        ("n: many", r"n: .*integer.* \(given: 'many'\)"),
        ("sigma: 1", r"sigma: unknown field \(value 1\); known here: .*alpha"),
    ],
)
def test_errors_name_field_and_value(tmp_path, line, message):
    path = tmp_path / "run.yaml"
    path.write_text(f"model: a\ndata: b\noutput: c\n{line}\n")
    with pytest.raises(ConfigError, match=message):
        load_certify_config(path)
