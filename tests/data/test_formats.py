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


def film(kind):
    """What phones put behind an image, with the marks in it that stand in one by chance."""
    marks = b"\xff\xd8\xff\xd9\xff\xda;" if kind != "GIF" else b";,!"
    return b"\0\0\0\x18ftypmp42" + marks + b"\1\2\3"


@pytest.mark.parametrize("kind", ["JPEG", "progressive", "GIF"])
def test_a_film_behind_an_image_does_not_hide_its_end(kind):
    whole = saved(kind)
    assert not is_cut(whole + film(kind))
    assert is_cut(whole[:-200])


def test_the_frames_and_notes_of_a_gif_are_passed_over():
    frames = [
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (20, 30, 3), np.uint8))
        for i in range(3)
    ]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], comment=b";,!" * 200)
    whole = file.getvalue()
    assert not is_cut(whole) and not is_cut(whole + b"behind")
    assert all(is_cut(whole[:end]) for end in range(13, len(whole), 97))


def test_what_is_no_image_has_no_format_and_is_not_called_cut():
    for content in (b"", b"\xff", b"<html>", bytes(100)):
        assert format_of(content) == "" and not is_cut(content)
    assert FORMATS[0] == ""
