import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import DataError, FileFact, file_fact
from data._decode import decode, stored_shape
from tests.data._files import write_image

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2])


def saved(path: Path, image: Image.Image) -> Path:
    image.save(path)
    return path


def test_colours_are_kept_as_stored(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(COLOUR.transpose(1, 2, 0).copy()))
    assert np.array_equal(decode(path, size=None).numpy(), COLOUR)
    assert stored_shape(path) == (3, 3, 4)


def test_greyscale_is_repeated_over_three_channels(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(GREY))
    assert np.array_equal(decode(path, size=None).numpy(), np.stack([GREY] * 3))


def test_black_and_white_becomes_0_and_255(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(GREY > 100))
    assert np.array_equal(decode(path, size=None).numpy(), np.stack([(GREY > 100) * 255] * 3))


def test_sixteen_bits_keep_their_upper_eight(tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16) * 256 + 99
    path = saved(tmp_path / "a.png", Image.fromarray(deep))
    assert np.array_equal(decode(path, size=None).numpy(), np.stack([GREY] * 3))


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.fromarray(GREY // 60, mode="L").convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 1, 2, 3])
    path = saved(tmp_path / "a.png", image)
    table = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [1, 2, 3]])
    assert np.array_equal(decode(path, size=None).numpy(), table[GREY // 60].transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_laid_over_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    path = saved(tmp_path / "a.tiff" if mode == "PA" else tmp_path / "a.png", image.convert(mode))
    assert decode(path, size=None)[:, 0].tolist() == [[0, 255]] * 3


def test_a_transparent_palette_entry_is_laid_over_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([0, 0, 0, 9, 9, 9])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=1)
    assert decode(tmp_path / "a.png", size=None)[:, 0].tolist() == [[0, 255]] * 3


def test_cmyk_is_converted(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tiff", Image.new("CMYK", (2, 1), (0, 255, 255, 0)))
    assert decode(path, size=None)[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(("mode", "what"), [("I", "signed values"), ("F", "floating-point values")])
def test_a_pixel_format_without_an_8_bit_form_is_refused_by_name(
    tmp_path: Path, mode: str, what: str
) -> None:
    path = saved(tmp_path / "deep.tiff", Image.new(mode, (2, 2), 7))
    with pytest.raises(DataError, match=f"deep.tiff has {what}, which have no agreed 8-bit form"):
        decode(path, size=None)


def tiff(path: Path, values: np.ndarray) -> Path:
    """Write a baseline TIFF of signed integers by hand: Pillow writes none."""
    height, width = values.shape
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    tags = {256: width, 257: height, 258: 8 * values.itemsize, 259: 1, 262: 1, 273: 8, 277: 1}
    tags |= {278: height, 279: len(data), 339: 2}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = b"II*\0" + struct.pack("<I", 8 + len(data))
    path.write_bytes(header + data + struct.pack("<H", len(tags)) + entries + bytes(4))
    return path


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_signed_values_are_refused_by_name(tmp_path: Path, dtype: type) -> None:
    path = tiff(tmp_path / "scan.tif", np.arange(-6, 6, dtype=dtype).reshape(3, 4))
    with pytest.raises(DataError, match=r"scan\.tif has signed values, which have no agreed 8-bit"):
        decode(path, size=None)


@pytest.mark.parametrize("top", [255, 4095, 65535])
def test_a_pgm_is_scaled_by_the_maximum_that_it_states(tmp_path: Path, top: int) -> None:
    values = np.array([[0, top // 2, top]], dtype=np.uint16)
    body = values.astype(np.uint8 if top < 256 else ">u2").tobytes()
    (tmp_path / "a.pgm").write_bytes(f"P5 3 1 {top}\n".encode() + body)
    assert decode(tmp_path / "a.pgm", size=None)[1].tolist() == [[0, 127, 255]]


@pytest.mark.parametrize("extension", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_the_upper_8_of_the_bits_in_use_are_kept(tmp_path: Path, extension: str, bits: int) -> None:
    deep = GREY.astype(np.uint16) << (bits - 8)
    path = saved(tmp_path / f"a.{extension}", Image.fromarray(deep))
    found = decode(path, size=None, grey_bits=bits).numpy()
    assert np.array_equal(found, np.stack([GREY] * 3))


def test_a_value_beyond_the_bits_in_use_names_the_file_and_the_key(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(np.full((2, 2), 4096, dtype=np.uint16)))
    with pytest.raises(
        DataError, match=r"a\.png has the grey value 4096, beyond data\.grey_bits=12"
    ):
        decode(path, size=None, grey_bits=12)


@pytest.mark.parametrize("extension", ["gif", "webp", "png", "tif", "mpo"])
def test_of_several_frames_or_pages_it_is_the_first(tmp_path: Path, extension: str) -> None:
    frames = [Image.new("RGB", (6, 6), (grey,) * 3) for grey in (120, 0, 255)]
    path = tmp_path / f"a.{extension}"
    options = {"lossless": True} if extension == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    assert decode(path, size=None).unique().tolist() == [120]


def test_an_orientation_in_the_exif_data_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # turned by 90 degrees
    Image.new("RGB", (6, 2)).save(tmp_path / "a.jpg", exif=exif)
    assert decode(tmp_path / "a.jpg", size=None).shape == (3, 2, 6)


def test_an_image_of_more_pixels_than_pillow_opens_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = saved(tmp_path / "a.png", Image.new("L", (7, 3)))
    with pytest.raises(DataError, match=r"a\.png has more pixels than Pillow opens \(20\): shrink"):
        decode(path, size=None)


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "bmp", "gif"])
def test_a_truncated_file_is_named_in_one_line(tmp_path: Path, extension: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = saved(tmp_path / f"cut.{extension}", Image.fromarray(pixels))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"cut.{extension} cannot be read as an image") as error:
        decode(path, size=None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"hello", "it has no known image format"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), ".+"),
    ],
)
@pytest.mark.parametrize("reader", [lambda path: decode(path, size=None), stored_shape])
def test_a_file_that_is_no_image_is_named(
    tmp_path: Path, content: bytes, reason: str, reader: Callable[[Path], object]
) -> None:
    (tmp_path / "notes.png").write_bytes(content)
    expected = rf"notes.png cannot be read as an image \({reason}\): replace it or remove it$"
    with pytest.raises(DataError, match=expected) as caught:
        reader(tmp_path / "notes.png")
    assert str(caught.value).count("notes.png") == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.png cannot be read as an image \(No such file or"):
        decode(tmp_path / "gone.png", size=None)


@pytest.mark.parametrize(("name", "form"), [("a.jpg", "PNG"), ("a.png", "JPEG"), ("a", "BMP")])
def test_the_content_of_a_file_says_what_it_is_and_not_its_name(
    tmp_path: Path, name: str, form: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / name, format=form)
    with Image.open(tmp_path / name) as stored:
        expected = np.asarray(stored.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(decode(tmp_path / name, size=None).numpy(), expected)
    fact = file_fact(tmp_path / name)
    assert isinstance(fact, FileFact)
    assert fact.format == form


def test_size_resizes_the_shorter_side_and_keeps_the_centre_square(tmp_path: Path) -> None:
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = (200, 100, 50)
    path = saved(tmp_path / "wide.png", Image.fromarray(wide))
    square = decode(path, size=4)
    assert square.shape == (3, 4, 4)
    assert square[:, :, 1:3].float().mean((1, 2)).tolist() == [200, 100, 50]


def test_an_image_that_has_the_size_already_is_kept_as_it_is(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", width=5, height=5)
    assert decode(path, size=5).equal(decode(path, size=None))
