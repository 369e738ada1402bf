"""Fast decoding of the usual JPEG files; the unusual ones are left to Pillow."""

from __future__ import annotations

import errno
import os
import re
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from data._base import Size

JPEG = b"\xff\xd8\xff"  # how such a file begins (ITU-T T.81, section B.1)
_SEQUENTIAL = (0xC0, 0xC1)  # Huffman-coded baseline and extended (table B.1)
_FRAMES = (*_SEQUENTIAL, 0xC2)  # and progressive
_NO_FRAMES = (0xC4, 0xC8, 0xCC)  # tables and a reserved code among the frame codes C0 to CF
_RGB = 3  # torchvision.io.ImageReadMode.RGB
_ENDS = (0xD9, 0xDA)  # end of image; start of scan, after which no header follows
_STDERR = 2  # its file descriptor
# What libjpeg prints where a file has more rows than its header states.
_LEFT_OVER = re.compile(rb"Corrupt JPEG data: \d+ extraneous bytes before marker 0x[0-9a-f]+\r?\n")


class Frame(NamedTuple):
    """The frame header of a JPEG file.

    Args:
        size: Height and width in pixels.
        bits: Of a sample.
        components: Number of colour components.
        is_sequential: Whether rows follow each other in the file; in a progressive one, all of
            them become sharper together.
        at: Where in the file the two bytes of the height are.
    """

    size: Size
    bits: int
    components: int
    is_sequential: bool
    at: int

    @property
    def is_usual(self) -> bool:
        """Whether it is 8-bit grey or colour of three components, which all decoders agree on."""
        return self.bits == 8 and self.components in (1, 3)


def read_jpeg(path: Path) -> bytearray | None:
    """Read a file that begins as a JPEG does; None for any other."""
    with path.open("rb", buffering=0) as file:
        if file.read(len(JPEG)) != JPEG:
            return None
        content = bytearray(os.fstat(file.fileno()).st_size)
        file.seek(0)
        file.readinto(content)
        return content


def decode_jpeg(content: bytearray, *, most_pixels: int | None) -> Tensor | None:
    """Decode a JPEG file to uint8 (3, H, W), the pixels that Pillow gives.

    Both use libjpeg-turbo; without Pillow's copies between layouts it takes two thirds of the time.

    Args:
        content: The whole file; a tensor shares its memory, and so has to be able to write there.
        most_pixels: Images of more pixels are left to Pillow, which warns of them; None for none.

    Returns:
        None for anything but a usual frame, and where libjpeg gives up, as it does on a file that
        ends early. Of other damage it only prints a hint, and goes on.
    """
    frame = frame_of(content)
    if frame is None or not is_fast(frame, most_pixels=most_pixels):
        return None
    return _decoded(content)


def is_fast(frame: Frame, *, most_pixels: int | None) -> bool:
    """Return whether files of such a frame are decoded here; ``most_pixels`` as above."""
    if _operator() is None or not frame.is_usual:
        return False
    return most_pixels is None or frame.size.height * frame.size.width <= most_pixels


def decode_upper_rows(content: bytearray, frame: Frame, *, rows: int) -> Tensor | None:
    """Decode at least the first rows of a JPEG file, the same pixels as of the whole.

    Two thirds of the work is reading the codes, one after the other from the top. The header is
    made to state a height at which the decoder stops: one row more than asked for, since where
    the colours have half of the rows, each of these takes part in a pixel row of its neighbour.

    libjpeg then prints to the standard error that bytes are left over. That line is taken out of
    what the process prints there meanwhile; the rest, of other threads and of libjpeg about damage,
    comes out when this is done. Only one thread of a process may be in here at a time.

    Args:
        content: The whole file; it is as before when this returns.
        frame: Its header, for which :func:`is_fast` holds.
        rows: Number of rows.

    Returns:
        uint8 (3, rows or more, W); None where libjpeg gives up, as it does on a file that ends
        early. Of other damage it only prints a hint, and goes on.
    """
    height = frame.size.height
    if not frame.is_sequential or rows + 1 >= height:
        return _decoded(content)
    with _silent_about_left_over_bytes():
        struct.pack_into(">H", content, frame.at, rows + 1)
        pixels = _decoded(content)
        struct.pack_into(">H", content, frame.at, height)
    return pixels


def _decoded(content: bytearray) -> Tensor | None:
    operator = _operator()
    assert operator is not None
    try:
        return operator(torch.frombuffer(content, dtype=torch.uint8), _RGB, False)
    except RuntimeError:
        return None


@contextmanager
def _silent_about_left_over_bytes() -> Iterator[None]:
    """Collect what is printed to the standard error, and pass it on without that line."""
    try:
        kept = os.dup(_STDERR)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        yield  # it is closed: nothing is printed
        return
    try:
        collected = _collector(os.getpid())
        os.dup2(collected, _STDERR)
        try:
            yield
        finally:
            os.dup2(kept, _STDERR)
    finally:
        os.close(kept)
    if os.lseek(collected, 0, os.SEEK_CUR):
        _pass_on(collected)


def _pass_on(collected: int) -> None:
    """Print all of a file but that line, and empty it."""
    os.lseek(collected, 0, os.SEEK_SET)
    with open(collected, "rb", closefd=False) as file:
        printed = _LEFT_OVER.sub(b"", file.read())
    os.lseek(collected, 0, os.SEEK_SET)
    os.ftruncate(collected, 0)
    # As in C, a standard error that nobody reads any more is no reason to stop.
    with suppress(OSError), open(_STDERR, "wb", closefd=False) as stderr:
        stderr.write(printed)


@cache
def _collector(process: int) -> int:
    """Open an empty file for a process, in memory where the system has such.

    Args:
        process: Its number: a forked one would share the position in the file.
    """
    name = f"stderr-{process}-"
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile(prefix=name) as file:
        return os.dup(file.fileno())


@cache
def _operator() -> Callable[[Tensor, int, bool], Tensor] | None:
    """Return torchvision's decoder, None where it was built without.

    Its operator rather than ``torchvision.io.decode_jpeg``, which since 0.29 warns at every call
    that TorchCodec, a package of its own on top of FFmpeg, is to follow.
    """
    import torchvision.io  # noqa: F401 - registers the operator

    return getattr(torch.ops.image, "decode_jpeg", None)


def frame_of(content: bytearray) -> Frame | None:
    """Read the frame header; None where there is none of the Huffman-coded kinds."""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        code = content[at + 1]
        if code == 0xFF:  # a fill byte
            at += 1
            continue
        if code in _ENDS:
            return None
        (length,) = struct.unpack_from(">H", content, at + 2)
        if 0xC0 <= code <= 0xCF and code not in _NO_FRAMES:
            if code not in _FRAMES or at + 10 > len(content):
                return None
            bits, height, width, components = struct.unpack_from(">BHHB", content, at + 4)
            return Frame(Size(height, width), bits, components, code in _SEQUENTIAL, at + 5)
        at += 2 + length
    return None
