"""The rows of a table in a file: CSV, TSV, JSONL or Parquet."""

import csv
import json
from collections.abc import Iterator, Sequence
from typing import Any

from imgclf.data.remote import Place, Url
from imgclf.errors import UserError, unknown

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
"""How the name of a table ends, in upper or lower case."""

_AT_ONCE = 16_384  # rows of a Parquet file


def columns(file: Place) -> list[str]:
    """The names of the columns of a table; those of a JSONL file are its first row's.

    Raises a `UserError` for a file that is none, or damaged.
    """
    if file.suffix.lower() == ".parquet":
        return list(_parquet(file).schema_arrow.names)
    if file.suffix.lower() == ".jsonl":
        return next((list(row) for _, row in _objects(file)), [])
    return next((cells for _, cells in _cells(file)), [])


def has_words(file: Place, column: str) -> bool:
    """Whether the column may hold strings, such as paths: not, say, images."""
    if file.suffix.lower() != ".parquet":
        return True
    import pyarrow

    kind = _parquet(file).schema_arrow.field(column).type
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)


def rows(file: Place, names: Sequence[str]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Where each row stands, in words, and its values in the columns `names`.

    A value is a string in CSV and TSV, None where a JSONL or Parquet file has none. Raises a
    `UserError` for a column that there is not, and for damage, with the number of the row.
    """
    there = columns(file)
    if not there:
        raise UserError(f"The table {file} must have columns; it is empty")
    for name in names:
        if name not in there:
            raise unknown(f"column of {file}", name, there)
    if file.suffix.lower() == ".parquet":
        yield from _parquet_rows(file, names)
    elif file.suffix.lower() == ".jsonl":
        for line, row in _objects(file):
            yield f"{file}, line {line}", tuple(row.get(name) for name in names)
    else:
        places = [there.index(name) for name in names]
        lines = _cells(file)
        next(lines)
        for line, cells in lines:
            if len(cells) != len(there):
                raise UserError(
                    f"Every row must have a value for each of the {len(there)} columns; "
                    f"{file}, line {line} has {len(cells)}"
                )
            yield f"{file}, line {line}", tuple(cells[place] for place in places)


def _cells(file: Place) -> Iterator[tuple[int, list[str]]]:
    line = 0
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.reader(opened, delimiter="\t" if file.suffix.lower() == ".tsv" else ",")
            for cells in reader:
                line = reader.line_num
                if cells:
                    yield line, cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _damaged(file, f"line {line + 1}", error) from None


def _objects(file: Place) -> Iterator[tuple[int, dict[str, Any]]]:
    line = 0
    try:
        with file.open(encoding="utf-8-sig") as opened:
            for line, text in enumerate(opened, 1):
                if not text.isspace():
                    row = json.loads(text)
                    if not isinstance(row, dict):
                        raise UserError(f"{file}, line {line} must be a JSON object; got {text!r}")
                    yield line, row
    except UnicodeDecodeError as error:
        raise _damaged(file, f"line {line + 1}", error) from None
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(file, f"line {line}", error) from None


def _parquet(file: Place) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        opened = pyarrow.parquet.ParquetFile(file.open("rb") if isinstance(file, Url) else file)
        _ = opened.schema_arrow.names
        return opened
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(file, "its description", error) from None


def _parquet_rows(file: Place, names: Sequence[str]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    import pyarrow

    opened, number = _parquet(file), 0
    try:
        for batch in opened.iter_batches(_AT_ONCE, columns=list(dict.fromkeys(names))):
            lists = [batch.column(name).to_pylist() for name in names]
            for values in zip(*lists, strict=True):
                number += 1
                yield f"{file}, row {number}", values
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(file, f"row {number + 1} or later", error) from None
    finally:
        opened.close()


def _damaged(file: Place, where: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnicodeDecodeError) and file.suffix.lower() != ".parquet":
        reason += "; it must be UTF-8 (iconv -f latin1 -t utf-8 makes it so, of Latin-1)"
    return UserError(f"The table {file} cannot be read ({where}): {reason}")
