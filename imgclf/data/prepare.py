"""Writing any source as a data set that is fast to read: resumable, in parallel, in pieces.

`plan` says what is to be written, and finds out whether a folder was begun for something else;
`writing.write` makes the shards that are missing; `finish` describes them, once all are there.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imgclf.data import tfds_layout
from imgclf.data.decode import BadImage
from imgclf.data.prepared_shard import INTERPOLATION, Job, Split, encoded, sha256, write_text
from imgclf.data.source import Source, checked_labels
from imgclf.data.writing import drafts_in
from imgclf.errors import UserError

_SHARD_BYTES = 256 << 20
_SAMPLE = 100
_PLAN = "prepare.json"
_MANIFEST = "manifest.json"


def plan(
    sources: Mapping[str, Source],
    out: str | os.PathLike[str],
    *,
    size: int = 0,
    quality: int = 92,
    exif: bool = True,
    shards: int = 0,
    seed: int = 0,
) -> Job:
    """What is to be written into the folder `out`, which is made if it is absent.

    Args:
        sources: the splits by name; the first has `shards` files, the others in proportion.
        out: the folder; where its name is a version, such as `flowers/1.0.0`, the data set is
            called after the one above.
        size, quality, exif: as in `prepared_shard.encoded`.
        shards: 0: so many that each has about 256 MiB, judged by a hundred images of each split.
        seed: chooses the order in which the examples of a split are written.

    Raises:
        UserError: the folder was begun with another source or other options, or holds other files.
    """
    for name, value, least, most in (
        ("size", size, 0, 65_500),
        ("quality", quality, 1, 100),
        ("shards", shards, 0, 99_999),
        ("seed", seed, 0, 2**63),
    ):
        if not least <= value <= most:
            raise UserError(f"The `{name}` must be {least} to {most}; got {value}")
    if not (exif or size):
        raise UserError("Without a `size` no image is changed, whatever `exif` says")
    folder = Path(out).expanduser().absolute()
    before = _plan_in(folder)
    samples = {name: _sample(source) for name, source in sources.items()}
    counts = {name: len(source) for name, source in sources.items()}
    first = next(iter(sources))
    if shards > counts[first]:
        raise UserError(
            f"The `shards` must be no more than the {counts[first]:,} examples of {first!r}; got "
            f"{shards}"
        )
    if before and not shards:
        files = {name: before["splits"].get(name, {}).get("shards", 0) for name in sources}
    else:
        files = {
            name: _shards(
                samples[name], counts[name], shards * counts[name] / counts[first], size, quality
            )
            for name in sources
        }
    described = {
        "size": size,
        "quality": quality if size else 0,
        "interpolation": INTERPOLATION,
        "seed": seed,
        "encoder": _encoder(),
        **({} if exif else {"exif": False}),
        "splits": {
            name: {
                "examples": counts[name],
                "shards": files[name],
                "source": _fingerprint(source, samples[name]),
            }
            for name, source in sources.items()
        },
    }
    _check_classes(sources)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(described, indent=1)
    if before is None:
        with drafts_in(folder) as drafts:
            write_text(folder / _PLAN, text, drafts, anew=False)  # another may have been faster
        before = _plan_in(folder)
    _check_same(folder, before or {}, described)
    name, _ = tfds_layout.name_and_version(folder)
    splits = tuple(Split(each, sources[each], files[each]) for each in sources)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Job(str(folder), name, splits, size, quality, exif, seed, digest)


def finish(job: Job) -> dict[str, Any] | None:
    """The manifest, which it writes with TFDS's two files if all shards are finished, else None."""
    shards = [job.shard(number) for number in range(job.total)]
    notes = [shard.finished for shard in shards]
    if not all(notes):
        return None
    splits: dict[str, list[dict[str, Any]]] = {split.name: [] for split in job.splits}
    for shard, note in zip(shards, notes, strict=True):
        assert note is not None
        splits[shard.split.name].append({key: note[key] for key in note if key != "made_by"})
    for name, files in splits.items():
        if not any(file["examples"] for file in files):
            raise UserError(f"No image of the split {name!r} can be read; see {job.out}/parts")
    folder = Path(job.out)
    manifest = {
        "plan": json.loads((folder / _PLAN).read_text()),
        "examples": sum(note["examples"] for files in splits.values() for note in files),
        "bytes": sum(note["bytes"] for files in splits.values() for note in files),
        "left_out": sum(len(note["left_out"]) for files in splits.values() for note in files),
        "splits": splits,
    }
    with drafts_in(folder) as drafts:
        write_text(folder / _MANIFEST, json.dumps(manifest, indent=1), drafts)
        for name, text in tfds_layout.described(
            folder, job.splits[0].source, splits, kept=not job.size
        ).items():
            write_text(folder / name, text, drafts)
    return manifest


