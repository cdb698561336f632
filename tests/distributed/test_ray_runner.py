import os
import signal

import pytest

from dualrs.distributed import RayRunner
from dualrs.sampling import Done, Failed, LocalRunner

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")]


@pytest.fixture
def runner(cluster):
    return RayRunner(address=cluster.address, workers=2)


def outcomes(runner, work, items):
    with runner.hire(work) as crew:
        found = list(crew.run(items))
        return {each.key: each for each in found}, crew, found


def squares(count):
    return {key: Done(key, key**2) for key in range(count)}


def test_results_are_those_of_one_process(runner, toys, tmp_path):
    found, crew, every = outcomes(runner, toys.Squaring(tmp_path), toys.items(500))
    assert found == outcomes(LocalRunner(), toys.Squaring(tmp_path), toys.items(500))[0] == squares(500)
    assert len(every) == 500
    assert crew.functions == {"squarer": {"device": "cpu"}}
    assert crew.stats["squarer"].votes >= 500  # a few were done twice


def test_a_crew_may_be_given_other_items_while_a_worker_is_still_at_those_before(runner, toys, tmp_path):
    with runner.hire(toys.Squaring(tmp_path, seconds=0.05)) as crew:
        assert {each.key: each for each in crew.run(toys.items(20))} == squares(20)
        assert {each.key: each for each in crew.run(toys.items(30))} == squares(30)


def test_killed_workers_are_replaced(runner, toys, tmp_path):
    with runner.hire(toys.Squaring(tmp_path, seconds=0.01)) as crew:
        found, killed = [], set()
        for each in crew.run(toys.items(400)):
            found.append(each)
            if len(found) in (50, 100, 150):
                alive = {about["process"] for about in crew.record()["workers"]} - killed
                for pid in list(alive)[:1]:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
        record = crew.record()
    assert {each.key: each for each in found} == squares(400)
    assert len(found) == 400
    assert sum(record["lost_workers"].values()) == len(killed) > 0


def test_a_node_may_go_and_another_come(runner, cluster, toys, tmp_path):
    with runner.hire(toys.Squaring(tmp_path, seconds=0.01)) as crew:
        found = []
        for each in crew.run(toys.items(600)):
            found.append(each)
            if len(found) == 100:
                cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
            if len(found) == 200:
                cluster.another()
    assert {each.key: each for each in found} == squares(600)
    assert len(found) == 600


def test_a_worker_that_hangs_is_replaced(cluster, toys, tmp_path):
    runner = RayRunner(address=cluster.address, workers=1, patience=2.0)
    found, crew, _ = outcomes(runner, toys.Squaring(tmp_path, hanging=(5,)), toys.items(40))
    assert found == squares(40)
    (reason,) = crew.record()["lost_workers"]
    assert reason.startswith("it hung: nothing moved for")


def test_no_worker_is_waited_for_alone(runner, toys, tmp_path):
    """What a hanging worker is at, another does as soon as it has nothing else."""
    found, crew, _ = outcomes(runner, toys.Squaring(tmp_path, hanging=(5,)), toys.items(40))
    assert found == squares(40)
    assert not crew.record()["lost_workers"]


def test_an_input_that_always_fails_is_set_aside_with_its_traceback(runner, toys, tmp_path):
    found, _, _ = outcomes(runner, toys.Squaring(tmp_path, failing=(3, 17)), toys.items(30))
    assert {key for key, each in found.items() if isinstance(each, Failed)} == {3, 17}
    assert found[3].error == "ValueError: cannot square {3}"
    assert "_square" in found[3].traceback
    assert {key: found[key] for key in set(range(30)) - {3, 17}} == {
        key: each for key, each in squares(30).items() if key not in {3, 17}
    }


def test_an_input_that_kills_its_workers_is_given_up(runner, toys, tmp_path):
    found, _, _ = outcomes(runner, toys.Squaring(tmp_path, poison=(4,)), toys.items(12))
    assert [key for key, each in found.items() if isinstance(each, Failed)] == [4]
    assert "4 workers were lost" in found[4].error


def test_a_worker_that_is_out_of_memory_once_is_replaced(runner, toys, tmp_path):
    found, crew, _ = outcomes(runner, toys.Squaring(tmp_path, out_of_memory=1), toys.items(20))
    assert found == squares(20)
    assert list(crew.record()["lost_workers"]) == ["it raised OutOfMemoryError: of the GPU, 80 GiB are in use"]


def test_workers_that_are_always_out_of_memory_end_the_work_with_the_reason(cluster, toys, tmp_path):
    runner = RayRunner(address=cluster.address, workers=1, most_failures=2)
    with pytest.raises(RuntimeError, match=r"no worker is left.*80 GiB are in use"):
        outcomes(runner, toys.Squaring(tmp_path, out_of_memory=99), toys.items(20))


def test_workers_with_other_functions_take_no_part(cluster, toys, tmp_path):
    runner = RayRunner(address=cluster.address, workers=2, most_failures=1)
    with runner.hire(toys.Squaring(tmp_path, seconds=0.01, kinds=("cpu", "cuda"))) as crew:
        for found in crew.run(toys.items(100_000)):
            assert found.result == found.key**2
            if crew.record()["lost_workers"]:
                break
        (reason,) = crew.record()["lost_workers"]
    assert "other functions" in reason
    assert "cuda" in reason


def test_what_raises_while_items_are_read_passes_through(runner, toys, tmp_path):
    def broken():
        yield from toys.items(3)
        raise OSError("the disk of the images is gone")

    with pytest.raises(OSError, match="the disk of the images"):
        outcomes(runner, toys.Squaring(tmp_path), broken())


@pytest.mark.parametrize("argument", ["workers", "threads", "most_failures", "patience"])
def test_impossible_arguments_are_named(argument):
    with pytest.raises(ValueError, match=argument):
        RayRunner(**{argument: 0})
