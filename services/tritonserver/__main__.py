"""`python -m services.tritonserver teacher validator`: what the GPU image runs; it needs no command-line packages."""

import sys

from k2d.errors import K2DError
from k2d.logs import setup
from k2d.settings import load
from services.tritonserver.foreground import GRPC_PORT, HTTP_PORT, METRICS_PORT, run


def main(models: list[str]) -> int:
    """Serve `models` (default: the teacher) on Triton's usual ports; returns the exit status, 1 when it fails."""
    try:
        settings = load()
        setup(settings)
        run(
            settings,
            models=models or ["teacher"],
            grpc_port=GRPC_PORT,
            http_port=HTTP_PORT,
            metrics_port=METRICS_PORT,
        )
    except K2DError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
