"""What is kept in `log.txt` when the disk is full, and afterwards."""

from pathlib import Path

import pytest

from imgclf.training.display import Display


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A log on a full disk; there is room again when it is removed."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    (tmp_path / "log.txt").symlink_to("/dev/full")
    return tmp_path / "log.txt"


def said(log: Path) -> list[str]:
    return [line.split(" ", 2)[2] for line in log.read_text().splitlines()]


def test_lines_that_could_not_be_written_are_written_with_the_next_that_can(full: Path) -> None:
    display = Display(quiet=True)
    display.say("early")
    display.log_to(full)
    display.say("one")
    display.warn("two")
    full.unlink()
    display.say("three")
    display.say("four")
    assert said(full) == ["early", "one", "warning: two", "three", "four"]


def test_of_what_never_could_be_written_the_last_lines_are_kept(full: Path) -> None:
    display = Display(quiet=True)
    display.log_to(full)
    for i in range(5000):
        display.say(f"line {i}")
    full.unlink()
    display.say("the end")
    kept = said(full)
    assert kept == [*(f"line {i}" for i in range(5001 - len(kept), 5000)), "the end"]
    assert 100 < len(kept) < 5000
