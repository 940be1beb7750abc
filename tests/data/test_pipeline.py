"""Batches: the same examples and pixels however many threads, workers and processes make them."""

import errno
import io
import multiprocessing
import re
import signal
import subprocess
import sys
import time
import types
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from PIL import Image

from imgclf.data import reader
from imgclf.data.decode import decode
from imgclf.data.geometry import Central, RandomResizedCrop, Squash
from imgclf.data.order import Order
from imgclf.data.pipeline import Problem, decode_all, evaluation_batches, train_batches
from imgclf.data.reader import generator
from imgclf.data.source import Source
from imgclf.errors import UserError
from imgclf.preprocess import PLAIN, Preprocess

SMALL = Preprocess(size=8, crop=0.875, interpolation="bilinear")


@dataclass(frozen=True)
class Numbered(Source):
    """Arrays filled with their index; some are unreadable."""

    n: int = 21
    bad: tuple[int, ...] = ()
    side: int = 4
    soft: bool = False

    def __len__(self):
        return self.n

    @property
    def classes(self):
        return ("even", "odd", "none")

    def labels(self):
        labels = np.arange(self.n, dtype=np.int32) % 2
        return np.eye(3, dtype=np.float32)[labels] if self.soft else labels

    def ids(self):
        return [f"number {i}" for i in range(self.n)]

    def read(self, i):
        if i in self.bad:
            raise FileNotFoundError(2, "No such file")
        return np.full((self.side, self.side, 1), i % 256, np.uint8)


