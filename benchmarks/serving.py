"""The service under more load than it can bear: 200 clients for two minutes, on this machine alone.

Every certificate that was answered is found again offline, from the seed on its record. Throughput is compared with
that of the library on the same images and options, measured before and after, because the machine's speed changes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

RECORD = Path(__file__).resolve().parent / "results" / "serving.json"
CLIENTS, SECONDS, N, IMAGES = 200, 120.0, 1000, 100
OFFLINE = 40  # images of each of the two measurements of the library
TARGETS = {"throughput": 0.9, "healthz_p99": 0.1, "memory_growth": 0.05}


@contextmanager
def server() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A process that serves, and its address."""
    command = [sys.executable, "-m", "dualrs.cli", "serve", "fashion-mnist", "--port", "0", "--waiting", "64"]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stderr=log) as process:
        address = None
        while address is None:
            time.sleep(0.2)
            log.seek(0)
            lines = [json.loads(line) for line in log.read().splitlines() if line.endswith(b"}")]
            address = next((line["address"] for line in lines if "address" in line), None)
        try:
            yield process, address
        finally:
            process.terminate()


@dataclass
class Seen:
    """What clients saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    answers: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


async def load(address: str, process: int, files: list[bytes], clients: int, seconds: float) -> Seen:
    """Has so many clients ask again and again, each for another image; who is sent away comes back when it is told."""
    seen, until = Seen(), time.monotonic() + seconds

    async def client(number: int) -> None:
        # Nothing is encrypted on the loopback; reading the certificates of authorities 200 times would take seconds.
        async with httpx.AsyncClient(base_url=address, timeout=300, verify=False) as session:
            turn = number
            while time.monotonic() < until:
                index, turn, started = turn % len(files), turn + clients, time.monotonic()
                try:
                    response = await session.post(
                        "/v1/certify", files={"image": files[index]}, data={"n": N, "mode": "full"}
                    )
                except httpx.HTTPError as error:
                    seen.errors[type(error).__name__] += 1
                    continue
                seen.statuses[response.status_code] += 1
                if response.status_code == 200:
                    seen.answers.append((index, response.json()["record"]))
                    seen.seconds.append(time.monotonic() - started)
                elif response.status_code == 429:
                    await asyncio.sleep(float(response.headers["retry-after"]))

    async def probe() -> None:
        async with httpx.AsyncClient(base_url=address, timeout=60, verify=False) as session:
            while time.monotonic() < until:
                started = time.perf_counter()
                assert (await session.get("/healthz")).status_code == 200
                seen.health.append(time.perf_counter() - started)
                seen.memory.append(_resident(process))
                await asyncio.sleep(0.1)

    await asyncio.gather(probe(), *(client(number) for number in range(clients)))
    return seen


def _resident(process: int) -> int:
    """Bytes of memory that a process has."""
    fields = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * 4096


def offline(model: Any, xs: list[Any]) -> float:
    """Votes per second of the library on the same images and options."""
    started = time.perf_counter()
    certificates = model.certify_batch(xs, n=N)
    return float(sum(certificate.samples for certificate in certificates) / (time.perf_counter() - started))


def measure(clients: int, seconds: float) -> dict[str, Any]:
    """All of it."""
    from io import BytesIO

    from PIL import Image

    import dualrs
    from dualrs.data import open_dataset
    from dualrs.serving import verify

    data, model = open_dataset("fashion-mnist-sample", "test"), dualrs.load("fashion-mnist")
    xs = [data.image(i) for i in range(IMAGES)]
    files = []
    for x in xs:
        file = BytesIO()
        Image.fromarray((255 * x[0]).round().byte().numpy()).save(file, "PNG")
        files.append(file.getvalue())
    offline(model, xs[:8])  # which warms it up
    before = offline(model, xs[:OFFLINE])
    with server() as (process, address):
        httpx.post(f"{address}/v1/certify", files={"image": files[0]}, data={"n": N}, timeout=60)
        started = time.monotonic()
        seen = asyncio.run(load(address, process.pid, files, clients, seconds))
        wall = time.monotonic() - started
        ended = httpx.get(f"{address}/readyz").status_code
    after = offline(model, xs[:OFFLINE])
    votes = sum(stage["trials"] for _, record in seen.answers for stage in record["certificates"]["routed"]["stages"])
    same = sum(verify(record, model, xs[index]).verified for index, record in seen.answers)
    settled = seen.memory[len(seen.memory) // 4 :]  # backends and buffers are made in the beginning
    half = len(settled) // 2
    return {
        "settings": {
            "clients": clients,
            "seconds": seconds,
            "n": N,
            "model": "fashion-mnist",
            "waiting": 64,
            "active": 32,
        },
        "wall_seconds": wall,
        "statuses": {str(status): count for status, count in sorted(seen.statuses.items())},
        "errors": dict(seen.errors),
        "answered": len(seen.answers),
        "found_again_offline": same,
        "latency_seconds": {"median": statistics.median(seen.seconds), "largest": max(seen.seconds)},
        "votes_per_second": votes / wall,
        "offline_votes_per_second": [before, after],
        "throughput": votes / wall / statistics.mean([before, after]),
        "healthz_seconds": {
            "median": statistics.median(seen.health),
            "p99": sorted(seen.health)[int(0.99 * len(seen.health))],
            "largest": max(seen.health),
        },
        "memory_bytes": {"first": settled[0], "last": settled[-1], "largest": max(settled)},
        "memory_growth": statistics.mean(settled[half:]) / statistics.mean(settled[:half]) - 1,
        "ready_in_the_end": ended == 200,
    }


def main() -> None:
    """Measures and keeps the record."""
    from record import machine, write

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args()
    found = measure(options.clients, options.seconds)
    print(json.dumps(found, indent=1))
    write(RECORD, {"targets": TARGETS, **found, "machine": machine()})


if __name__ == "__main__":
    main()
