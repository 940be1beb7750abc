"""What lies at a URL that fsspec can read: http, s3, gs and others.

Credentials and options of a protocol come from fsspec's own configuration. What may pass is tried
again; what is opened for a source to be made is a `UserError` if it cannot be, what is read later
an `OSError` that names the URL.
"""

import fnmatch
import io
import itertools
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar, final
from urllib.parse import quote, unquote

from imgclf.data import index_cache
from imgclf.data.formats import is_hidden
from imgclf.data.remote_cache import copied
from imgclf.errors import UserError

T = TypeVar("T")

_FILES = (".csv", ".tsv", ".jsonl", ".parquet", ".tar", ".txt", ".json")
_PAUSES = (0.2, 1.0)  # seconds between attempts
_PATIENCE = 15.0  # seconds without a byte, of http; all attempts together: less than a worker's
_AT_ONCE = 16  # requests at the same time, where there are many
_BLOCK = 8 << 20  # bytes read together of a file that is looked through
_VERSIONS = ("etag", "last-modified", "lastmodified", "mtime", "generation", "updated", "created")
_FINAL = (
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ValueError,
    TypeError,
    NotImplementedError,
)


def is_remote(path: str) -> bool:
    """Whether a path is a URL."""
    return "://" in path


def at(path: str) -> "Path | Url":
    """The place that a path means: on disk, or at a URL."""
    if not is_remote(path):
        return Path(path).expanduser()
    return Url(path.rstrip("/") if is_remote(path.rstrip("/")) else path)


def read_from(path: str, name: str) -> bytes:
    """What the file `name` in the folder at `path` holds; sooner than `at` and a `Path` of it."""
    if is_remote(path) or is_remote(name):
        return (at(path) / name).read_bytes()
    with open(os.path.join(os.path.expanduser(path), name), "rb", buffering=0) as file:
        return file.readall()


def absolute(path: str) -> str:
    """The path, so that it holds from any folder."""
    return str(at(path).resolve())