@dataclass(frozen=True)
class Photos(Numbered):
    """Encoded noise of many sizes; some is cut short."""

    same: bool = False

    def read(self, i):
        height, width = (9, 7) if self.same else (9 + i % 5, 7 + i % 3)
        noise = np.random.default_rng(i).integers(0, 256, (height, width, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "JPEG", quality=95)
        return file.getvalue()[: 300 if i in self.bad else None]


def training(source, *, order=None, **changes):
    arguments: dict[str, Any] = {
        "batch_size": 8,
        "start": 0,
        "stop": 6,
        "geometry": RandomResizedCrop(),
        "preprocess": SMALL,
        "seed": 3,
    }
    order = order or Order(len(source), seed=1)
    with train_batches(source, order, **(arguments | changes)) as batches:
        return list(batches)


def evaluation(source, **changes):
    arguments: dict[str, Any] = {"batch_size": 8, "preprocess": SMALL}
    with evaluation_batches(source, **(arguments | changes)) as batches:
        return list(batches)


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys() == {"image", "label", "mask", "id", "problems"}
        assert one["problems"] == other["problems"]
        for name in ("image", "label", "mask", "id"):
            assert one[name].dtype == other[name].dtype and type(one[name]) is np.ndarray
            np.testing.assert_array_equal(one[name], other[name], name)


def joined(parts):
    """The global batches of which each process made a part."""
    return [
        {
            name: np.concatenate([part[name] for part in batch])
            if name != "problems"
            else [problem for part in batch for problem in part[name]]
            for name in batch[0]
        }
        for batch in zip(*parts, strict=True)
    ]


def test_a_training_batch_holds_the_examples_that_the_order_says():
    batches = training(Numbered(), geometry=Central(), preprocess=PLAIN)
    ids = Order(21, seed=1).ids(np.arange(48)).reshape(6, 8)
    for batch, expected in zip(batches, ids, strict=True):
        np.testing.assert_array_equal(batch["id"], expected)
        np.testing.assert_array_equal(batch["label"], expected % 2)
        np.testing.assert_array_equal(batch["image"][:, 3, 3, 0], expected)
        assert batch["image"].dtype == np.uint8 and batch["label"].dtype == np.int32
        assert batch["id"].dtype == np.int64 and batch["mask"].all() and not batch["problems"]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_start_in_the_middle_gives_what_would_have_come_there(threads):
    whole = training(Photos(bad=(2, 5)))
    assert_same(training(Photos(bad=(2, 5)), start=4, threads=threads), whole[4:])


@pytest.mark.parametrize("process_count", [2, 4])
def test_the_parts_of_all_processes_are_the_global_batch(process_count):
    source = Photos(bad=(0, 7, 20))
    layouts = [{"process_index": i, "process_count": process_count} for i in range(process_count)]
    assert_same(joined([training(source, **layout) for layout in layouts]), training(source))
    assert_same(joined([evaluation(source, **layout) for layout in layouts]), evaluation(source))


RECIPE = """
from dataclasses import dataclass
from functools import cached_property
import sys
import numpy as np
from imgclf.data.geometry import Geometry
from imgclf.data.source import Source, carried

class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} {two}")

@dataclass(frozen=True)
class Own(Source):
    n: int = 30
    broken: int = -1
    def __len__(self):
        return self.n
    @cached_property
    def classes(self):
        return ("low", "high")
    @carried
    def values(self):
        return np.arange(self.n, dtype=np.uint8)
    def labels(self):
        return (self.values > 9).astype(np.int32)
    def ids(self):
        return [str(i) for i in range(self.n)]
    def read(self, i):
        if i == self.broken:
            raise Unpicklable("so", "odd")
        if i % 3 == 1:
            raise OSError("gone")
        bridge = sys.modules.get("jax._src.xla_bridge")
        started = bridge is not None and bridge.backends_are_initialized()
        return np.full((5, 6, 1), self.values[i] + (200 if started else 0), np.uint8)

@dataclass(frozen=True)
class Jitter(Geometry):
    def __call__(self, image_hwc, preprocess, rng):
        noise = rng.integers(0, 9, (preprocess.size, preprocess.size, 1))
        return (image_hwc[:1, :1] + noise).astype(np.uint8)
"""


@pytest.fixture
def recipe():
    """A module as a person's recipe file becomes one: on no path that a worker could import."""
    module = types.ModuleType("recipe_of_a_person")
    sys.modules[module.__name__] = module
    exec(RECIPE, module.__dict__)
    cloudpickle.register_pickle_by_value(module)
    yield module
    cloudpickle.unregister_pickle_by_value(module)
    del sys.modules[module.__name__]


def test_workers_make_the_same_batches_of_a_persons_classes_and_start_no_jax_backend(recipe):
    changes = {"geometry": recipe.Jitter(), "batch_size": 4, "start": 3, "stop": 10, "threads": 1}
    for workers, process_count in ((1, 2), (2, 1)):
        changes |= {"process_index": process_count - 1, "process_count": process_count}
        expected = training(recipe.Own(), **changes)
        found = training(recipe.Own(), workers=workers, **changes)
        assert all((batch["image"] < 200).all() for batch in found), "a worker started jax"
        assert sum(len(batch["problems"]) for batch in found)
        assert_same(found, [batch | {"image": batch["image"] % 200} for batch in expected])
        memory = [Path("/dev/shm", batch["image"].base.shm.name) for batch in found]
        del found
        _wait_until_gone(memory)
        assert not multiprocessing.active_children()


def _wait_until_gone(files):
    deadline = time.monotonic() + 20
    while any(file.exists() for file in files) and time.monotonic() < deadline:
        time.sleep(0.01)  # Grain frees shared memory in a thread of its own
    assert not [file for file in files if file.exists()]


def test_an_error_in_a_worker_arrives_and_is_not_waited_for(recipe):
    source = recipe.Own(broken=7)
    with pytest.raises(RuntimeError, match="Unpicklable: so odd") as caught:
        training(source, workers=1, geometry=recipe.Jitter())
    assert re.search(r"raised for example 7 of `Own`: \w+", str(caught.value))


def test_a_pipeline_closed_early_or_not_begun_leaves_no_process():
    arguments: dict[str, Any] = {"batch_size": 4, "preprocess": SMALL}
    batches = evaluation_batches(Numbered(n=4000), workers=1, threads=1, **arguments)
    next(batches)
    assert multiprocessing.active_children()
    batches.close()
    assert not multiprocessing.active_children()
    with pytest.raises(StopIteration):
        next(batches)
    evaluation_batches(Numbered(), workers=1, **arguments).close()


def test_a_bad_record_gives_way_to_the_next_good_one_and_is_told_of():
    source = Photos(bad=(4, 5))
    order = Order(21, 0, shuffle=False)
    first = training(source, order=order, stop=1)[0]
    assert first["id"].tolist() == [0, 1, 2, 3, 6, 6, 6, 7]
    assert [(p.id, p.position) for p in first["problems"]] == [(4, 4), (5, 5)]
    assert first["problems"][0].name == "number 4" and "\n" not in first["problems"][0].reason
    assert first["mask"].all()
    np.testing.assert_array_equal(first["label"], first["id"] % 2)


@pytest.mark.parametrize("bad", [(), (2, 3, 20)])
def test_a_batch_greater_than_what_is_read_together_holds_what_small_ones_do(bad):
    small = training(Photos(bad=bad), batch_size=7, stop=30)
    (large,) = training(Photos(bad=bad), batch_size=210, stop=1)
    for name in ("image", "label", "id"):
        expected = np.concatenate([batch[name] for batch in small])
        np.testing.assert_array_equal(large[name], expected, name)
    assert large["problems"] == [problem for batch in small for problem in batch["problems"]]
    assert bool(large["problems"]) == bool(bad)


@dataclass(frozen=True)
class Damaged(Numbered):
    """Photographs, of which the first is cut short, and the second damaged near its lower edge."""

    n: int = 4

    def read(self, i):
        noise = np.random.default_rng(i).integers(0, 256, (60, 40, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "JPEG", quality=95)
        encoded = file.getvalue()
        at = len(encoded) * 4 // 5
        return (encoded[:at], encoded[:at] + b"\xff\xd8" + encoded[at + 2 :], encoded)[min(i, 2)]


def test_what_stands_in_for_a_bad_record_depends_on_its_position_alone():
    order = Order(4, 0, shuffle=False)
    arguments: dict[str, Any] = {"order": order, "batch_size": 4}
    batches = training(Damaged(), stop=12, **arguments)
    assert [batch["id"][0] for batch in batches] == [2] * 12
    for step, batch in enumerate(batches):
        assert_same(training(Damaged(), start=step, stop=step + 1, **arguments), [batch])


def test_the_last_record_gives_way_to_the_first():
    batch = training(Numbered(n=3, bad=(2,)), batch_size=3, stop=1, preprocess=PLAIN)[0]
    assert sorted(batch["id"].tolist()) == [0, 0, 1]
    assert [p.reason for p in batch["problems"]] == ["[Errno 2] No such file"]


def test_a_source_without_a_readable_record_is_a_users_error():
    with pytest.raises(UserError, match="No image of `Numbered` can be read"):
        training(Numbered(n=3, bad=(0, 1, 2)))
    with pytest.raises(UserError, match="no examples"):
        evaluation(Numbered(n=0))


def test_evaluation_takes_every_example_once_and_pads_the_last_batch():
    batches = evaluation(Numbered(), preprocess=PLAIN)
    assert [b["image"].shape for b in batches] == [(8, 4, 4, 1)] * 3
    ids = np.concatenate([b["id"] for b in batches])
    mask = np.concatenate([b["mask"] for b in batches])
    np.testing.assert_array_equal(ids[mask], np.arange(21))
    last = batches[-1]
    assert last["id"].tolist() == [16, 17, 18, 19, 20, -1, -1, -1]
    assert not last["image"][5:].any() and not last["label"][5:].any()


def test_evaluation_masks_a_bad_record_and_keeps_its_id():
    batch = evaluation(Numbered(bad=(3,)), preprocess=PLAIN)[0]
    assert batch["id"].tolist() == list(range(8))
    assert batch["mask"].tolist() == [True] * 3 + [False] + [True] * 4
    assert not batch["image"][3].any()
    assert batch["problems"] == [Problem(3, "number 3", "", 0, "[Errno 2] No such file", 3)]


@dataclass(frozen=True)
class Fails(Numbered):
    """One record fails so many times in one way before it can be read."""

    number: int = errno.EIO
    times: int = 3
    counts: Any = None

    def read(self, i):
        self.counts[i] += 1
        if i == 9 and self.counts[9] <= self.times:
            raise OSError(self.number, "failed")
        return super().read(i)


@pytest.mark.parametrize(
    ("number", "times", "reads", "bad"),
    [
        (errno.EIO, 3, 4, []),
        (errno.ESTALE, 9, 4, [9]),
        (errno.ETIMEDOUT, 1, 2, []),
        (errno.ENOENT, 9, 1, [9]),
    ],
)
def test_only_what_may_pass_is_tried_again_before_it_counts_as_bad(
    number, times, reads, bad, monkeypatch
):
    monkeypatch.setattr(reader, "_PAUSES", (0, 0, 0))
    source = Fails(number=number, times=times, counts=Counter())
    batches = evaluation(source, threads=1)
    assert [p.id for batch in batches for p in batch["problems"]] == bad
    assert source.counts[9] == reads


def test_a_long_stretch_of_bad_records_is_not_read_again_for_each_of_them():
    n = 200
    source = Fails(n=n, number=errno.ENOENT, bad=tuple(range(100)), times=0, counts=Counter())
    batches = training(source, order=Order(n, 0, shuffle=False), stop=n // 8, threads=1)
    assert [p.id for batch in batches for p in batch["problems"]] == list(range(100))
    assert all(batch["id"].min() >= 100 for batch in batches)
    # Once to find what is due, once or twice in passing by; not once for each before it.
    assert max(source.counts[i] for i in range(100)) <= 3


def test_soft_labels_travel_as_they_are():
    batch = evaluation(Numbered(n=5, soft=True))[0]
    assert batch["label"].dtype == np.float32 and batch["label"].shape == (8, 3)
    np.testing.assert_array_equal(batch["label"][:5], np.eye(3)[[0, 1, 0, 1, 0]])
    assert not batch["label"][5:].any()


def test_a_random_crop_depends_on_seed_and_position_alone():
    order = Order(21, 1)
    batch = training(Photos(), order=order, start=2, stop=3)[0]
    rng = np.random.Generator(np.random.Philox(key=np.array([3, 19], np.uint64)))
    photograph = decode(Photos().read(int(order.ids(np.array(19)))))
    np.testing.assert_array_equal(batch["image"][3], RandomResizedCrop()(photograph, SMALL, rng))
    other = training(Photos(), order=order, start=2, stop=3, seed=4)[0]
    np.testing.assert_array_equal(other["id"], batch["id"])
    assert (other["image"] != batch["image"]).any()


def test_arrays_of_the_right_size_are_left_alone_and_others_are_scaled():
    assert training(Numbered(side=8), stop=1)[0]["image"].shape == (8, 8, 8, 1)
    scaled = training(Numbered(side=5), stop=1)[0]
    assert scaled["image"].shape == (8, 8, 8, 1)
    np.testing.assert_array_equal(scaled["image"][:, 0, 0, 0], scaled["id"])


def test_photographs_of_one_size_need_no_scaling_and_others_are_refused_in_a_line():
    as_they_are = training(Photos(same=True), stop=1, preprocess=PLAIN)[0]["image"]
    assert as_they_are.shape == (8, 9, 7, 3)
    with pytest.raises(UserError, match=r"The images of `Photos` must have one shape.*got \(") as e:
        training(Photos(), preprocess=PLAIN)
    assert "\n" not in str(e.value)


def test_evaluation_takes_another_geometry():
    (batch,) = evaluation(Photos(n=1), geometry=Squash(), batch_size=1)
    expected = Squash()(decode(Photos().read(0)), SMALL, np.random.default_rng())
    np.testing.assert_array_equal(batch["image"][0], expected)


def test_all_at_once_is_what_evaluation_streams():
    streamed = np.concatenate([b["image"][b["mask"]] for b in evaluation(Photos())])
    np.testing.assert_array_equal(decode_all(Photos(), SMALL), streamed)
    with pytest.raises(UserError, match="'number 2' cannot be read"):
        decode_all(Photos(bad=(2,)), SMALL)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 9, "process_count": 2}, "`batch_size` must be a positive multiple of"),
        ({"batch_size": 0}, "`batch_size` must be a positive"),
        ({"workers": -1}, "`workers` must be 0 or more"),
        ({"threads": -1}, "`threads` must be 0 or more"),
        ({"patience": 0}, "`patience` must be greater than 0"),
        ({"geometry": RandomResizedCrop(scale=(2.0, 1.0))}, "The `scale` of `RandomResizedCrop`"),
    ],
)
def test_a_senseless_value_is_answered_before_any_process_is_started(changes, said):
    with pytest.raises(UserError, match=said):
        training(Photos(), **changes)


