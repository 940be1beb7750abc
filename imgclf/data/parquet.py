"""Parquet files of encoded images, as Hugging Face's `datasets` writes them."""

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, final

import numpy as np

from imgclf.data.index_cache import Arrays, kept, stamp_of
from imgclf.data.names import Names
from imgclf.data.parquet_pages import Page, pages, values
from imgclf.data.remote import is_remote
from imgclf.data.shards import names_beside, placed, shards
from imgclf.data.source import Source
from imgclf.errors import UserError, unknown

_LARGE = 4 << 20  # bytes of a page from which on it is kept decompressed
_ONE_AT_A_TIME = threading.Lock()


@final
@dataclass(frozen=True)
class Parquet(Source):
    """Images in a column of Parquet files: encoded bytes, or a struct of `bytes` and `path`.

    Where the pages of that column lie is found once and kept in the cache; an image is then read
    with its page alone. Pages of more than 4 MiB, which many writers make, are kept there too when
    they have been read once, decompressed: that takes as much disk as the images. Class names come
    from the `ClassLabel` of Hugging Face's metadata, or from a `labels.txt` or `classes.txt` beside
    the files, or a .json with a list, unless given.
    """

    path: str
    """A .parquet file, a folder with some, or a pattern such as `train-*.parquet`."""
    image: str = "image"
    """The column of the images."""
    label: str = "label"
    """The column of the labels: whole numbers, or names of classes."""
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

    @property
    def listed(self) -> bool:
        """Whether a list in the files, or beside them, says what whole numbers mean."""
        from pyarrow import parquet

        first = self._files[0]
        return bool(names_beside(first) or _class_label(parquet.read_schema(first), self.label))

    def place(self, i: int) -> tuple[str, int]:
        """The file of example i, and where its page begins there, in bytes."""
        number, _, offset = self._index["page"][self._which(i)][:3].tolist()
        return self._files[number], offset

    def _which(self, i: int) -> int:
        return int(np.searchsorted(self._index["first"], i, "right")) - 1

    def read(self, i: int) -> bytes:
        which = self._which(i)
        row = i - int(self._index["first"][which])
        try:
            page = self._page(which)
        except OSError as error:
            raise OSError(f"{self._names[i]} cannot be read: {error}") from error
        start, length = int(page["start"][row]), int(page["length"][row])
        if length < 0:
            raise OSError(f"{self._names[i]} is null")
        return page["data"][start : start + length].tobytes()

    def _page(self, which: int) -> Arrays:
        if which in self._large:
            return self._large[which]
        number, chunk, *about = (int(x) for x in self._index["page"][which])
        page, path = Page(*about), self._files[number]

        def read() -> Arrays:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return values(file, page, *self._chunks[chunk])
            finally:
                os.close(file)

        if page.size <= _LARGE:
            return read()
        with _ONE_AT_A_TIME:
            if which not in self._large:
                what = f"Parquet page 1 {os.path.abspath(path)} {page}"
                self._large[which] = kept(what, stamp_of(path), read)
            return self._large[which]

    @cached_property
    def _large(self) -> dict[int, Arrays]:
        return {}

    @cached_property
    def _files(self) -> list[str]:
        if is_remote(self.path):
            raise UserError(f"The `path` of `Parquet` must lie on a disk; got {self.path}")
        return shards("Parquet", self.path, ".parquet")

    @cached_property
    def _names(self) -> Names:
        return Names(self._index["names"], self._index["names_at"])

    @cached_property
    def _chunks(self) -> list[tuple[str, int]]:
        kinds = Names(self._index["kinds"], self._index["kinds_at"])
        return [(codec, int(most)) for codec, most in (kind.split() for kind in kinds)]

    @cached_property
    def _index(self) -> Arrays:
        given = self.class_names or names_beside(self._files[0])
        what = f"Parquet 1 {os.path.abspath(self.path)} {self.image} {self.label} {given}"
        return kept(what, stamp_of(*self._files), partial(self._found, given))

    def _found(self, given: tuple[str, ...]) -> Arrays:
        import pyarrow
        from pyarrow import parquet

        top = os.path.commonpath([os.path.dirname(file) for file in self._files])
        table: list[tuple[int, ...]] = []
        kinds: dict[str, int] = {}
        names: list[str] = []
        texts: list[str] = []
        for number, path in enumerate(self._files):
            try:
                with parquet.ParquetFile(path) as file:
                    given = given or _class_label(file.schema_arrow, self.label)
                    several = _texts(file, path, self.label)
                    leaf = _leaf(file, path, self.image)
                    for page, kind in _pages(file, path, leaf):
                        place = kinds.setdefault(kind, len(kinds))
                        table.append((number, place, *page))
            except (pyarrow.ArrowException, OSError) as error:
                reason = " ".join(str(error).split())
                raise UserError(f"`Parquet` must be able to read {path}; {reason}") from None
            below = os.path.relpath(path, top)
            names += [f"{below}/{row}" for row in range(len(several))]
            texts += several
        if not texts:
            raise UserError(f"The `path` of `Parquet` must hold images; got none ({self.path})")
        labels, classes = placed("Parquet", self.path, texts, given, names)
        ids, called, of_chunks = Names.of(names), Names.of(classes), Names.of(kinds)
        page_table = np.array(table, np.int64)
        return {
            "names": ids.buffer,
            "names_at": ids.offsets,
            "page": page_table,
            "first": np.cumsum(page_table[:, 3]) - page_table[:, 3],
            "label": labels,
            "classes": called.buffer,
            "classes_at": called.offsets,
            "kinds": of_chunks.buffer,
            "kinds_at": of_chunks.offsets,
        }


