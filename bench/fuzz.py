"""Attacks both APIs and the decoder with generated, mutated and hostile input, and counts what must not happen.

    python bench/fuzz.py [--requests 5000] [--bodies 1000] [--files 600] [--seed 0]

Real servers on loopback with a real Valkey, and a model with random weights. Requests are made by schemathesis from the
OpenAPI descriptions, half of them invalid; bodies are broken multipart, JSON and YAML; files are audio in the formats
that PyAV writes, with flipped bits, cut off, spliced, with extreme header fields, and with up to 64 channels. Faults:
an answer of 5xx, an answer that the description does not have, an exception of the decoder that is no AudioError. A
crash of the child that decodes is allowed. The same seed sends the same; the first input of each fault is saved.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fuzz_outcomes import Outcomes


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=5000, help="generated from the descriptions of both APIs")
    parser.add_argument("--bodies", type=int, default=1000, help="hostile requests to both APIs")
    parser.add_argument("--files", type=int, default=600, help="mutated audio files")
    parser.add_argument("--seed", type=int, default=0, help="the same seed sends the same")
    parser.add_argument(
        "--model", default="tiny", help="of the inference server: tiny, none (never ready), or a folder"
    )
    parser.add_argument("--out", type=Path, default=Path("fuzz-failures"), help="folder for inputs that fail")
    asked = parser.parse_args(arguments)
    print(f"seed {asked.seed}\n{'':24} {'sent':>8} {'5xx':>6} {'faults':>8}", flush=True)
    faults = 0
    for outcomes in _runs(asked):
        print(outcomes.table(), flush=True)
        faults += outcomes.faults.total()
    if faults:
        print(f"{faults:,} faults; the first input of each is in {asked.out}")
    return int(faults > 0)


def _runs(asked: argparse.Namespace) -> Iterator[Outcomes]:
    if asked.files:
        import fuzz_audio

        yield fuzz_audio.run(files=asked.files, seed=asked.seed, folder=asked.out)
    if not asked.requests and not asked.bodies:
        return
    import fuzz_bodies
    import fuzz_servers

    # three of four requests go to the labeling API, which has most endpoints
    shares = ((0.75, fuzz_servers.labeling_api), (0.25, fuzz_servers.inference_api))
    with tempfile.TemporaryDirectory(prefix="k2d-fuzz-") as folder:
        for number, (share, serve) in enumerate(shares):
            here = Path(folder, str(number))
            here.mkdir()
            model: tuple[str | None, ...] = ()
            if serve is fuzz_servers.inference_api:
                named = fuzz_servers.tiny_model(here) if asked.model == "tiny" else asked.model
                model = (None if named == "none" else named,)
            with serve(here, *model) as api:
                if asked.requests:
                    import fuzz_requests

                    wanted = round(asked.requests * share)
                    yield fuzz_requests.run(api, requests_wanted=wanted, seed=asked.seed, folder=asked.out)
                if asked.bodies:
                    wanted = round(asked.bodies * share)
                    yield fuzz_bodies.run(api, bodies=wanted, seed=asked.seed, folder=asked.out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
