"""`imgclf data prepare`: writes any source as a TFDS data set that is fast to read."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgclf.commands.words import no_more, split, wants_help
from imgclf.data.remote import absolute
from imgclf.errors import UserError

if TYPE_CHECKING:
    from imgclf.data.prepared_shard import Job

HELP = """\
imgclf data prepare SOURCE OUT [options]
imgclf data prepare --verify OUT

Writes what lies at SOURCE (guessed as by `imgclf train --data.train`) into the folder OUT, which
`imgclf train RECIPE --data.train OUT` and TensorFlow Datasets read. What is killed goes on by the
same command, and ends in the same bytes. Images that cannot be read are left out and listed."""
OPTIONS = {
    "--size N": "scale greater images so that the shorter side has N pixels (default: keep all)",
    "--quality Q": "of the JPEGs that scaled images become (92)",
    "--exif False": "do not turn scaled images as the camera noted it",
    "--shards N": "files of the training split (default: about 256 MiB each)",
    "--workers M": "processes (default: the CPUs)",
    "--shard-range A:B": "make only the shards A up to B, counted over all splits",
    "--kind KIND": "what lies at SOURCE, where guessing is not wanted",
    "--seed S": "chooses the order, and what is held out where a split must be made (0)",
    "--runner NAME": "let a runner of Apache Beam make the shards (pip install 'imgclf[beam]')",
    "--runner-options TEXT": "Beam's own options, in one word",
    "--verify": "compare the shards of OUT with the checksums of its manifest",
}
VALUED = (
    "size",
    "quality",
    "exif",
    "shards",
    "workers",
    "shard_range",
    "kind",
    "seed",
    "runner",
    "runner_options",
)
NUMBERS = {"size": 0, "quality": 92, "shards": 0, "workers": 0, "seed": 0}


def run(words: Sequence[str]) -> int:
    """Prepares, or verifies; returns the exit status."""
    if wants_help(words, HELP, OPTIONS):
        return 0
    bare, options, rest = split(words, VALUED, ("verify",))
    no_more(rest, [*VALUED, "verify"])
    if "verify" in options:
        return _verify(bare)
    if len(bare) != 2:
        raise UserError(
            f"`imgclf data prepare` takes a source and a folder to write; got "
            f"{' '.join(bare) or 'none'}"
        )
    numbers = {name: _number(options, name, default) for name, default in NUMBERS.items()}
    if (exif := options.get("exif", "True")) not in ("True", "False"):
        raise UserError(f"`--exif` must be True or False; got {exif!r}")
    workers = numbers.pop("workers") or _cpus()
    source = absolute(bare[0])
    if Path(bare[1]).expanduser().resolve().is_relative_to(source):
        raise UserError(f"The folder to write must lie outside the source; got {bare[1]}")
    from imgclf.data import prepare, writing
    from imgclf.data.guess import guess

    found = guess(source, options.get("kind", ""), numbers["seed"])
    print(found.said, flush=True)
    job = prepare.plan(
        {"train": found.train, **found.evaluate}, bare[1], exif=exif == "True", **numbers
    )
    chosen = _range(options.get("shard_range", f"0:{job.total}"), job.total)
    files = ", ".join(f"{each.name} {each.shards:,}" for each in job.splits)
    missing = [number for number in chosen if job.shard(number).finished is None]
    made = f"{len(missing):,} of {len(chosen):,} to be made"
    print(f"{bare[1]}: {job.total:,} shards ({files}), {made}", flush=True)
    try:
        with _progress(sum(len(job.shard(number).examples) for number in missing)) as tick:
            if "runner" in options:
                beam = options.get("runner_options", "")
                writing.write_by_beam(job, chosen, options["runner"], beam)
            else:
                writing.write(job, chosen, workers, tick)
        manifest = prepare.finish(job)
    except OSError as error:
        raise UserError(f"The folder {bare[1]} cannot be written: {error}") from None
    _say(job, bare[1], manifest)
    return 0


def _say(job: "Job", out: str, manifest: dict[str, Any] | None) -> None:
    if manifest is None:
        left = sum(job.shard(number).finished is None for number in range(job.total))
        print(f"{left:,} of {job.total:,} shards are still to be made, by other pieces")
        return
    files = [file for files in manifest["splits"].values() for file in files]
    unread = [each for file in files for each in file["left_out"]]
    for each in unread[:10]:
        print(f"imgclf: {each['id']} is left out: {each['reason']}", file=sys.stderr)
    if unread:
        print(
            f"imgclf: {len(unread):,} images could not be read and are left out; "
            f"{out}/manifest.json lists them",
            file=sys.stderr,
        )
    print(
        f"{manifest['examples']:,} images, {manifest['bytes'] / 2**20:,.1f} MiB; train on them by: "
        f"imgclf train RECIPE --data.train {out}"
    )


def _verify(bare: Sequence[str]) -> int:
    if len(bare) != 1:
        raise UserError(
            f"`imgclf data prepare --verify` takes one folder; got {' '.join(bare) or 'none'}"
        )
    from imgclf.data.prepare import verify

    count, wrong = verify(bare[0])
    for each in wrong:
        print(each)
    if wrong:
        raise UserError(
            f"{len(wrong)} of {count} shards of {bare[0]} are not as they were written; delete "
            f"them, and the `imgclf data prepare` that wrote them makes them anew"
        )
    print(f"{count} shards, each as it was written")
    return 0


def _number(options: dict[str, str], name: str, default: int) -> int:
    text = options.get(name, str(default))
    if not text.isdecimal():
        raise UserError(f"`--{name}` must be a whole number; got {text!r}")
    return int(text)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _range(text: str, total: int) -> range:
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and int(first) < int(last) <= total):
        raise UserError(
            f"`--shard-range` must be FROM:TO among the {total} shards, such as 0:{total}; got "
            f"{text!r}"
        )
    return range(int(first), int(last))


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Shows how many images are done, and how many in a second."""
    start = shown = time.monotonic()
    done = 0
    if not sys.stdout.isatty():

        def tick(images: int) -> None:
            nonlocal done, shown
            done += images
            now = time.monotonic()
            if now - shown >= 10 or (done == total and images):
                print(
                    f"{done:,} of {total:,} images, {done / (now - start):,.0f} images/s",
                    flush=True,
                )
                shown = now

        yield tick
        return
    from rich import progress

    columns = (
        progress.BarColumn(bar_width=20),
        progress.TextColumn("{task.completed:,} of {task.total:,} images, {task.description}"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns) as bar:
        task = bar.add_task("", total=total)

        def tick(images: int) -> None:
            nonlocal done
            done += images
            rate = done / (time.monotonic() - start)
            bar.update(task, completed=done, description=f"{rate:,.0f} images/s")

        yield tick
