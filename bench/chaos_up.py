"""`k2d up` for the chaos run: as it is, but its workers miss a killed one after seconds instead of half a minute.

python bench/chaos_up.py --workers 2 --port 8090
"""

import sys
from functools import partial

from k2d.cli import main
from services.commands import up
from services.local.stack import Stack

WORKER_OPTIONS = ("--heartbeat-s", "1", "--grace-s", "2", "--maintenance-s", "1", "--idle-ttl-s", "16")

if __name__ == "__main__":
    up.Stack = partial(Stack, worker_options=WORKER_OPTIONS)  # type: ignore[misc, assignment]
    sys.argv[1:1] = ["up"]
    main()
