import jax
import jax.numpy as jnp
import pytest

from imgclf import models

KEY = jax.random.key(0)


def test_weights_by_formula_give_timms_answers(same_as_reference):
    same_as_reference("gernet_s")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gernet_s", {"design": (("basic", 1, 8, 2), ("basic", 1, 8, 2)), "stem_width": 8}),
        ("regnetx_002", {"depths": (1, 1), "widths": (8, 8), "stem_width": 8}),
        ("repvgg_a0", {"depths": (1, 1), "widths": (8, 8), "stem_width": 8}),
    ],
)
def test_a_stride_over_a_single_place_keeps_the_shortcut_that_it_has_elsewhere(name, options):
    module = models.create(name, 5, **options).module

    def made(side):
        images = jnp.ones((1, side, side, 3))
        return jax.tree.structure(jax.eval_shape(lambda: module.init(KEY, images, train=False)))

    assert made(2) == made(32)
