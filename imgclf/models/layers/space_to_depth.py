"""Places of an image as channels."""

import jax

from imgclf.errors import UserError


def space_to_depth(x_bhwc: jax.Array, block: int) -> jax.Array:
    """Squares of `block` x `block` px as single places: (b, h / block, w / block, block**2 * c).

    The channels of a place are those of its pixels in turn, row by row. Raises a `UserError` where
    `block` does not divide the height and the width.

    >>> space_to_depth(jax.numpy.arange(8).reshape(1, 2, 4, 1), 2).tolist()
    [[[[0, 1, 4, 5], [2, 3, 6, 7]]]]
    """
    batch, height, width, channels = x_bhwc.shape
    if height % block or width % block:
        raise UserError(
            f"The `block` of `space_to_depth` (={block}) must divide the height and width of "
            f"images; got {height} x {width} px"
        )
    rows, columns = height // block, width // block
    x = x_bhwc.reshape(batch, rows, block, columns, block, channels).swapaxes(2, 3)
    return x.reshape(batch, rows, columns, block * block * channels)
