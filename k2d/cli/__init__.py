"""The `k2d` command."""

import io
import sys

from k2d.cli.base import app
from k2d.cli.show import err, fail
from k2d.errors import K2DError


def main() -> None:
    """Run the command line. An error is printed as one message with its hint, not as a traceback."""
    for stream in (sys.stdout, sys.stderr):  # names of files may have bytes that are not UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    from k2d.cli import commands  # noqa: F401 - registers them with `app`

    try:
        app()
    except K2DError as error:
        sys.exit(fail(error))
    except BrokenPipeError:  # `k2d chunks … | head`
        sys.stderr.close()
        sys.exit(141)
    except KeyboardInterrupt:
        err.print("stopped; what was written before is kept: the same command begins again")
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - the command line's boundary
        sys.exit(fail(error))
