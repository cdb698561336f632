import importlib.util
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from dualrs.evaluation import load_run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")]
DRIVE = Path(__file__).with_name("drive.py")
KILLS = ["worker"] * 13 + ["node"] * 4 + ["driver"] * 4


def workers():
    """The processes of all workers on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            name = path.read_bytes()
        except OSError:
            continue
        if name.startswith(b"ray::Worker"):
            found.append(int(path.parent.name))
    return found


def kill(process):
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


class Driver:
    """A session of the run, in a process of its own."""

    def __init__(self, folder, address):
        command = [sys.executable, str(DRIVE), str(folder), address]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_for(self, results):
        """Waits until so many more inputs are finished; False if it ended before."""
        return all(self.process.stdout.readline() for _ in range(results))


def test_a_run_survives_kills_of_workers_nodes_and_drivers(cluster, tmp_path):
    """The final store equals that of an undisturbed run in one process, in every certificate."""
    chance, folder, pause = random.Random(0), tmp_path / "run", tmp_path / "pause"
    pause.touch()
    kills = KILLS.copy()
    chance.shuffle(kills)
    done, drivers = [], [Driver(folder, cluster.address)]
    while True:
        alive = drivers[-1].wait_for(chance.randrange(1, 12))
        if not alive:
            if drivers[-1].process.wait() == 0:
                break
            drivers.append(Driver(folder, cluster.address))  # it went down with the node that it was connected to
        elif kills:
            victim, hit = kills[-1], False
            if victim == "driver":
                hit = kill(drivers[-1].process.pid)
                drivers[-1].process.communicate()
                drivers.append(Driver(folder, cluster.address))
            elif victim == "node":
                cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
                cluster.another()
                hit = True
            elif found := workers():
                hit = kill(chance.choice(found))
            done += [kills.pop()] if hit else []
            if not kills:
                pause.unlink()  # what is left may go fast
    assert len(done) >= 20, f"the run was over after {done}"
    spec = importlib.util.spec_from_file_location("drive", DRIVE)
    drive = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drive)
    alone = drive.certify(tmp_path / "alone")
    table = load_run(folder)
    assert_frame_equal(table.drop("seconds"), alone.table.drop("seconds"))
    assert len(table.unique(["idx", "method"])) == len(table)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        path.name for path in (tmp_path / "alone").iterdir()
    )
