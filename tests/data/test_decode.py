"""Bytes to RGB: as Pillow says, for every format and kind of pixel; a reason for what is broken."""

import csv
import io
import struct
import sys
import threading
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from imgclf.data.decode import BadImage, decode, decode_for, upright
from imgclf.data.plan import Plan


def photo(mode="RGB", height=60, width=80):
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def by_pillow(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_photographs_come_out_as_pillow_decodes_them_to_the_bit(shared):
    folder = shared / "data" / "imagenet_samples"
    rows = list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))
    for row in rows[::4]:
        data = (folder / row["path"]).read_bytes()
        np.testing.assert_array_equal(decode(data, exif=False), by_pillow(data), row["path"])


def test_a_photograph_noted_as_lying_on_its_side_is_turned_unless_switched_off(shared):
    (path,) = (shared / "data" / "imagenet_samples").glob("*/n02951585_can_opener.JPEG")
    data = path.read_bytes()
    turned, plain = decode(data), decode(data, exif=False)
    assert turned.shape == (plain.shape[1], plain.shape[0], 3)
    upright_there = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    np.testing.assert_array_equal(turned, np.asarray(upright_there))


@pytest.mark.parametrize("fill", [b"", b"\xff"])  # with it, the header is nothing usual
def test_the_mark_of_a_scan_in_a_note_before_does_not_hide_the_orientation(fill):
    note = Image.Exif()
    note[0x0112] = 6
    data = encoded(photo(), "JPEG", exif=note)
    data = data[:2] + fill + b"\xff\xfe\0\6\xff\xda12" + data[2:]
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert expected.size == (60, 80)
    np.testing.assert_array_equal(decode(data), np.asarray(expected))
    image, _ = decode_for(lambda h, w: Plan(0, 0, w, h, 8, 8), data)
    np.testing.assert_array_equal(image, np.asarray(expected))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
def test_every_format_comes_out_as_rgb(kind, mode):
    data = encoded(photo(mode), kind)
    image = decode(data)
    assert image.dtype == np.uint8 and image.shape == (60, 80, 3)
    np.testing.assert_array_equal(image, by_pillow(data))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("P", "PNG"),
        ("P", "GIF"),
        ("P", "TIFF"),
        ("P", "BMP"),
        ("RGBA", "PNG"),
        ("RGBA", "WEBP"),
        ("LA", "PNG"),
        ("LA", "TIFF"),
    ],
)
def test_palettes_and_alpha_channels_come_out_as_rgb(mode, kind):
    data = encoded(photo("L").convert(mode) if mode == "LA" else photo(mode), kind)
    np.testing.assert_array_equal(decode(data), by_pillow(data))


def test_a_palette_with_transparent_colours_keeps_its_colours():
    data = encoded(photo("P"), "PNG", transparency=bytes(range(256)))
    np.testing.assert_array_equal(decode(data), np.asarray(photo("P").convert("RGB")))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_which_the_fast_decoder_refuses_comes_out_as_rgb(kind):
    image = decode(encoded(photo("CMYK"), kind)).astype(int)
    assert np.abs(image - np.asarray(photo())).mean() < 6


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_keep_their_upper_eight(kind):
    values = np.linspace(0, 65535, 60 * 80).astype(np.uint16).reshape(60, 80)
    image = decode(encoded(Image.fromarray(values), kind))
    np.testing.assert_array_equal(image, np.repeat(values[..., None] >> 8, 3, axis=2))


def test_sixteen_bits_of_a_tiff_whose_zero_is_white_come_out_as_they_look():
    values = np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)
    image = decode(encoded(Image.fromarray(values), "TIFF", tiffinfo={262: 0}))
    np.testing.assert_array_equal(image[..., 0], (65535 - values) >> 8)


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_of_colour_and_alpha_keep_the_upper_eight_of_the_colours(
    colour_type, channels
):
    values = np.random.default_rng(0).integers(0, 65536, (6, 8, channels)).astype(">u2")
    lines = b"".join(b"\0" + line.tobytes() for line in values)
    head = struct.pack(">IIBBBBB", 8, 6, 16, colour_type, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    )
    colours = values[..., :3] if channels > 2 else np.repeat(values[..., :1], 3, axis=2)
    np.testing.assert_array_equal(decode(data), colours >> 8)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_several_frames_the_first_is_taken(kind):
    first, second = Image.new("RGB", (8, 6), (200, 0, 0)), Image.new("RGB", (8, 6), (0, 0, 200))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(first, kind, save_all=True, append_images=[second], **options)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.n_frames == 2
    np.testing.assert_array_equal(decode(data), np.asarray(first))


