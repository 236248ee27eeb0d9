"""The one decoder of pictures: what embedding, training, evaluating and reading see of a file."""

import io
import re
import warnings
from contextlib import suppress

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin
from PIL.JpegImagePlugin import JpegImageFile

from sources.missing import NoPicture

# What `decode` does, for banks to say how their pictures were decoded: whatever changes a pixel changes this.
DECODING = "turned as EXIF says, transparency over white, deep grey scaled to 8 bit"
FORMATS = ("PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")  # and JPEG; none that starts a program
THUMBNAIL = 64
PIXELS = 100_000_000  # of a picture once it is decoded: 400 MB, which are needed twice
RANGES = (1, 255, 65535)  # usual largest values of pixels of 32 bits, which do not say theirs
TURNS: dict[object, Image.Transpose] = {  # EXIF's number for how the camera was held, to what turns the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = [TURNS[number] for number in (5, 6, 7, 8)]  # these swap width and height
PILLOWS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)  # silences Pillow's warnings

PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY  # 64 MB: a long comment is no damage


def decode(data: bytes, least: tuple[int, int] | None = None) -> Image.Image:
    """The encoded picture in RGB as a viewer shows it. Raises ValueError with a reason that a person understands.

    It is turned as its EXIF says, what is transparent lies over white, and grey of 16 or 32 bits is scaled to 8, where
    Pillow alone would cut it off. A JPEG comes at a half, a quarter or an eighth of its size where `least` (width,
    height), of the picture turned, allows that: then most of its data is not even transformed.
    """
    if not data:
        raise ValueError(data.why if isinstance(data, NoPicture) else "it is empty")
    if PILLOWS not in warnings.filters:  # of tags that nobody reads, and of sizes, which are looked at below
        warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        with _opened(data) as picture:
            pixels = picture.width * picture.height
            if least and isinstance(picture, JpegImageFile):
                picture.draft("RGB", least[::-1] if _turn(picture) in SIDEWAYS else least)
                if "progressive" not in picture.info:  # of those, libjpeg keeps every coefficient
                    pixels = picture.width * picture.height
            if pixels > PIXELS:
                raise Image.DecompressionBombError
            picture.load()
            turn, rgb = _turn(picture), _rgb(picture)
            return rgb if turn is None else rgb.transpose(turn)
    except Image.UnidentifiedImageError:
        raise ValueError("it is not a picture") from None
    except (Image.DecompressionBombError, MemoryError):
        raise ValueError("it has too many pixels") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error and more for damaged data
        raise ValueError(f"it is damaged ({error})") from error


def thumbnail(data: bytes) -> bytes:
    """The encoded picture as a JPEG of 1 or 2 kB, THUMBNAIL wide or high. Raises ValueError as `decode` does."""
    picture, small = decode(data, (THUMBNAIL, THUMBNAIL)), io.BytesIO()
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    picture.save(small, "JPEG", quality=75)
    return small.getvalue()


def _opened(data: bytes) -> Image.Image:
    """The picture, not yet decoded; a JPEG not through Image.open, whose limit would count pixels before `draft`."""
    file = io.BytesIO(data)
    return JpegImageFile(file) if data.startswith(b"\xff\xd8\xff") else Image.open(file, formats=FORMATS)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """What turns a picture upright; None if it is so already."""
    with suppress(Exception):  # EXIF that cannot be read is no reason to refuse a picture
        return TURNS.get(picture.getexif().get(ExifTags.Base.Orientation))
    return None


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return _eight_bit(picture).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    white = Image.new("RGB", picture.size, "white")
    picture = picture.convert("RGBA")
    white.paste(picture, mask=picture)
    return white


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits or, scaled by the least of the usual ranges that holds all its pixels, of 32."""
    deep, clear = np.asarray(picture), picture.info.get("transparency")
    low, high = 0.0, 65535.0
    if not picture.mode.startswith("I;16"):
        deep = np.nan_to_num(deep.astype(np.float32), posinf=0, neginf=0)
        low, high = min(0.0, float(deep.min())), float(deep.max())
        high = next((most for most in RANGES if high <= most), high)
    scale = 255 / (high - low)
    grey = np.rint(deep * np.float32(scale) - np.float32(low * scale)).astype(np.uint8)
    if clear is not None:  # the one value that a PNG of 16 bits says is transparent
        grey[deep == clear] = 255
    return Image.fromarray(grey)