def image_columns(schema: Any) -> list[str]:
    """The columns of a pyarrow schema that hold images: binary ones, and structs with `bytes`."""
    return [field.name for field in schema if _is_image(field.type)]


def has_parquet_images(root: Path) -> bool:
    """Whether a path is a Parquet file with a column of images, or a folder with one."""
    import pyarrow
    from pyarrow import parquet

    files = [root] if root.suffix == ".parquet" else root.glob("*.parquet")
    for file in files:
        try:
            return bool(image_columns(parquet.read_schema(file)))
        except (pyarrow.ArrowException, OSError):
            return False
    return False


def _is_image(kind: Any) -> bool:
    import pyarrow

    if pyarrow.types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and _is_image(kind.field(at).type)
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def _leaf(file: Any, path: str, name: str) -> int:
    schema = file.schema_arrow
    if name not in image_columns(schema):
        if name in schema.names:
            kind = schema.field(name).type
            raise UserError(f"The column {name!r} of {path} must hold encoded images; got {kind}")
        raise unknown(f"column with images in {path}", name, image_columns(schema))
    leaves = [file.schema.column(i).path for i in range(len(file.schema))]
    return leaves.index(name if name in leaves else f"{name}.bytes")


def _pages(file: Any, path: str, leaf: int) -> list[tuple[Page, str]]:
    most_defined = file.schema.column(leaf).max_definition_level
    found: list[tuple[Page, str]] = []
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            chunk = group.column(leaf)
            first = chunk.dictionary_page_offset or chunk.data_page_offset
            kind = f"{chunk.compression} {most_defined}"
            found += [(page, kind) for page in pages(descriptor, first, group.num_rows)]
    finally:
        os.close(descriptor)
    return found


def _texts(file: Any, path: str, name: str) -> list[str]:
    if name not in file.schema_arrow.names:
        raise unknown(f"column in {path}", name, file.schema_arrow.names)
    labels = file.read(columns=[name]).column(0).to_pylist()
    if len(labels) != file.metadata.num_rows:
        raise OSError(f"{len(labels)} labels for {file.metadata.num_rows} rows")
    for row, label in enumerate(labels):
        if isinstance(label, bool) or not isinstance(label, str | int):
            raise UserError(
                f"The labels of `Parquet` must be whole numbers or names; got {label!r} in row "
                f"{row} of {path}"
            )
    return [str(label) for label in labels]


def _class_label(schema: Any, name: str) -> tuple[str, ...]:
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = about["info"]["features"][name]["names"]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(map(str, names))
