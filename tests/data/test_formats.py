"""Formats by content, and files that end too early."""

import io

import numpy as np
import pytest
from PIL import Image

from imgclf.data.formats import FORMATS, format_of, is_cut

KINDS = {
    "JPEG": {},
    "progressive": {"format": "JPEG", "progressive": True},
    "PNG": {},
    "WEBP": {},
    "GIF": {},
    "BMP": {},
    "TIFF": {"compression": "tiff_lzw"},
}


def saved(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, **{"format": kind} | KINDS[kind])
    return file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_the_format_of_a_whole_file_is_known_and_it_is_not_called_cut(kind):
    whole = saved(kind)
    assert format_of(whole) == ("JPEG" if kind == "progressive" else kind)
    assert not is_cut(whole)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "TIFF"])
def test_a_file_without_its_end_is_cut(kind):
    whole = saved(kind)
    ends = [len(whole) // 2, len(whole) * 9 // 10, len(whole) - 3]
    assert all(is_cut(whole[:end]) for end in ends)


def test_what_follows_the_end_of_a_jpeg_and_the_end_of_a_preview_inside_do_not_deceive():
    whole = saved("JPEG")
    assert not is_cut(whole + bytes(500))
    head, rest = whole[:2], whole[2:]
    preview = b"\xff\xe1" + (len(whole) + 2).to_bytes(2, "big") + whole
    assert not is_cut(head + preview + rest)
    assert is_cut((head + preview + rest)[:-200])


def test_what_is_no_image_has_no_format_and_is_not_called_cut():
    for content in (b"", b"\xff", b"<html>", bytes(100)):
        assert format_of(content) == "" and not is_cut(content)
    assert FORMATS[0] == ""
