"""How long readiness takes, and how much memory the API, while clients do what they can to hold it.

    python bench/api_load.py [--listeners 300] [--sources 8] [--files 1000] [--recordings 2000] [--tree FOLDER]

Starts Redis and the API (one process, as `k2d up` and the container do) on loopback over an empty store, and asks for
/readyz on a new connection each time, ten times a second:

1. alone;
2. while `--listeners` follow the events of a batch of `--recordings`, that no worker works on;
3. while `--sources` requests name https sources on a host that accepts connections and then says nothing;
4. while twice as many connections as that send a byte of a request's head every second;
5. while one request uploads `--files` of 1 MB each.

The memory is the process's own peak (VmHWM), reset before each. `--tree` is another checkout to run instead.
"""

import argparse
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx

from k2d.documents import BatchOptions
from k2d.labeling.request import make_batch
from k2d.schema import Source
from k2d.settings import Settings
from k2d.store import Lake
from services.local.redis_server import EmbeddedRedis, free_port

MB = 1 << 20
EVERY_S = 0.1
MEASURED_S = 10.0
GUARD = "services.web.connection"


class Api:
    """The API as a process of its own."""

    def __init__(self, tree: Path, folder: Path, redis_url: str, hostile_port: int) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("K2D_")} | {
            "PYTHONPATH": str(tree),
            "K2D_STORE": str(folder / "lake"),
            "K2D_REDIS_URL": redis_url,
            "K2D_ALLOWED_SOURCES": f"https://127.0.0.1:{hostile_port}/",
            "K2D_LOG_LEVEL": "error",
        }
        guard = tree.joinpath(*GUARD.split(".")).with_suffix(".py").exists()
        command = [sys.executable, "-m", "uvicorn", "services.filter.app:create_app", "--factory", "--no-access-log"]
        command += ["--port", str(self.port), "--log-level", "error"]
        command += ["--http", f"{GUARD}:GuardedConnection"] if guard else []
        self.process = subprocess.Popen(command, env=environment, cwd=tree)
        while True:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    break
            if self.process.poll() is not None:
                raise SystemExit("the API did not start")
            time.sleep(0.2)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def reset_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def memory_mb(self, what: str) -> float:
        """`VmHWM`: the peak; `VmRSS`: now. In MB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def measure(api: Api, name: str, *, until: Callable[[], bool] | None = None) -> None:
    """Ask for readiness for MEASURED_S, or until something has happened; print the row."""
    latencies: list[float] = []
    failures = 0
    began = time.monotonic()
    while not until() if until else time.monotonic() - began < MEASURED_S:
        start = time.monotonic()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=60)
            connection.request("GET", "/readyz")
            failures += connection.getresponse().status != 200
            connection.close()
        except OSError:
            failures += 1
        latencies.append((time.monotonic() - start) * 1000)
        time.sleep(max(0.0, EVERY_S - latencies[-1] / 1000))
    latencies.sort()
    cells = [latencies[len(latencies) // 2], latencies[int(0.95 * (len(latencies) - 1))], latencies[-1]]
    shown = " | ".join(f"{cell:,.0f}" for cell in cells)
    print(f"| {name} | {shown} | {failures} of {len(latencies)} | {api.memory_mb('VmHWM'):.0f} |", flush=True)


@contextmanager
def listeners(api: Api, batch: str, count: int) -> Iterator[None]:
    """Connections that follow a batch's events and read all that comes."""
    request = f"GET /v1/batches/{batch}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    stop = threading.Event()
    clients: list[socket.socket] = []

    def read() -> None:
        while not stop.wait(0.5):
            for client in clients:
                with suppress(OSError):
                    client.recv(1 << 16, socket.MSG_DONTWAIT)

    reader = threading.Thread(target=read, daemon=True)
    try:
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", api.port))
            client.sendall(request)
            clients.append(client)
        reader.start()
        yield
    finally:
        stop.set()
        for client in clients:
            client.close()


@contextmanager
def hostile_requests(api: Api, port: int, count: int) -> Iterator[None]:
    """Requests, in threads, that let the API ask a host that never answers."""
    source = f"https://127.0.0.1:{port}/a.flac"

    def post() -> None:
        with suppress(httpx.HTTPError):
            httpx.post(f"{api.url}/v1/batches", json={"sources": [source]}, params={"dry_run": True}, timeout=120)

    threads = [threading.Thread(target=post, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    yield
    for thread in threads:
        thread.join()


@contextmanager
def slow_heads(api: Api, count: int) -> Iterator[None]:
    """Connections whose heads never end."""
    stop = threading.Event()
    clients = [socket.create_connection(("127.0.0.1", api.port)) for _ in range(count)]

    def trickle() -> None:
        while True:
            for client in clients:
                with suppress(OSError):
                    client.sendall(b"G")
            if stop.wait(1.0):
                return

    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    yield
    stop.set()
    for client in clients:
        client.close()


def upload(api: Api, files: int) -> None:
    """One request with many files of 1 MB, none of which this process holds either."""
    boundary = "a-boundary"

    def body() -> Iterator[bytes]:
        for number in range(files):
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{number:05d}.wav"\r\n\r\n'
            yield head.encode()
            yield number.to_bytes(8, "big") + bytes(MB - 8)
            yield b"\r\n"
        yield f"--{boundary}--\r\n".encode()

    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    began = time.monotonic()
    answer = httpx.post(f"{api.url}/v1/batches", content=body(), headers=headers, timeout=httpx.Timeout(600))
    print(f"  (upload: {answer.status_code} after {time.monotonic() - began:.1f} s)")


def big_batch(folder: Path, recordings: int) -> str:
    """A batch whose recordings have no result."""
    lake = Lake(str(folder / "lake"))
    sources = [Source(f"talk-{n}.flac", f"file:///talks/{n}.flac", f"key{n}", 1) for n in range(recordings)]
    batch = make_batch(sources, BatchOptions(name="listened"), Settings(_env_file=None))
    lake.batches.put(batch)
    return batch.id


@contextmanager
def silent_host() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        yield server.getsockname()[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listeners", type=int, default=300)
    parser.add_argument("--sources", type=int, default=8)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--recordings", type=int, default=2000)
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[1])
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(silent_host())
        redis = stack.enter_context(EmbeddedRedis(folder / "redis"))
        batch = big_batch(folder, options.recordings)
        api = Api(options.tree.resolve(), folder, redis.url, port)
        stack.callback(api.stop)
        print("| /readyz, ms | median | 95 % | longest | failed | peak, MB |\n|---|---|---|---|---|---|")
        measure(api, "alone")
        api.reset_peak()
        with listeners(api, batch, options.listeners):
            measure(api, f"{options.listeners} listeners")
        time.sleep(2)
        api.reset_peak()
        with hostile_requests(api, port, options.sources):
            measure(api, f"{options.sources} sources that do not answer")
        api.reset_peak()
        with slow_heads(api, 2 * options.sources):
            measure(api, f"{2 * options.sources} heads that do not end")
        api.reset_peak()
        posting = threading.Thread(target=upload, args=(api, options.files))
        posting.start()
        measure(api, f"an upload of {options.files:,} × 1 MB", until=lambda: not posting.is_alive())


if __name__ == "__main__":
    main()
