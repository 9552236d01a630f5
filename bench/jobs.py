"""Wall and CPU seconds of many small jobs: a work horse that keeps its models, and a new one for each job.

    python bench/jobs.py [--jobs 10] [--rounds 2]

Each job labels one clip of 3.5 s (greedily, not rescored, one thread) with packaged:whisper-base in the worker's horse,
from a queue in a Redis of its own. The two take turns, so that other load on the machine meets both.
"""

import argparse
import io
import os
import resource
import subprocess
import sys
import tempfile
import wave
from pathlib import Path
from typing import Final

from k2d.documents import BatchOptions
from k2d.inference.golden import clips
from k2d.labeling.request import make_batch
from k2d.schema import SAMPLE_RATE_HZ, Samples, Source
from k2d.settings import load
from k2d.store import Lake
from services.filter import jobs
from services.local.redis_server import EmbeddedRedis

KINDS: Final = {"kept": 1_000_000, "new for each job": 1}  # jobs that a horse does

# a worker's own process, which has imported no more than a worker does
_WORK: Final = """
import sys, time
from k2d.settings import load
from services.filter.horse import HorseLimits
from services.filter.redis_url import connect
from services.filter.worker import Worker
started = time.monotonic()
limits = HorseLimits(jobs=int(sys.argv[1]))
Worker(connect(load()), horse_limits=limits).work(burst=True, logging_level="WARNING")
print(time.monotonic() - started, file=sys.stderr)
"""


def wav(samples: Samples) -> io.BytesIO:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE_HZ)
        out.writeframes(samples.tobytes())
    file.seek(0)
    return file


def seconds(store: str, redis_url: str, *, count: int, horse_jobs: int) -> tuple[float, float]:
    """Label `count` clips, a job each, in a new store; returns wall and CPU time of the worker and its processes."""
    os.environ |= {
        "K2D_STORE": store,
        "K2D_REDIS_URL": redis_url,
        "K2D_GROUP_S": "1",
        "K2D_THREADS": "1",
        "K2D_BEAM_SIZE": "1",
        "K2D_RESCORE": "false",
    }
    settings, lake = load(), Lake(store)
    speech = clips()[0].samples
    uploads = [lake.uploads.put(wav(speech[number:])) for number in range(count)]  # each other bytes
    sources = [Source(f"{number}.wav", uri, sha256, size) for number, (uri, sha256, size) in enumerate(uploads)]
    batch = make_batch(sources, BatchOptions(), settings)
    lake.batches.put(batch)
    assert jobs.plan_batch(batch.id) == count
    command = [sys.executable, "-c", _WORK, str(horse_jobs)]
    cpu_before_s = cpu_s()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    assert len(lake.batches.result_positions(batch.id)) == count, done.stderr
    return float(done.stderr.split()[-1]), cpu_s() - cpu_before_s


def cpu_s() -> float:
    """CPU seconds of the processes that have ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    print("horse              wall s   CPU s   CPU s a job")
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis(Path(folder) / "redis") as server:
        for number in range(arguments.rounds):
            for kind, horse_jobs in KINDS.items():
                store = f"{folder}/{number}-{horse_jobs}"
                wall_s, used_s = seconds(store, server.url, count=arguments.jobs, horse_jobs=horse_jobs)
                print(f"{kind:17}{wall_s:8.1f}{used_s:8.1f}{used_s / arguments.jobs:14.2f}", flush=True)


if __name__ == "__main__":
    main()
