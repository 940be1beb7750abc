"""Numbers of channels."""


def rounded(width: float, least: float = 0.9) -> int:
    """The nearest multiple of 8, but at least 8 and that share of `width`.

    >>> rounded(44.8), rounded(17.92), rounded(9.0), rounded(9.0, least=0.0)
    (48, 24, 16, 8)
    """
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < least * width else nearest
