"""Broken photographs of twelve kinds among good ones: listed once each, counted, and a limit."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .runs import lines

Ended = Callable[..., object]


def encoded(rng: np.random.Generator, kind: str) -> bytes:
    pixels = rng.integers(0, 256, (4, 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def huge_png() -> bytes:
    """A header of 2**31 - 1 pixels in either direction, and nothing behind it."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


def with_bad_checksum(png: bytes) -> bytes:
    place = png.index(b"IHDR") + 17
    return png[:place] + bytes([png[place] ^ 255]) + png[place + 1 :]


def broken(kind: int, jpeg: bytes, png: bytes) -> bytes | None:
    """The bytes of a broken file, or None for a link that leads nowhere."""
    return (
        b"",
        b"<html><body>404 Not Found</body></html>\n",
        jpeg[:20],
        jpeg[: len(jpeg) // 2],
        jpeg[:2] + b"\xff\x01" * 40 + jpeg[200:],
        b"%PDF-1.4\n" + jpeg,
        bytes(len(jpeg)),
        bytes(range(1, 256)),
        png[: len(png) // 2],
        with_bad_checksum(png),
        huge_png(),
        None,
    )[kind]


KINDS = 12


def photographs(folder: Path, counts: dict[str, tuple[int, int]]) -> dict[str, set[str]]:
    """Class folders of so many images, of which so many are broken; the names of those."""
    rng, names = np.random.default_rng(0), {}
    good = [(encoded(rng, "JPEG"), encoded(rng, "PNG")) for _ in range(50)]
    for part, (count, bad) in counts.items():
        for name in ("cat", "dog"):
            (folder / part / name).mkdir(parents=True)
        chosen = {int(i): kind for kind, i in enumerate(rng.choice(count, bad, replace=False))}
        names[part] = set()
        for i in range(count):
            name = f"{('cat', 'dog')[i % 2]}/{i}.{'png' if i % 5 == 0 else 'jpg'}"
            jpeg, png = good[i % len(good)]
            content: bytes | None = png if i % 5 == 0 else jpeg
            if i in chosen:
                names[part].add(name)
                content = broken(chosen[i] % KINDS, jpeg, png)
            if content is None:
                (folder / part / name).symlink_to("nowhere")
            else:
                (folder / part / name).write_bytes(content)
    return names


RECIPE = """
from imgclf import Checkpoint, Data, Epochs, Log, Model, Preprocess, Recipe, Steps
from imgclf.data import Folder
from imgclf.schedules import Constant

recipe = Recipe(
    data=Data(Folder("photos/train"), {{"val": Folder("photos/val")}}, {batch}, root="."),
    model=Model("cnn", dtype="float32", options={{"width": 2}}, preprocess=Preprocess(size=8)),
    schedule=Constant(0.01),
    length=Epochs({epochs}),
    checkpoint=Checkpoint(every=Steps({every})),
    log=Log(every=Steps({every}), tensorboard=False),
)
"""


def listed(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "bad_records.jsonl").read_text().splitlines()]


def assert_all_are_listed_once(run: Path, names: dict[str, set[str]]) -> None:
    found = [(each["source"], each["name"]) for each in listed(run)]
    assert sorted(found) == sorted((part, name) for part in names for name in names[part])
    assert all(each["reason"] for each in listed(run))


def stops_and_goes_on(imgclf: Ended, names: dict[str, set[str]], total: dict[str, int]) -> None:
    """By the default limit the run stops; with another it goes on as if it had never stopped."""
    allowed = ("train", "mine.py", "--quiet", "--data.bad_share", "0.1")
    whole = imgclf(*allowed, "--run", "whole")
    assert whole.status == 0, whole.err
    assert_all_are_listed_once(Path("whole"), names)
    last = json.loads(Path("whole/result.json").read_text())["metrics"]["last"]
    assert last["val/unread"] == len(names["val"])
    assert last["val/total"] == total["val"] - len(names["val"])

    stopped = imgclf("train", "mine.py", "--quiet", "--run", "run")
    assert stopped.status == 2
    said = stopped.err.splitlines()[-1]
    assert "training records read so far could not be read, more than the `bad_share`" in said
    assert "run/bad_records.jsonl" in said and "the last good checkpoint is" in said
    again = imgclf("train", "mine.py", "--quiet", "--run", "run")
    assert (again.status, again.err.splitlines()[-1]) == (2, said)
    assert imgclf(*allowed, "--run", "run", "--data.workers", "1").status == 0
    assert lines(Path("run")) == lines(Path("whole"))
    assert sorted(map(str, listed(Path("run")))) == sorted(map(str, listed(Path("whole"))))


@pytest.mark.slow
def test_a_run_with_too_many_broken_photographs_stops_and_can_go_on(
    imgclf: Ended, tmp_path: Path
) -> None:
    names = photographs(tmp_path / "photos", {"train": (1200, 60), "val": (48, 12)})
    (tmp_path / "mine.py").write_text(RECIPE.format(batch=50, epochs=2, every=7))
    stops_and_goes_on(imgclf, names, {"val": 48})


@pytest.mark.slow  # 90 s
def test_a_thousand_broken_photographs_of_twelve_kinds_among_twenty_thousand(
    imgclf: Ended, tmp_path: Path
) -> None:
    names = photographs(tmp_path / "photos", {"train": (18_000, 900), "val": (2_000, 100)})
    (tmp_path / "mine.py").write_text(RECIPE.format(batch=100, epochs=1, every=50))
    stops_and_goes_on(imgclf, names, {"val": 2_000})
