"""Tar shards give every sample they hold, or an error: never fewer, whatever happened to them."""

import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from imgclf.data import Source, Tar
from imgclf.data.guess import guess
from imgclf.errors import UserError

Members = Iterable[tuple[str, bytes]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(file: Path, members: Members, form: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(file, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            tar.addfile(info, io.BytesIO(data))
    return file


def samples(count: int, start: int = 0) -> list[tuple[str, bytes]]:
    rng = np.random.default_rng(start)
    found = []
    for i in range(start, start + count):
        found += [(f"a/{i:06d}.jpg", rng.bytes(100 + 37 * i)), (f"a/{i:06d}.cls", b"%d" % (i % 3))]
    return found


def content(source: Source) -> tuple[list[str], list[int], list[object]]:
    reads = [source.read(i) for i in range(len(source))]
    return list(source.ids()), source.labels().tolist(), reads


def test_shards_are_read_in_order_by_folder_pattern_and_braces(tmp_path):
    write(tmp_path / "t-00.tar", samples(3))
    write(tmp_path / "t-01.tar", [("a/", b""), *samples(4, 3), ("a/._1.jpg", b"hidden")])
    for path in (tmp_path, tmp_path / "t-*.tar", tmp_path / "t-{00..01}.tar"):
        ids, labels, images = content(pickle.loads(pickle.dumps(Tar(str(path)))))
        shards = ["t-00.tar"] * 3 + ["t-01.tar"] * 4
        assert ids == [f"{shard}/a/{i:06d}" for i, shard in enumerate(shards)]
        assert labels == [0, 1, 2, 0, 1, 2, 0]
        assert images == [data for _, data in samples(3) + samples(4, 3)][::2]
        assert Tar(str(path)).classes == ("0", "1", "2")
    with pytest.raises(UserError, match=r"there is no .*t-02\.tar"):
        len(Tar(str(tmp_path / "t-{00..02}.tar")))
    with pytest.raises(UserError, match=r"must be a \.tar file, .*; nothing fits"):
        len(Tar(str(tmp_path / "u-*.tar")))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_any_length_come_out_whole_in_every_format(tmp_path, form):
    folder = "ü" * 20 + "/" + "f" * 60
    names = [f"{folder}/{'n' * 60}{i}" for i in range(3)]
    if form != tarfile.USTAR_FORMAT:
        names += ["x" * 300]
    members = [m for n in names for m in ((f"{n}.png", n.encode()), (f"{n}.cls", b"7\n"))]
    source = Tar(str(write(tmp_path / "a.tar", members, form)))
    assert [i.partition("/")[2] for i in source.ids()] == names
    assert [source.read(i) for i in range(len(names))] == [name.encode() for name in names]


def test_labels_are_numbers_names_or_json_and_classes_as_listed(tmp_path):
    def tar(labels: list[bytes], ending: str = "cls", **given: tuple[str, ...]) -> Tar:
        members = [
            m for i, x in enumerate(labels) for m in ((f"{i}.PNG", b"i"), (f"{i}.{ending}", x))
        ]
        return Tar(str(write(tmp_path / "a.tar", members)), label=ending, **given)

    assert tar([b"bee", b"ant\n"]).classes == ("ant", "bee")
    assert tar([b"bee", b"ant\n"]).labels().tolist() == [1, 0]
    said = [json.dumps({"label": label}).encode() for label in (1, 0)]
    assert tar(said, "json").labels().tolist() == [1, 0]
    assert tar([b"bee"], class_names=("cat", "bee")).labels().tolist() == [1]
    for name, text in (("labels.json", '["x", "y"]'), ("classes.txt", "k\nl\nm\n")):
        (tmp_path / name).write_text(text)  # the second goes before the first
        assert tar([b"1"]).classes == (("x", "y") if "json" in name else ("k", "l", "m"))
    with pytest.raises(UserError, match=r"must lie in 0\.\.2.*got 3 \(a\.tar/0 in "):
        len(tar([b"3"]))
    with pytest.raises(UserError, match=r"Unknown class in .* 'kk'; did you mean 'k'"):
        len(tar([b"kk"]))
    (tmp_path / "classes.txt").unlink()
    (tmp_path / "labels.json").unlink()
    with pytest.raises(
        UserError, match=r"all numbers or all names; got '3' and 'ant' \(a.tar/1 in .*a\.tar\)"
    ):
        len(tar([b"3", b"ant"]))
    with pytest.raises(UserError, match=r"must be 0 or more; got -1, .* \(a\.tar/1 in .*a\.tar\)"):
        len(tar([b"3", b"-1", b"2"]))
    with pytest.raises(UserError, match=r"below 1,000,000; got 5000000 \(a\.tar/0 in "):
        len(tar([b"5000000", b"0"]))
    with pytest.raises(UserError, match=r"0\.json in .* must be JSON with .* `label`"):
        len(tar([b'{"label": true}'], "json"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([("b.jpg", b"")], r"b has no \.cls, only image"),
        ([("b.cls", b"1")], "b has no image, only cls"),
        ([("b.v2.jpg", b""), ("b.cls", b"1")], r"b has no image, only cls, v2\.jpg"),
        ([("b.txt", b"")], "b has no image, only txt"),
        ([("b.jpg", b""), ("b.png", b"")], "must have one image each; b has two"),
        ([("a/000000.txt", b"")], "must follow each other .*; those of a/000000 do not"),
        ([("b.jpg", b""), ("b.cls", b" ")], r"b\.cls in .* must be a number or a name"),
    ],
)
def test_a_sample_that_is_not_whole_is_named(tmp_path, more, said):
    with pytest.raises(UserError, match=said):
        len(Tar(str(write(tmp_path / "a.tar", samples(3) + more))))


def test_what_is_no_plain_tar_is_refused(tmp_path):
    with tarfile.open(tmp_path / "z.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("0.jpg"))
    with pytest.raises(UserError, match=r"must not be compressed, .* by gzip"):
        len(Tar(str(tmp_path / "z.tar")))
    info = tarfile.TarInfo("0.jpg")
    for kind, said in ((b"2", "a link or"), (b"S", "a sparse file")):
        info.type = kind
        with tarfile.open(tmp_path / "z.tar", "w") as tar:
            tar.addfile(info)
        with pytest.raises(UserError, match=f"'0.jpg' is {said}"):
            len(Tar(str(tmp_path / "z.tar")))
    (tmp_path / "z.tar").write_bytes(b"")
    with pytest.raises(UserError, match="it is empty"):
        len(Tar(str(tmp_path / "z.tar")))


def test_the_index_is_kept_until_a_shard_changes(tmp_path, monkeypatch):
    file = write(tmp_path / "a.tar", samples(3))
    assert len(Tar(str(file))) == 3
    with monkeypatch.context() as patch:
        patch.setattr("imgclf.data.tars.members", None)
        assert content(Tar(str(file)))[1] == [0, 1, 2]
    write(file, samples(40))
    assert len(Tar(str(file))) == 40


def test_training_and_held_out_shards_are_told_by_name_and_a_single_one_is_split(tmp_path):
    write(tmp_path / "train-0.tar", samples(9))
    assert len(guess(str(tmp_path / "train-0.tar")).evaluate["test"]) == 2
    write(tmp_path / "validation-0.tar", samples(2, 9))
    found = guess(str(tmp_path))
    assert len(found.train) == 9 and isinstance(found.train, Tar)
    assert found.evaluate["validation"].ids() == [f"validation-0.tar/a/{i:06d}" for i in (9, 10)]
    assert found.evaluate["validation"].classes == found.train.classes


def test_a_shard_cut_off_after_it_was_indexed_fails_in_what_is_lost_alone(tmp_path):
    file = write(tmp_path / "a.tar", samples(3))
    source = Tar(str(file))
    first = source.read(0)
    os.truncate(file, 700)
    assert source.read(0) == first
    with pytest.raises(OSError, match=r"a\.tar is cut off in a\.tar/a/000002"):
        source.read(2)


Damage = Callable[[np.random.Generator, bytearray], object]


def _run(rng: np.random.Generator, data: bytearray, longest: int) -> slice:
    start = int(rng.integers(len(data)))
    return slice(start, min(len(data), start + 1 + int(rng.integers(longest))))


def _flip(rng: np.random.Generator, data: bytearray) -> None:
    for at in rng.integers(len(data), size=rng.integers(1, 4)):
        data[at] ^= 1 << int(rng.integers(8))


def _overwrite(rng: np.random.Generator, data: bytearray) -> None:
    run = _run(rng, data, 64)
    data[run] = rng.bytes(run.stop - run.start)


def _zero(rng: np.random.Generator, data: bytearray) -> None:
    run = _run(rng, data, int(rng.choice([4, 512, 5000, len(data)])))
    data[run] = bytes(run.stop - run.start)


def _cut_out(rng: np.random.Generator, data: bytearray) -> None:
    del data[_run(rng, data, 2000)]


def _cut_off(rng: np.random.Generator, data: bytearray) -> None:
    block = int(rng.choice([1, 512]))
    del data[int(rng.integers(len(data))) // block * block :]


def _insert(rng: np.random.Generator, data: bytearray) -> None:
    at = int(rng.integers(len(data) + 1))
    data[at:at] = rng.choice([bytes(512), rng.bytes(512), rng.bytes(3)])


def _swap_blocks(rng: np.random.Generator, data: bytearray) -> None:
    one, other = 512 * rng.integers(len(data) // 512, size=2)
    data[one : one + 512], data[other : other + 512] = (
        data[other : other + 512],
        data[one : one + 512],
    )


def _swap_bytes(rng: np.random.Generator, data: bytearray) -> None:  # keeps a header's checksum
    one = 512 * int(rng.integers(len(data) // 512))
    i, j = one + rng.integers(160, size=2)
    data[i], data[j] = data[j], data[i]


def _retype(rng: np.random.Generator, data: bytearray) -> None:  # a header of another kind
    headers = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    at = int(rng.choice(headers))
    data[at + 156] = int(rng.choice(list(b"0125xgLKS7")))
    total = sum(data[at : at + 512]) - sum(data[at + 148 : at + 156]) + 256
    data[at + 148 : at + 156] = b"%06o\0 " % total


DAMAGES: list[Damage] = [
    *(_flip, _overwrite, _zero, _cut_out, _cut_off, _insert, _swap_blocks, _swap_bytes, _retype)
]


def _check_damages(tmp_path: Path, seeds: range) -> None:
    """Damages tars at random: each opens with the same ids and labels, or raises a `UserError`.

    But what hits a label's own bytes, of which there is no checksum, is passed over.
    """
    wholes = []
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        members = [(f"{'ä' * 60}/{name}", data) for name, data in samples(4)] + samples(3, 4)
        members += [("z.jpg", bytes(range(256)) * 45), ("z.cls", b"2")]
        file = write(tmp_path / f"{form}.tar", members, form)
        with tarfile.open(file) as tar:
            at = [m.offset_data for m in tar if m.name.endswith(".cls")]
        wholes.append((file.read_bytes(), at, _known(Tar(str(file)))))
    opened = 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        whole, at, expected = wholes[seed % 2]
        data, damage = bytearray(whole), DAMAGES[seed // 2 % len(DAMAGES)]
        damage(rng, data)
        same_labels = [data[i : i + 1] for i in at] == [whole[i : i + 1] for i in at]
        if len(data) == len(whole) and not same_labels:
            continue
        file = tmp_path / f"damaged-{seed}.tar"
        file.write_bytes(data)
        try:
            found = _known(Tar(str(file)))
        except UserError:
            continue
        finally:
            file.unlink()
        assert found == expected, (seed, damage)
        opened += 1
    assert 0.1 < opened / len(seeds) < 0.6  # some damage is inside an image, some is not


def _known(tar: Tar) -> tuple[list[str], list[int]]:
    return [name.partition("/")[2] for name in tar.ids()], tar.labels().tolist()


def test_no_random_damage_loses_an_image_unnoticed(tmp_path):
    _check_damages(tmp_path, range(600))


@pytest.mark.slow  # 40 s
def test_no_damage_of_many_loses_an_image_unnoticed(tmp_path):
    _check_damages(tmp_path, range(600, 12_000))