@pytest.mark.parametrize("labels", [np.zeros(20, np.int32), np.zeros((21, 2), np.float32)])
def test_labels_that_do_not_match_the_examples_are_refused(labels):
    @dataclass(frozen=True)
    class Mislabelled(Numbered):
        def labels(self):
            return labels

    with pytest.raises(UserError, match="The `labels` of `Mislabelled` must be"):
        training(Mislabelled())


@pytest.mark.parametrize("wrong", [1.5, -0.2, np.nan, np.inf])
def test_soft_labels_that_are_no_shares_are_refused(wrong):
    @dataclass(frozen=True)
    class Odd(Numbered):
        def labels(self):
            labels = np.full((21, 3), 1 / 3, np.float32)
            labels[4, 1] = wrong
            return labels

    said = f"The soft `labels` of `Odd` must lie in [0, 1]; got {wrong:g} for 'number 4'"
    with pytest.raises(UserError, match=re.escape(said)):
        training(Odd())


def test_images_that_are_not_bytes_of_pixels_are_refused():
    @dataclass(frozen=True)
    class Fractions(Numbered):
        def read(self, i):
            return np.zeros((8, 8, 1), np.float32)

    with pytest.raises(UserError, match=r"must be uint8 \(h, w, c\); got float32"):
        training(Fractions())


