"""`python -m imgclf` is the command `imgclf`."""

import sys

from imgclf.commands import main


def run() -> None:
    """Leaves with the command's status, without waiting for threads of a save that failed."""
    status = main()
    checkpoints = sys.modules.get("imgclf.training.checkpoints")
    if getattr(checkpoints, "left_behind", False):
        from imgclf.training.cluster import place
        from imgclf.training.signals import leave_at_once

        if place()[1] == 1:  # where there are others, `imgclf.training.join` parts from them
            leave_at_once(status)
    sys.exit(status)


if __name__ == "__main__":
    run()
