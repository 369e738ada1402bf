"""Fast decoding of the usual JPEG files; the unusual ones are left to Pillow."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from data._base import Size

JPEG = b"\xff\xd8\xff"  # how such a file begins (ITU-T T.81, section B.1)
_FRAMES = (0xC0, 0xC1, 0xC2)  # Huffman-coded baseline, extended and progressive (table B.1)
_NO_FRAMES = (0xC4, 0xC8, 0xCC)  # tables and a reserved code among the frame codes C0 to CF
_RGB = 3  # torchvision.io.ImageReadMode.RGB
_ENDS = (0xD9, 0xDA)  # end of image; start of scan, after which no header follows


class Frame(NamedTuple):
    """The frame header of a JPEG file."""

    size: Size
    bits: int
    components: int

    @property
    def is_usual(self) -> bool:
        """Whether it is 8-bit grey or colour of three components, which all decoders agree on."""
        return self.bits == 8 and self.components in (1, 3)


def decode_jpeg(content: bytearray, *, most_pixels: int | None) -> Tensor | None:
    """Decode a JPEG file to uint8 (3, H, W), the pixels that Pillow gives.

    Both use libjpeg-turbo; without Pillow's copies between layouts it takes two thirds of the time.

    Args:
        content: The whole file; a tensor shares its memory, and so has to be able to write there.
        most_pixels: Images of more pixels are left to Pillow, which warns of them; None for none.

    Returns:
        None for anything but a usual frame, and for a damaged or truncated file.
    """
    frame = frame_of(content)
    operator = _operator()
    if operator is None or frame is None or not frame.is_usual:
        return None
    if most_pixels is not None and frame.size.height * frame.size.width > most_pixels:
        return None
    try:
        return operator(torch.frombuffer(content, dtype=torch.uint8), _RGB, False)
    except RuntimeError:
        return None


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
            return Frame(Size(height, width), bits, components)
        at += 2 + length
    return None
