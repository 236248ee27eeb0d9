"""The one decoder of pictures: what training, embedding, evaluating and reading see of a file."""

import io

from PIL import Image


def decode(data: bytes, least: tuple[int, int] | None = None) -> Image.Image:
    """The picture in RGB. Raises ValueError with a reason a person understands.

    A JPEG comes at a half, a quarter or an eighth of its size where `least` (width, height) allows that: then most of
    its data is not even transformed.
    """
    if not data:
        raise ValueError("it is empty")
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if least:
                picture.draft("RGB", least)
            return picture.convert("RGB")
    except Image.UnidentifiedImageError:
        raise ValueError("it is no picture") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error and more for damaged data
        raise ValueError(f"it is damaged ({error})") from error
