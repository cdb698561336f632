import importlib.util
import os
import sys
from pathlib import Path

import pytest

# Ray takes 127.0.0.1 for a name of the machine's public address, unless it is told that it is not to serve others.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 — or whatever else the machine does would come first


@pytest.fixture(scope="session")
def toys():
    """The module `toys`, of which workers in other processes get a copy."""
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    spec = importlib.util.spec_from_file_location("toys", Path(__file__).with_name("toys.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["toys"] = module
    spec.loader.exec_module(module)
    cloudpickle.register_pickle_by_value(module)
    return module


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two nodes with a processor each, both on this machine and on no network."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**head, "node_ip_address": "127.0.0.1"})
    cluster.another = lambda: cluster.add_node(num_cpus=1, object_store_memory=100 << 20, node_ip_address="127.0.0.1")
    cluster.another()
    yield cluster
    ray.shutdown()
    cluster.shutdown()
