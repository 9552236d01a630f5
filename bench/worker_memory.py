"""Memory of a worker that carries no weights: teacher and perturbed validator on a server, recordings in flight.

    python bench/worker_memory.py [--in-flight 1,16]

Each row is a fresh process with everything a worker imports, labeling stretches of the measuring data's long recordings
(../shared/data/public) through `k2d serve teacher` on loopback: examine, label, cut, FLAC, distances, shards. Resident
memory before the work, and its peak.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import soundfile
from serving import DATA, recordings, server

from k2d.client.embedded import Embedded
from k2d.documents import BatchOptions
from k2d.schema import SAMPLE_RATE_HZ
from k2d.settings import Settings, load


def work(address: str, folder: str, in_flight: int) -> tuple[float, float]:
    """MB before, MB at the peak."""
    import tritonclient.grpc.aio  # noqa: F401 — as if Triton were called

    import services.filter.worker  # noqa: F401 — what a worker has in memory

    before = resident_mb()
    settings = Settings(store=f"{folder}/lake", teacher=address, concurrency=in_flight, _env_file=None)
    Embedded(settings).label([f"{folder}/audio"], BatchOptions(), wait=True, on_status=lambda _: None)
    return before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--in-flight", default="1,16")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"the measuring data is not at {DATA}")
    with server("http", load()) as (address, _):
        print("in flight   MB before   MB at the peak")
        for in_flight in map(int, arguments.in_flight.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "audio").mkdir()
                for number, held in enumerate(recordings(64)[:in_flight]):
                    soundfile.write(f"{folder}/audio/{number}.flac", held.held, SAMPLE_RATE_HZ)
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                    before, peak = pool.submit(work, address, folder, in_flight).result()
            print(f"{in_flight:9}   {before:9.0f}   {peak:14.0f}", flush=True)


if __name__ == "__main__":
    main()
