"""Tar files of samples, as WebDataset lays them out."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple, final

import numpy as np

from imgclf.data.folder import EXTENSIONS
from imgclf.data.index_cache import Arrays, kept
from imgclf.data.names import Names
from imgclf.data.remote import absolute, is_remote, looked_through, read, stamp_of
from imgclf.data.shards import names_beside, placed, shards
from imgclf.data.source import Source, carried
from imgclf.data.tar_members import Member, ReadAt, members
from imgclf.errors import UserError

_SAMPLE = re.compile(r"((?:.*/|)[^./]+)\.([^/]*)", re.DOTALL)  # key, extension
_LONGEST_LABEL = 1 << 20


class _Sample(NamedTuple):
    key: str
    image: Member
    label: str


@final
@dataclass(frozen=True)
class Tar(Source):
    """Images in tar shards: members whose path is the same up to the first dot are one example.

    So `a/0017.jpg` and `a/0017.cls`, one after the other, are the example `a/0017`. The headers are
    read once, and what they say is kept in the cache. A shard that is damaged anywhere but inside a
    member is refused; of what is in the members a tar has no checksum. Class names come from a
    `labels.txt` or `classes.txt` beside the shards, or a .json with a list, unless given. A shard
    at a URL is not copied: each image is asked for alone, and kept in the cache.
    """

    path: str
    """A .tar file, a folder with some, or a pattern: `train-*.tar`, `train-{000..012}.tar`.

    Each may be a URL.
    """
    image: tuple[str, ...] = EXTENSIONS
    """The extensions of images, in upper or lower case."""
    label: str = "cls"
    """The extension of labels, each a whole number or the name of a class; `json`: its `label`."""
    class_names: tuple[str, ...] = ()
    """The classes in their order; empty: as found."""

    def __len__(self) -> int:
        return len(self._index["label"])

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return tuple(Names(self._index["classes"], self._index["classes_at"]))

    def labels(self) -> np.ndarray:
        return self._index["label"]

    def ids(self) -> Sequence[str]:
        return self._names

    def read(self, i: int) -> bytes:
        shard = self._shards[int(self._index["shard"][i])]
        offset, length = int(self._index["offset"][i]), int(self._index["length"][i])
        if is_remote(shard):
            return read(shard, offset, offset + length, self._stamp)
        image = _read_at(shard, offset, length)
        if len(image) < length:
            raise OSError(f"{shard} is cut off in {self._names[i]}")
        return image

    @property
    def listed(self) -> bool:
        """Whether a list beside the shards says what whole numbers mean."""
        return bool(names_beside(self._shards[0]))

    def place(self, i: int) -> tuple[str, int]:
        """The file of example i, and where it begins there, in bytes."""
        return self._shards[int(self._index["shard"][i])], int(self._index["offset"][i])

    @cached_property
    def _names(self) -> Names:
        return Names(self._index["names"], self._index["names_at"])

    @carried
    def _shards(self) -> list[str]:
        return shards("Tar", self.path, ".tar")

    @carried
    def _stamp(self) -> str:
        return stamp_of(*self._shards)

    @carried
    def _given(self) -> tuple[str, ...]:
        return self.class_names or names_beside(self._shards[0])

    @cached_property
    def _index(self) -> Arrays:
        what = f"Tar 1 {absolute(self.path)} {self.image} {self.label} {self._given}"
        return kept(what, self._stamp, partial(self._found, self._given))

    def _found(self, given: tuple[str, ...]) -> Arrays:
        paths = [shard.rpartition("://")[2] for shard in self._shards]
        top = os.path.commonpath([os.path.dirname(path) for path in paths])
        names: list[str] = []
        texts: list[str] = []
        places: list[tuple[int, int, int]] = []
        for number, shard in enumerate(self._shards):
            below = os.path.relpath(paths[number], top)
            try:
                with _opened(shard) as (size, read_at):
                    for sample in self._samples(shard, size, read_at):
                        names.append(f"{below}/{sample.key}")
                        texts.append(sample.label)
                        places.append((number, sample.image.offset, sample.image.length))
            except OSError as error:
                raise UserError(f"`Tar` must be able to read {shard}; {error}") from None
        if not names:
            raise UserError(f"The `path` of `Tar` must hold samples; got none ({self.path})")
        labels, classes = placed("Tar", self.path, texts, given, names)
        ids, called = Names.of(names), Names.of(classes)
        table = np.array(places, np.int64)
        return {
            "names": ids.buffer,
            "names_at": ids.offsets,
            "shard": table[:, 0].astype(np.int32),
            "offset": table[:, 1],
            "length": table[:, 2],
            "label": labels,
            "classes": called.buffer,
            "classes_at": called.offsets,
        }

    def _samples(self, shard: str, size: int, read_at: ReadAt) -> Iterator[_Sample]:
        endings = {ending.lower().lstrip(".") for ending in self.image}
        label = self.label.lower().lstrip(".")
        found: dict[str, dict[str, Member]] = {}
        texts: dict[str, str] = {}
        before = ""
        for member in members(shard, size, read_at):
            parts = _SAMPLE.fullmatch(member.name)
            if not parts or re.match(r"__.*__", os.path.basename(member.name)):
                continue  # as WebDataset does
            key, ending = parts[1], parts[2].lower()
            part = "image" if ending in endings else ending
            if key in found and key != before:
                raise UserError(
                    f"The members of a sample must follow each other in {shard}, as with tar's "
                    f"--sort=name; those of {key} do not"
                )
            before = key
            if part in found.setdefault(key, {}):
                raise UserError(f"The samples of {shard} must have one {part} each; {key} has two")
            found[key][part] = member
            if part == label:  # at once: a shard at a URL comes once, from its beginning on
                data = read_at(member.offset, min(member.length, _LONGEST_LABEL + 1))
                texts[key] = _label(shard, member, data, label == "json")
        for key, parts_of in found.items():
            for part, said in (("image", "image"), (label, f".{label}")):
                if part not in parts_of:
                    raise UserError(
                        f"The samples of {shard} must have an image and a .{label}; {key} has no "
                        f"{said}, only {', '.join(sorted(parts_of))}"
                    )
            yield _Sample(key, parts_of["image"], texts[key])


def _label(shard: str, member: Member, data: bytes, is_json: bool) -> str:
    text: object = None
    if len(data) <= _LONGEST_LABEL:
        try:
            text = data.decode("utf-8")
            text = json.loads(str(text)).get("label") if is_json else text
        except (ValueError, AttributeError):
            text = None
    if isinstance(text, bool) or not isinstance(text, str | int) or not str(text).strip():
        what = "JSON with a whole number or a name as `label`" if is_json else "a number or a name"
        raise UserError(f"{member.name} in {shard} must be {what}; it is not")
    return str(text).strip()


@contextmanager
def _opened(shard: str) -> Iterator[tuple[int, ReadAt]]:
    if is_remote(shard):
        yield looked_through(shard)
        return
    with open(shard, "rb") as file:

        def read_at(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        yield os.fstat(file.fileno()).st_size, read_at


def _read_at(shard: str, offset: int, length: int) -> bytes:
    # Opening costs microseconds, a few thousand open files more than a process may have.
    file = os.open(shard, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(file, length, offset)
    finally:
        os.close(file)
