"""What format the bytes of an image file have, and whether the file ends before its image does."""

from imgclf.data import jpeg

_STARTS = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "BMP": (b"BM",),
    "PPM": (b"P4", b"P5", b"P6"),
}
_ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "PPM": (".ppm", ".pgm", ".pbm"),
}
_NAMED = {ending: name for name, endings in _ENDINGS.items() for ending in endings}
FORMATS = ("", *_ENDINGS)
"""All that are known, after the one that is none."""


def format_of(encoded: bytes) -> str:
    """The format by content: "JPEG", "PNG", "WEBP", ...; "" for none that is known.

    >>> format_of(b"GIF89a...")
    'GIF'
    """
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        return "WEBP"
    return next((name for name, starts in _STARTS.items() if encoded.startswith(starts)), "")


def format_named(name: str) -> str:
    """The format that the ending of a file's name stands for; "" for none, or one not known.

    >>> format_named("n01440764/tench.JPEG"), format_named("train/17")
    ('JPEG', '')
    """
    _, dot, ending = name.rpartition(".")
    return _NAMED.get(dot + ending.lower(), "")


def is_cut(encoded: bytes) -> bool:
    """Whether a file lacks its end, by the marks and lengths that its format puts there.

    Decoders differ here: libjpeg fills the rest with grey, Pillow refuses most of what is cut but
    takes a PNG without its last block. Of a TIFF only a table beyond the end is seen.
    """
    kind, size = format_of(encoded), len(encoded)
    if kind == "JPEG":  # a preview inside has an end of its own, before the scan
        header = jpeg.header_of(encoded)
        scan = header.scan if header else max(0, encoded.rfind(b"\xff\xda"))
        return encoded.find(b"\xff\xd9", scan) < 0
    if kind == "PNG":
        end = encoded.rfind(b"IEND")
        return end < 0 or end + 8 > size  # a checksum follows
    if kind == "WEBP":
        return int.from_bytes(encoded[4:8], "little") + 8 > size
    if kind == "GIF":
        return not _leads_to_its_end(encoded)
    if kind == "BMP":
        return int.from_bytes(encoded[2:6], "little") > size
    if kind == "TIFF" and encoded[:4] in (b"II*\0", b"MM\0*"):
        return int.from_bytes(encoded[4:8], "little" if encoded[:1] == b"I" else "big") > size
    return False


def _leads_to_its_end(gif: bytes) -> bool:
    try:
        at = 13 + _table(gif[10])
        while gif[at] != ord(";"):
            if gif[at] not in b",!":  # between blocks, where Pillow passes it by, too
                at += 1
                continue
            at += 11 + _table(gif[at + 9]) if gif[at] == ord(",") else 2
            while gif[at]:
                at += 1 + gif[at]
            at += 1
    except IndexError:
        return False
    return True


def _table(flags: int) -> int:
    return 3 << (1 + (flags & 7)) if flags & 128 else 0  # bytes of colours


def is_hidden(name: str) -> bool:
    """Whether a file or folder is no part of the data: hidden, or macOS's notes in an archive."""
    return name.startswith(".") or name == "__MACOSX"
