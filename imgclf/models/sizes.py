"""How large the networks of the table are: kept in a file, since to build them all takes minutes.

`python -m imgclf.models.sizes` adds to the file what is not in it, and takes out what is gone;
with names, these are worked out anew.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from imgclf.models.columns import aligned
from imgclf.models.table import TABLE, entry

_FILE = Path(__file__).with_name("sizes.csv")
CLASSES = 1000
"""For so many classes the sizes are kept."""


def kept() -> dict[str, tuple[int, int]]:
    """Parameters and multiply-adds of an image of its own size, by the network's name."""
    rows = (line.split(",") for line in _FILE.read_text().splitlines())
    return {name: (int(parameters), int(products)) for name, parameters, products in rows}


def listing(names: Sequence[str], num_classes: int = CLASSES) -> list[str]:
    """A line for each name: parameters, multiply-adds and size of one image; first a heading."""
    known = kept() if num_classes == CLASSES else {}
    rows = [("network", "parameters", "GMACs", "size")]
    for name in names:
        parameters, products = known.get(name) or _worked_out(name, num_classes)
        side = entry(name).preprocess.size or entry(name).minimum_size
        rows.append((name, f"{parameters:,}", f"{products / 1e9:.3f}", f"{side}"))
    return aligned(rows, "<>>>")


def _worked_out(name: str, num_classes: int) -> tuple[int, int]:
    from imgclf.models import create
    from imgclf.models.summary import sizes_of

    return sizes_of(create(name, num_classes))


if __name__ == "__main__":
    found = {name: sizes for name, sizes in kept().items() if name not in sys.argv[1:]}
    for name in TABLE.keys() - found.keys():
        found[name] = _worked_out(name, CLASSES)
        print(name, *found[name])
    lines = [f"{name},{found[name][0]},{found[name][1]}\n" for name in TABLE]
    _FILE.write_text("".join(lines))
