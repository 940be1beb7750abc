"""How a peer, run by another interpreter, speaks to the benchmark."""

import json
import os
from collections.abc import Callable
from typing import Any


def answers() -> Callable[[dict[str, Any]], None]:
    """Writes lines of JSON; all else that is printed, by compilers too, goes to standard error."""
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(content: dict[str, Any]) -> None:
        lines.write(json.dumps(content) + "\n")
        lines.flush()

    return answer