@final
@dataclass(frozen=True)
class Url:
    """As much of `pathlib.Path` as sources need of a place: files and folders by their names.

    One whose name ends like a table's, a tar's or a list's is a file, and any other a folder. Over
    http the names in a folder are the links on the page that the server shows for it.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "Url":
        if is_remote(name):
            return Url(name)
        known = quote(name, errors="surrogateescape") if _is_http(self.url) else name
        return Url(f"{self.url}/{known}")

    @property
    def name(self) -> str:
        last = self.url.rpartition("/")[2]
        return unquote(last, errors="surrogateescape") if _is_http(self.url) else last

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> "Url":
        return Url(self.url.rpartition("/")[0])

    def resolve(self) -> "Url":
        return self

    def absolute(self) -> "Url":
        return self

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        return self._is_named_as_file and _info(self.url) is not None

    def is_dir(self) -> bool:
        return bool(self._listed)

    def is_other_file(self) -> bool:
        """Whether there is a file whose name does not end like those that are read."""
        return bool(self.suffix) and not self._is_named_as_file and _info(self.url) is not None

    def size(self) -> int | None:
        """The bytes of a file, if the server says how many they are."""
        return (_info(self.url) or {}).get("size")

    def names(self) -> list[str]:
        """The names in a folder, but hidden ones."""
        return list(self._listed)

    def glob(self, pattern: str) -> "list[Url]":
        return [self / name for name in self._listed if fnmatch.fnmatchcase(name, pattern)]

    def folders(self) -> "list[Url]":
        return [self / name for name, info in self._listed.items() if _is_folder(info)]

    def walk(self) -> Iterator[tuple[str, str]]:
        """The files at any depth: name below this folder, and what tells one version of it."""
        for name, info in self._listed.items():
            if _is_folder(info):
                yield from ((f"{name}/{inner}", said) for inner, said in (self / name).walk())
            else:
                yield name, _version(info)

    def trees(self) -> dict[str, list[tuple[str, str]]]:
        """What `walk` finds in each folder here, sorted; the names are those below this folder."""

        def tree(folder: Url) -> list[tuple[str, str]]:
            return sorted((f"{folder.name}/{name}", version) for name, version in folder.walk())

        folders = sorted(self.folders(), key=lambda folder: folder.name)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = list(pool.map(tree, folders))
        return {folder.name: files for folder, files in zip(folders, found, strict=True)}

    def read_bytes(self) -> bytes:
        """The file, from the cache if it was read before: an image is taken to stay as it is."""
        return read(self.url)

    def open(self, mode: str = "r", encoding: str | None = None, newline: str | None = None) -> IO:
        """The file as it is now, from the cache if it has not changed."""
        version = stamp_of(self)
        data = io.BytesIO(_to_open(lambda: read(self.url, version=version)))
        return data if "b" in mode else io.TextIOWrapper(data, encoding, newline=newline)

    @property
    def _is_named_as_file(self) -> bool:
        return self.suffix.lower() in _FILES

    @cached_property
    def _listed(self) -> dict[str, dict[str, Any]]:
        if self._is_named_as_file:
            return {}
        fs, path = _filesystem(self.url)
        base, is_http = path.rstrip("/"), _is_http(self.url)

        def listing() -> list[dict[str, Any]]:
            fs.invalidate_cache()
            return fs.ls(f"{base}/" if is_http else path, detail=True)

        try:
            infos = _to_open(lambda: _patiently(self.url, listing))
        except FileNotFoundError:
            return {}
        found = {}
        for info in infos:
            name = info["name"].rstrip("/").removeprefix(f"{base}/")
            if is_http:
                name = "" if "?" in name else unquote(name, errors="surrogateescape")
            if name and "/" not in name and not is_hidden(name):
                found[name] = info
        return dict(sorted(found.items()))


Place = Path | Url


def stamp_of(*places: Place | str) -> str:
    """As `index_cache.stamp_of`; of a URL its size and the version that the server tells."""
    urls = [str(place) for place in places]
    if not any(map(is_remote, urls)):
        return index_cache.stamp_of(*urls)

    def said(url: str) -> str:
        info = _info(url)
        if info is None:
            raise UserError(f"There is nothing at {url}")
        return f"{url}:{_version(info)}"

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return index_cache.digest("\n".join(pool.map(said, urls)))


def read(url: str, start: int | None = None, stop: int | None = None, version: str = "") -> bytes:
    """The bytes of a file, or those from `start` up to `stop`, by way of the cache.

    What was read before is read again where `version`, such as a stamp of the file, is another.
    """
    key = f"{url}\n{version}\n{start}:{stop}"
    return copied(key, lambda: _patiently(url, lambda: _fetched(url, start, stop)))


def looked_through(url: str) -> tuple[int, Callable[[int, int], bytes]]:
    """Size of a file, and a function that reads it from an offset on, in a length.

    It asks for 8 MiB together, which holds the headers of many members, and passes over what lies
    between two headers further apart: nothing is kept on disk. A server that gives only whole files
    is an `OSError`.
    """
    info = _info(url)
    if info is None or info.get("size") is None:
        raise OSError(f"the server does not say how long {url} is")
    size = int(info["size"])
    most = min(_BLOCK, -(-size // 2))  # never all: so is found out whether parts are to be had
    first, data = 0, b""

    def read_at(offset: int, length: int) -> bytes:
        nonlocal first, data
        stop = min(offset + length, size)
        if stop <= offset:
            return b""
        if offset < first or stop > first + len(data):
            first, end = offset, min(max(offset + most, stop), size)
            data = _patiently(url, lambda: _fetched(url, offset, end))
        return data[offset - first : stop - first]

    return size, read_at


def _fetched(url: str, start: int | None, stop: int | None) -> bytes:
    fs, path = _filesystem(url)
    if start is not None and stop is not None:
        if start == stop:
            return b""
        data, size = fs.cat_file(path, start, stop), stop - start
        if len(data) > size:
            raise NotImplementedError("the server gives no parts of a file (HTTP ranges)")
    else:
        data = fs.cat_file(path)
        # Over http the length is compared already; what comes may have been compressed.
        size = len(data) if _is_http(url) else fs.info(path).get("size") or len(data)
    if len(data) < size:
        raise ConnectionError(f"only {len(data):,} of {size:,} bytes came")
    return data


def _info(url: str) -> dict[str, Any] | None:
    fs, path = _filesystem(url)
    try:
        return _to_open(lambda: _patiently(url, lambda: fs.info(path)))
    except FileNotFoundError:
        return None


def _to_open(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(str(error)) from None


def _patiently(url: str, ask: Callable[[], T]) -> T:
    for attempt in itertools.count():
        try:
            return ask()
        except UserError:
            raise
        except Exception as error:  # each library that speaks a protocol has its own
            cause: BaseException = error
            if isinstance(error, FileNotFoundError) and _is_http(url):
                cause = error.__cause__ or error  # fsspec says so of a lost server, too
            status = getattr(cause, "status", None)
            if isinstance(cause, FileNotFoundError) or status in (404, 410):
                raise FileNotFoundError(f"there is nothing at {url}") from None
            if attempt == len(_PAUSES) or not _may_pass(cause, status):
                said = " ".join(str(cause).split()) or type(cause).__name__
                raise OSError(f"{url} cannot be read: {said}") from error
        time.sleep(_PAUSES[attempt])
    raise AssertionError


def _may_pass(error: BaseException, status: object) -> bool:
    if isinstance(status, int):
        return status >= 500 or status in (408, 425, 429)
    return not isinstance(error, _FINAL)


def _filesystem(url: str) -> tuple[Any, str]:
    """Fsspec's object for the protocol, and the path that it knows; it has one for each thread."""
    try:
        import fsspec

        return fsspec.core.url_to_fs(url, **(_http_options() if _is_http(url) else {}))
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{url} cannot be read: {error} (pip install 'imgclf[remote]' has what http needs)"
        ) from None


def _http_options() -> dict[str, Any]:
    import aiohttp
    import fsspec

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_PATIENCE, sock_read=_PATIENCE)
    options: dict[str, Any] = {"timeout": timeout}
    for protocol in ("http", "https"):
        options |= fsspec.config.conf.get(protocol, {}).get("client_kwargs", {})
    return {"client_kwargs": options}


def _is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _is_folder(info: dict[str, Any]) -> bool:
    return info["type"] == "directory"


def _version(info: dict[str, Any]) -> str:
    said = {key.lower(): value for key, value in info.items()}
    return " ".join(str(said[key]) for key in ("size", *_VERSIONS) if key in said)
