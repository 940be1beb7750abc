"""Mixtures: whose pixels, how many, and labels in proportion."""

import functools

import jax
import numpy as np
import pytest
import scipy.stats

from imgclf.augmentation import Cutmix, Mixup, MixupOrCutmix, compose
from imgclf.augmentation.mixing import _beta

N, SIDE = 400, 12
# Image i is of the one grey level i % 199 + 1, so that a pixel says whose it is.
LEVELS = (np.arange(N) % 199 + 1).astype(np.uint8)
BATCH = {
    "image": np.broadcast_to(LEVELS[:, None, None, None], (N, SIDE, SIDE, 1)).copy(),
    "label": np.arange(N, dtype=np.int32),
}
SHARES = jax.jit(jax.vmap(_beta, (0, None)))


@functools.cache
def mixed(kind, seed=0):
    result = jax.jit(compose((kind,), N))(jax.random.key(seed), BATCH, np.float32(0))
    return np.asarray(result["image"])[..., 0], np.asarray(result["label"])


def label_share(label):
    rows = np.arange(N)
    own, other = label[rows, rows], label[rows, rows - 1]
    np.testing.assert_allclose(own + other, 1, rtol=1e-6)
    return own


def own_pixels(image):
    own = image == LEVELS[:, None, None]
    assert (own | (image == np.roll(LEVELS, 1)[:, None, None])).all()
    return own


def test_mixup_mixes_pixels_and_labels_by_one_share():
    image, label = mixed(Mixup(alpha=0.5))
    share = label_share(label)
    expected = share * LEVELS + (1 - share) * np.roll(LEVELS, 1)
    np.testing.assert_allclose(image, expected[:, None, None].repeat(SIDE, 1).repeat(SIDE, 2), 1e-4)


@pytest.mark.parametrize("alpha", [0.01, 0.2, 0.5, 0.8, 1.0, 3.0, 1e4])
def test_shares_follow_the_beta_distribution(alpha):
    keys = jax.random.split(jax.random.key(0), 20_000)
    shares = np.asarray(SHARES(keys, alpha))
    assert ((shares >= 0) & (shares <= 1)).all()
    for bound in (0.001, 0.01, 0.1, 0.3, 0.495, 0.5, 0.505, 0.7, 0.9, 0.99, 0.999):
        below = scipy.stats.beta(alpha, alpha).cdf(bound)
        assert abs((shares < bound).mean() - below) < 4 * (0.25 / len(keys)) ** 0.5


def test_mixup_draws_its_shares_from_that_distribution():
    shares = label_share(mixed(Mixup(alpha=0.5))[1])
    assert scipy.stats.kstest(shares, scipy.stats.beta(0.5, 0.5).cdf).pvalue > 1e-3


def test_cutmix_pastes_one_rectangle_and_labels_say_its_area():
    image, label = mixed(Cutmix())
    own = own_pixels(image)
    np.testing.assert_allclose(label_share(label), own.mean((1, 2)), rtol=1e-6)
    for pasted in ~own:
        rows, columns = pasted.any(1).nonzero()[0], pasted.any(0).nonzero()[0]
        if len(rows):
            assert pasted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


def test_rectangles_of_cutmix_reach_every_pixel_and_most_sizes():
    own = own_pixels(mixed(Cutmix())[0])
    assert ((~own).mean(0) > 0.05).all()
    assert len(np.unique((~own).sum((1, 2)))) > 20


def test_switch_chooses_between_the_two_and_p_leaves_the_rest():
    def whole_and_flat(kind):
        image, label = mixed(kind)
        flat = (image == image[:, :1, :1]).all((1, 2))
        untouched = label_share(label) == 1
        return untouched.mean(), (flat & ~untouched).mean()

    untouched, blended = whole_and_flat(MixupOrCutmix(p=0.6, switch=0.5))
    # A rectangle of no or of all pixels, or a share that rounds to 1, passes for another kind.
    assert 0.3 < untouched < 0.55
    assert 0.2 < blended < 0.42
    assert whole_and_flat(MixupOrCutmix(switch=0.0))[1] > 0.95
    assert whole_and_flat(MixupOrCutmix(switch=1.0))[1] < 0.1


@pytest.mark.parametrize("kind", [Mixup(0.8, each="batch"), Cutmix(each="batch")], ids=str)
def test_one_draw_holds_for_the_whole_batch(kind):
    shares = label_share(mixed(kind)[1])
    assert np.ptp(shares) < 1e-6


def test_draws_of_examples_differ():
    assert len(np.unique(label_share(mixed(Mixup(alpha=1.0))[1]))) > N // 2


@pytest.mark.parametrize("n", [1, 3])
def test_lonely_and_odd_batches_mix_too(n):
    batch = {name: value[:n] for name, value in BATCH.items()}
    result = jax.jit(compose((Cutmix(),), N))(jax.random.key(0), batch, np.float32(0))
    np.testing.assert_allclose(result["label"].sum(-1), 1, rtol=1e-6)
    if n == 1:
        np.testing.assert_array_equal(result["image"], batch["image"])
