"""Which columns of somebody's Parquet files hold the images and the labels."""

from functools import partial
from pathlib import Path
from typing import Any

from imgclf.data.parquet import Parquet, image_columns
from imgclf.data.shards import shards, sources_of
from imgclf.data.source import Source
from imgclf.errors import UserError

_LABELS = ("label", "labels")
_LIKE_LABELS = ("label", "class", "target", "category", "species")


def parquet_sources(root: Path) -> tuple[Source, tuple[str, Source] | None]:
    """What the Parquet files at `root` are for: training, and evaluation under its name.

    Raises a `UserError` where it is not clear which columns are meant.
    """
    file = shards("Parquet", str(root), ".parquet")[0]
    image, label = _columns(file)
    return sources_of(partial(Parquet, image=image, label=label), ".parquet")(root)


def _columns(file: str) -> tuple[str, str]:
    import pyarrow
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(file)
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"`Parquet` must be able to read {file}; {reason}") from None
    images = image_columns(schema)
    image = "image" if "image" in images else _only(file, schema, "images", images)
    others = [field.name for field in schema if field.name != image and _may_be_label(field.type)]
    label = next((name for name in _LABELS if name in others), "")
    like = [name for name in others if any(word in name.lower() for word in _LIKE_LABELS)]
    return image, label or _only(file, schema, "labels", like)


def _only(file: str, schema: Any, what: str, found: list[str]) -> str:
    if len(found) != 1:
        there = ", ".join(f"{field.name} ({_said(field.type)})" for field in schema)
        raise UserError(
            f"One column of {file} must be for {what}; got {' and '.join(found) or 'none'} among "
            f"{there}: write a recipe with Parquet(path, image=COLUMN, label=COLUMN)"
        )
    return found[0]


def _said(kind: Any) -> str:
    return "struct" if str(kind).startswith("struct") else str(kind)


def _may_be_label(kind: Any) -> bool:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))
