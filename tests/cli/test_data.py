import json


def test_data_list(run):
    code, out, _ = run("data", "list", "--json")
    assert code == 0
    assert {"cifar10", "fashion-mnist", "fashion-mnist-sample"} <= {info["name"] for info in json.loads(out)}
