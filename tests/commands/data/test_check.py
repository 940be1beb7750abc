"""`imgclf data check` as a user types it: the table, the JSON, and the page."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Command = Callable[..., Any]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """mine/train and mine/val: 12 and 3 images of two classes, one of which is called <b>."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 3)):
        for name in ("ant", "<b> & c"):
            folder = tmp_path / "mine" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (40 + i, 48, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return tmp_path / "mine"


def spoil(mine: Path) -> None:
    train, val = mine / "train", mine / "val"
    (train / "ant" / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0nothing more")
    (train / "ant" / "text.png").write_bytes(b"<html>")
    shutil.copy(train / "ant" / "00.png", train / "<b> & c" / "other.png")
    shutil.copy(train / "ant" / "01.png", val / "ant" / "leak.png")
    Image.new("L", (48, 48), 255).save(val / "ant" / "white.gif")


class Page(HTMLParser):
    """What is in a page: its text, its images, and the tags left open."""

    def __init__(self, text: str):
        super().__init__()
        self.words, self.images, self.open, self.others = "", [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in ("img", "meta"):
            self.open.append(tag)
        self.others.update(value for name, value in attrs if name in ("src", "href"))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words += data


def test_a_spoilt_set_is_told_on_the_terminal_as_json_and_as_a_page(
    imgclf: Command, mine: Path, tmp_path: Path
) -> None:
    spoil(mine)
    ended = imgclf("data", "check", "mine")
    assert (ended.status, ended.err) == (0, "")
    assert re.search(r"^conflict +2 +- ", ended.out, re.MULTILINE)
    assert re.search(r"^leak +1 +1 ", ended.out, re.MULTILINE)
    assert "leak: train/ant/01.png, val/ant/leak.png: 2 with the same pixels" in ended.out
    assert "train: 27 images of 48 x 40 to 51 px, 2 classes of 13 to 14, 1.08 to 1" in ended.out

    listed = json.loads((tmp_path / "check-mine" / "check.json").read_text())
    found = {
        (each["kind"], *(f"{image['part']}/{image['id']}" for image in each["images"]))
        for each in listed["findings"]
    }
    assert found == {
        ("leak", "train/ant/01.png", "val/ant/leak.png"),
        ("conflict", "train/<b> & c/other.png", "train/ant/00.png"),
        ("truncated", "train/ant/bad.jpg"),
        ("unreadable", "train/ant/text.png"),
        ("near-empty", "val/ant/white.gif"),
    }
    assert listed["parts"]["val"]["fewer_than_10"] == ["<b> & c", "ant"]

    page = Page((tmp_path / "check-mine" / "check.html").read_text(encoding="utf-8"))
    assert page.open == []
    for kind, *names in found:
        assert f"{kind} (1)" in page.words
        assert all(name in page.words for name in names), names
    assert all(each.startswith(("data:image/", "#")) for each in page.others), "it loads others"
    assert len(page.images) == 5 + 5  # plots, and thumbnails of what can be read
    for image in page.images:
        assert len(image["alt"]) > 5
        content = base64.b64decode(image["src"].partition("base64,")[2])
        with Image.open(io.BytesIO(content)) as opened:
            opened.load()
            assert min(opened.size) > 30


def test_a_clean_set_has_no_findings_and_a_page_all_the_same(
    imgclf: Command, mine: Path, tmp_path: Path
) -> None:
    ended = imgclf("data", "check", str(mine), "--out", "here", "--threads", "1")
    assert (ended.status, ended.err) == (0, "")
    listed = json.loads((tmp_path / "here" / "check.json").read_text())
    assert listed["findings"] == [] and set(listed["parts"]) == {"train", "val"}
    assert "(1)" not in Page((tmp_path / "here" / "check.html").read_text()).words


def test_images_of_another_source_are_found(imgclf: Command, mine: Path, tmp_path: Path) -> None:
    shutil.copytree(mine / "val", tmp_path / "other")
    ended = imgclf("data", "check", "mine", "--against", "other")
    assert (ended.status, ended.err) == (0, "")
    assert re.search(r"^leak +- +6 +6 ", ended.out, re.MULTILINE), ended.out
    assert "leak: 3 more" in ended.out
    listed = json.loads((tmp_path / "check-mine" / "check.json").read_text())
    assert list(listed["parts"]) == ["train", "val", "other"]
    shutil.copytree(tmp_path / "other", tmp_path / "val")
    assert " val (other)" in imgclf("data", "check", "mine", "--against", "val").out


def test_a_recipe_is_checked_by_its_sources(imgclf: Command, tmp_path: Path) -> None:
    ended = imgclf("data", "check", "digits")
    assert (ended.status, ended.err) == (0, "")
    assert "train: 1,437 images of 8 x 8 px, 10 classes of" in ended.out
    assert (tmp_path / "check-digits" / "check.html").is_file()


def test_checking_a_path_needs_no_jax(mine: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from imgclf.commands import main; assert main(['data', 'check', 'mine']) == 0;"
        "sys.exit(', '.join({'jax', 'grain', 'flax'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_names_that_are_no_utf_8_are_shown_with_escapes(mine: Path, tmp_path: Path) -> None:
    spoil(mine)
    os.rename(mine / "train" / "ant" / "bad.jpg", mine / "train" / "ant" / os.fsdecode(b"\xe9.jpg"))
    for part in ("train", "val"):
        os.rename(mine / part / "ant", mine / part / os.fsdecode(b"\xe4nt"))
    os.rename(mine, tmp_path / os.fsdecode(b"mine\xe9"))
    code = "from imgclf.commands import main; assert main(['data', 'check', 'mine\\udce9']) == 0"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    name = "train/\\udce4nt/\\udce9.jpg"
    assert f"truncated: {name}" in done.stdout.decode()
    folder = tmp_path / os.fsdecode(b"check-mine\xe9")
    assert name in Page((folder / "check.html").read_text(encoding="utf-8")).words
    assert json.loads((folder / "check.json").read_text())["findings"]


def test_mistakes_are_said_in_a_line(refused: Command, mine: Path) -> None:
    assert refused("data", "check") == "`imgclf data check` takes one source; got none"
    assert "did you mean the recipe 'digits'?" in refused("data", "check", "digit")
    assert "There is nothing at nowhere/x" in refused("data", "check", "nowhere/x")
    assert "Unknown option '--agianst'" in refused("data", "check", "mine", "--agianst", "x")
    (mine / "file").write_text("")
    assert "`--out` must be a folder" in refused("data", "check", "mine", "--out", "mine/file")
    assert "`--threads` must be a whole" in refused("data", "check", "mine", "--threads", "-1")
    for image in (mine / "val").rglob("*.png"):
        image.write_bytes(b"")
    assert "No image of 'val' can be read" in refused("data", "check", "mine")


def test_the_page_fits_a_phone(imgclf: Command, mine: Path, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if browser is None:
        pytest.skip("there is no chromium or google-chrome to show the page")
    spoil(mine)
    imgclf("data", "check", "mine", "--out", "out")
    html = (tmp_path / "out" / "check.html").read_text()
    probe = (
        "<script>document.title = [document.documentElement.scrollWidth, innerWidth,"
        " [...document.images].every(each => each.naturalWidth > 0)].join(' ')</script></body>"
    )
    (tmp_path / "out" / "probed.html").write_text(html.replace("</body>", probe))
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/browser"]
    words += ["--window-size=500,900", "--dump-dom", (tmp_path / "out/probed.html").as_uri()]
    done = subprocess.run([browser, *words], capture_output=True, text=True, timeout=100)
    found = re.search(r"<title>(\d+) (\d+) (\w+)</title>", done.stdout)
    assert found, done.stderr
    assert int(found[1]) <= int(found[2]) and found[3] == "true", "too wide, or an image is broken"
