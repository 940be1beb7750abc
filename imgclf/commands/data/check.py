"""`imgclf data check SOURCE`: what is wrong with the images, as a table, a page and JSON."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imgclf.commands.words import no_more, split, wants_help
from imgclf.data import KINDS
from imgclf.errors import UserError

if TYPE_CHECKING:
    from imgclf.data.check import Finding
    from imgclf.data.measured import Measured
    from imgclf.data.source import Source

HELP = """\
imgclf data check SOURCE [options]

SOURCE is a path, of which what lies there is guessed, or the name or file of a recipe. Where it has
parts for training and evaluation, each is looked at, and none may have an image of another."""
OPTIONS = {
    "--against SOURCE": "look for images of SOURCE that are here, too",
    "--kind KIND": f"what lies there: {', '.join(KINDS)}",
    "--out DIR": "where check.json and check.html go (check-NAME)",
    "--threads N": "threads that read (as many as there are CPUs)",
}
LISTED = 3
"""So many findings of a kind are printed."""


def run(words: Sequence[str]) -> int:
    if wants_help(words, HELP, OPTIONS):
        return 0
    allowed = ("against", "kind", "out", "threads")
    bare, options, rest = split(words, allowed)
    no_more(rest, allowed)
    if len(bare) != 1:
        raise UserError(f"`imgclf data check` takes one source; got {' '.join(bare) or 'none'}")
    threads = options.get("threads", "0")
    if not threads.isdecimal():
        raise UserError(f"`--threads` must be a whole number of 0 or more; got {threads!r}")
    name, sources = _named(bare[0], options.get("kind", ""))
    others = dict[str, "Source"]()
    if "against" in options:
        other, found_there = _named(options["against"], options.get("kind", ""))
        for part, source in found_there.items():
            label = other if part == "all" else f"{other} {part}"
            others[f"{label} (other)" if label in sources else label] = source
    out = _folder(options.get("out", f"check-{name}"))
    from imgclf.data.check import as_json, findings
    from imgclf.data.check_page import page
    from imgclf.data.measured import measure

    def look(name: str, source: "Source") -> "Measured":
        with _Progress(name, len(source)) as progress:
            return measure(source, name, threads=int(threads), progress=progress.show)

    parts = [look(part, source) for part, source in sources.items()]
    against = [look(part, source) for part, source in others.items()]
    every = [*parts, *against]
    found = [*_leaks(parts, against), *(each for part in every for each in findings(part))]
    (out / "check.json").write_text(json.dumps(as_json(every, found), indent=1))
    html = page(name, every, found)
    (out / "check.html").write_text(html, encoding="utf-8", errors="backslashreplace")
    for line in _told(every, found):
        print(line)
    print(f"{out / 'check.html'} shows them all, {out / 'check.json'} lists them")
    return 0


def _named(source: str, kind: str) -> tuple[str, dict[str, "Source"]]:
    """A name for what `source` means, and its parts."""
    from imgclf.data import located
    from imgclf.data.guess import guess
    from imgclf.data.remote import at
    from imgclf.data.splits import Split
    from imgclf.errors import nearest
    from imgclf.recipe import files

    path = at(source)
    if source.endswith(".py") or (source in files.names() and not path.exists()):
        loaded = files.load(source)
        data = loaded.recipe.data
        parts = {"train": data.train, **data.evaluate}
        return loaded.name, {name: located(each, data.root) for name, each in parts.items()}
    if not path.exists():
        close = nearest(source, files.names())
        hint = f"; did you mean the recipe {close!r}?" if close else ""
        raise UserError(f"There is nothing at {source}, and no recipe of that name{hint}")
    found = guess(source, kind)
    print(found.said if not isinstance(found.train, Split) else f"all of {source}")
    name = path.resolve().name.removesuffix(".npz")
    if isinstance(found.train, Split):  # nothing is held out there
        return name, {"all": found.train.source}
    return name, {"train": found.train, **found.evaluate}


def _folder(out: str) -> Path:
    """The folder for what is written, made before hours of reading."""
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"`--out` must be a folder; {out}: {error.strerror}") from None
    return Path(out)


def _leaks(parts: "list[Measured]", against: "list[Measured]") -> "Iterator[Finding]":
    from imgclf.data.check import leaks

    for place, part in enumerate(parts):
        for other in [*parts[place + 1 :], *against]:
            yield from leaks(part, other)


def _told(parts: "list[Measured]", found: "list[Finding]") -> Iterator[str]:
    """The table, and some of the findings of each kind."""
    from imgclf.data.check import KINDS, total
    from imgclf.data.check_page import overview

    yield from map(overview, parts)
    yield ""
    rows = [["images", *(part.name for part in parts), ""]]
    for kind, meaning in KINDS.items():
        totals = [total(found, kind, part) for part in parts]
        rows.append([kind, *(f"{number:,}" if number else "-" for number in totals), meaning])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *numbers, last in rows:
        cells = [first.ljust(widths[0]), *map(str.rjust, numbers, widths[1:-1]), last]
        yield "  ".join(cells).rstrip()
    yield ""
    for kind in KINDS:
        chosen = [finding for finding in found if finding.kind == kind]
        for finding in chosen[:LISTED]:
            names = [f"{part.name}/{part.ids[i]}" for part, i in finding.images[:4]]
            more = " ..." if len(finding.images) > 4 else ""
            yield f"{kind}: {', '.join(names)}{more}: {finding.said}"
        if len(chosen) > LISTED:
            yield f"{kind}: {len(chosen) - LISTED:,} more"


class _Progress:
    """A line on a terminal that says how far the look is, and images a second."""

    def __init__(self, name: str, n: int):
        self._name, self._n = name, n
        self._begun = self._last = time.perf_counter()

    def show(self, done: int) -> None:
        now = time.perf_counter()
        if sys.stderr.isatty() and (now - self._last > 0.2 or done == self._n):
            self._last = now
            rate = done / max(now - self._begun, 1e-9)
            line = f"{self._name}: {done:,} of {self._n:,} images, {rate:,.0f}/s"
            print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