@pytest.mark.parametrize("mode", ["CMYK", "L"])
def test_orientation_is_undone_also_where_the_fast_decoder_is_not_used_or_sees_grey(mode):
    note = Image.Exif()
    note[0x0112] = 6
    data = encoded(photo(mode), "JPEG", exif=note)
    plain = decode(data, exif=False)
    assert plain.shape == (60, 80, 3)
    np.testing.assert_array_equal(decode(data), np.rot90(plain, -1))


def test_progressive_and_grey_jpegs_are_the_same_as_pillows():
    for options in ({"progressive": True}, {"subsampling": 0}, {"subsampling": 2}, {"quality": 5}):
        data = encoded(photo(), "JPEG", **options)
        np.testing.assert_array_equal(decode(data), by_pillow(data))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_is_undone_and_a_senseless_one_ignored(kind, orientation):
    note = Image.Exif()
    note[0x0112] = orientation
    data = encoded(photo(), kind, exif=note)
    with Image.open(io.BytesIO(data)) as opened:
        expected = ImageOps.exif_transpose(opened).convert("RGB")
    np.testing.assert_array_equal(decode(data), np.asarray(expected))
    as_it_lies = encoded(photo(), kind)
    np.testing.assert_array_equal(decode(data, exif=False), by_pillow(as_it_lies))


def test_a_damaged_note_does_not_cost_the_image():
    note = Image.Exif()
    note[0x0112] = 6
    data = encoded(photo(), "JPEG", exif=note)
    at = data.index(b"Exif\0\0") + 6
    broken = data[:at] + b"\xff" * 8 + data[at + 8 :]
    assert decode(broken).shape == (60, 80, 3)


def test_turning_keeps_the_channels_apart():
    image = np.arange(2 * 3 * 1, dtype=np.uint8).reshape(2, 3, 1)
    assert upright(image, 6)[..., 0].tolist() == [[3, 0], [4, 1], [5, 2]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9])
def test_a_file_cut_short_is_told_of_in_a_line(kind, share):
    data = encoded(photo(), kind)
    with pytest.raises(BadImage) as caught:
        decode(data[: int(len(data) * share)])
    assert str(caught.value) and "\n" not in str(caught.value) and "0x" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"<html>404</html>", b"\xff\xd8\xff nonsense", b"%!PS-Adobe"]
)
def test_what_is_no_image_is_told_of_in_a_line(data):
    with pytest.raises(BadImage, match=r"the file is empty|not an image of a known format"):
        decode(data)


def test_fractions_of_no_known_range_are_refused():
    with pytest.raises(BadImage, match="fractions"):
        decode(encoded(photo("L").convert("F"), "TIFF"))


@pytest.mark.parametrize("values", [[0, 4_000_000], [-1, 200]])
def test_whole_numbers_of_no_known_range_are_refused(values):
    image = Image.fromarray(np.array([values], np.int32))
    with pytest.raises(BadImage, match=f"numbers from {values[0]} to {values[1]}"):
        decode(encoded(image, "TIFF"))


def test_a_header_that_promises_gigabytes_is_refused_before_they_are_taken():
    data = bytearray(encoded(photo(), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    with pytest.raises(BadImage, match="pixels"):
        decode(bytes(data))


def test_other_threads_run_while_a_jpeg_is_decoded():
    data = encoded(photo(height=3000, width=3000), "JPEG")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # so that only a thread that lets go of the lock lets others run
    try:
        assert any(_ran_meanwhile(data) for _ in range(20))
    finally:
        sys.setswitchinterval(interval)


def _ran_meanwhile(data):
    begun, ended = threading.Event(), threading.Event()

    def work():
        begun.set()
        decode(data)
        ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    meanwhile = not ended.is_set()
    thread.join()
    return meanwhile