def verify(out: str | os.PathLike[str]) -> tuple[int, list[str]]:
    """How many shards a prepared folder has, and what is wrong with those that changed since."""
    folder = Path(out).expanduser()
    try:
        splits = json.loads((folder / _MANIFEST).read_text())["splits"]
        notes = [note for files in splits.values() for note in files]
    except FileNotFoundError:
        raise UserError(
            f"{folder} has no {_MANIFEST}: `imgclf data prepare` has not written a whole data set "
            f"there"
        ) from None
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder / _MANIFEST} cannot be read: {error}") from None
    wrong = []
    for note in notes:
        file = folder / note["file"]
        try:
            if file.stat().st_size != note["bytes"]:
                wrong.append(f"{file.name} has {file.stat().st_size:,} of {note['bytes']:,} bytes")
            elif sha256(file) != note["sha256"]:
                wrong.append(f"{file.name} is damaged: its checksum is not that of the manifest")
        except OSError as error:
            wrong.append(f"{file.name} cannot be read: {error.strerror}")
    return len(notes), wrong


def _plan_in(folder: Path) -> dict[str, Any] | None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"The `out` must be a folder; {folder} is a file")
    # Listed before it is read: another run, which writes its plan first, may begin at any moment.
    others = sorted(each.name for each in folder.glob("[!.]*"))
    try:
        return json.loads((folder / _PLAN).read_text())
    except FileNotFoundError:
        if others:
            raise UserError(
                f"The `out` must be an empty folder, or one that `imgclf data prepare` began; "
                f"{folder} holds {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}"
            ) from None
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / _PLAN} cannot be read: {error}") from None


def _check_same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    before, now = ({"exif": True, **each} for each in (before, now))
    for key in now:
        if before.get(key) == now[key]:
            continue
        if key != "splits":
            what = f"with the {key} {before.get(key)}, not {now[key]}"
        elif set(before.get(key, {})) != set(now[key]):
            what = f"with the splits {', '.join(before.get(key, {}))}, not {', '.join(now[key])}"
        else:
            split = next(name for name in now[key] if before[key][name] != now[key][name])
            old, new = before[key][split], now[key][split]
            part = next(part for part in new if old.get(part) != new[part])
            what = (
                f"from other images or labels of {split!r}"
                if part == "source"
                else f"with {old.get(part):,} {part} of {split!r}, not {new[part]:,}"
            )
        raise UserError(f"{folder} was begun {what}; take the same, or another folder")


def _check_classes(sources: Mapping[str, Source]) -> None:
    (first, source), *others = sources.items()
    for name, other in others:
        if other.classes != source.classes or other.labels().ndim != source.labels().ndim:
            raise UserError(f"The splits {first!r} and {name!r} must have the same classes")


def _sample(source: Source) -> list[bytes | np.ndarray | None]:
    """A hundred records, evenly over the source; None for those that cannot be read."""
    places = np.unique(np.linspace(0, len(source) - 1, _SAMPLE).astype(np.int64))
    return [_read(source, int(i)) for i in places]


def _read(source: Source, i: int) -> bytes | np.ndarray | None:
    try:
        return source.read(i)
    except OSError:
        return None


def _shards(
    sample: list[bytes | np.ndarray | None], count: int, wanted: float, size: int, quality: int
) -> int:
    if wanted:
        return min(count, max(1, round(wanted)))
    sizes = []
    for record in sample:
        with contextlib.suppress(BadImage):
            if record is not None:
                sizes.append(len(encoded(record, size, quality)))
    mean = sum(sizes) / len(sizes) if sizes else 0
    return min(count, max(1, round(mean * count / _SHARD_BYTES)))


def _fingerprint(source: Source, sample: list[bytes | np.ndarray | None]) -> str:
    """Of names, labels and classes, and of a hundred images."""
    digest = hashlib.sha256()
    labels = checked_labels(source)
    digest.update(json.dumps([source.classes, labels.shape]).encode())
    digest.update(labels.tobytes())
    for name in source.ids():
        digest.update(name.encode("utf-8", "surrogateescape") + b"\n")
    for record in sample:
        if record is not None:
            digest.update(hashlib.sha256(bytes(record)).digest())
    return digest.hexdigest()


def _encoder() -> str:
    from PIL import __version__, features

    return f"Pillow {__version__}, libjpeg {features.version('jpg')}"
