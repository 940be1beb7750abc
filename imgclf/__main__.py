"""`python -m imgclf` is the command `imgclf`."""

import os
import sys

from imgclf.commands import main


def run() -> None:
    """Leaves with the command's status, without waiting for threads of a save that failed."""
    status = main()
    checkpoints = sys.modules.get("imgclf.training.checkpoints")
    if getattr(checkpoints, "left_behind", False):
        from imgclf.training.cluster import place

        if place()[1] == 1:  # where there are others, `imgclf.training.join` parts from them
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    run()
