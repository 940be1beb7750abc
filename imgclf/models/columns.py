"""Rows of text as columns."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """The rows as lines of equally wide columns; `sides` has < or > for each.

    >>> aligned([("cnn", "9"), ("resnet18", "10")], "<>")
    ['cnn        9', 'resnet18  10']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
