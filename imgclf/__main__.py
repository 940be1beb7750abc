"""`python -m imgclf` is the command `imgclf`."""

import sys

from imgclf.commands import main
from imgclf.memory import ask_for_huge_pages

COMPUTING = ("train", "evaluate", "predict")


def run() -> None:
    """Leaves with the command's status, without waiting for a failed save or a hanging thread."""
    if sys.argv[1:2] and sys.argv[1] in COMPUTING:
        ask_for_huge_pages()
    try:
        status = main()
    except SystemExit as left:  # for a signal
        if not isinstance(left.code, int):
            raise
        status = left.code
    mine = ("imgclf.training.checkpoints", "imgclf.data.workers")
    if any(getattr(sys.modules.get(name), "left_behind", False) for name in mine):
        from imgclf.training.cluster import place
        from imgclf.training.signals import leave_at_once

        if place()[1] == 1:  # where there are others, `imgclf.training.join` parts from them
            leave_at_once(status)
    sys.exit(status)


if __name__ == "__main__":
    run()