def test_no_steps_are_no_batches():
    assert training(Numbered(), start=6) == []


def test_evaluation_gives_the_network_the_channels_that_it_wants():
    colour = evaluation(Photos(n=4), preprocess=SMALL)[0]["image"][:4]
    grey = evaluation(Photos(n=4), channels=1)[0]["image"][:4]
    assert grey.shape == (4, 8, 8, 1)
    expected = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in colour])
    assert np.abs(grey[..., 0].astype(int) - expected).mean() < 2
    coloured = evaluation(Numbered(n=4), channels=3, preprocess=PLAIN)[0]["image"]
    assert coloured.shape == (8, 4, 4, 3)


def test_importing_the_pipeline_loads_neither_jax_nor_grain_nor_pillow():
    code = "import sys, imgclf.data.pipeline; print({'jax', 'grain', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_workers_of_a_killed_program_end_with_it():
    code = """if True:
        import os, signal
        from imgclf.data import Synthetic
        from imgclf.data.pipeline import evaluation_batches
        from imgclf.preprocess import Preprocess
        source = Synthetic(10_000, 8, 1, 2)
        batches = evaluation_batches(
            source, batch_size=1, preprocess=Preprocess(), workers=1, threads=1
        )
        next(batches)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    # Workers inherit standard output: it ends when the last of them has left.
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=120)
    assert done.returncode == -signal.SIGKILL


def test_what_is_random_of_an_example_is_drawn_as_of_a_generator_of_its_own():
    for seed, position in ((0, 0), (3, 7), (2**64 - 1, 2**40), (3, 7)):
        key = np.array([seed, position], np.uint64)
        expected = np.random.Generator(np.random.Philox(key=key))
        got = generator(seed, position)
        for draw in ("random", "standard_normal"):
            assert getattr(got, draw)() == getattr(expected, draw)()
        assert got.integers(0, 9, dtype=np.uint32) == expected.integers(0, 9, dtype=np.uint32)
