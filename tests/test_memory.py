"""A command asks for huge pages by starting anew."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imgclf.memory import SETTING

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
PROGRAM = """
import os, sys
from imgclf.memory import ask_for_huge_pages
ask_for_huge_pages()
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), *sys.argv[1:])
"""


def run(**setting: str) -> list[str]:
    """What the program prints, after the id that its process has from beginning to end."""
    environment = {k: v for k, v in os.environ.items() if k != SETTING[0]} | setting
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", PROGRAM, "two", "words here"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        said, _ = process.communicate(timeout=60)
    pid, *rest = said.rstrip("\n").split(" ", 2)
    assert (process.returncode, pid) == (0, str(process.pid))
    return rest


@pytest.mark.skipif(
    not ENABLED.exists() or "[madvise]" not in ENABLED.read_text(),
    reason="the kernel does not give huge pages on request",
)
def test_it_starts_anew_as_the_same_process_with_the_same_words():
    assert run() == [SETTING[1], "two words here"]


def test_what_a_person_has_set_stays():
    assert run(GLIBC_TUNABLES="glibc.malloc.check=0") == [
        "glibc.malloc.check=0",
        "two words here",
    ]
