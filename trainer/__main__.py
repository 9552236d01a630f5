"""`python -m trainer` is `k2d train`, for launchers: `torchrun -m trainer …`, `accelerate launch -m trainer …`."""

import sys

from k2d.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
