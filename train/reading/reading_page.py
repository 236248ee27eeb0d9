"""The page of `dptr serve`: pictures dropped on it are read. Nothing is written, and the page asks no other machine."""

import asyncio
import io
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment
from PIL import Image
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from models.decoders import confidence
from models.recogniser import Recogniser
from sources.pictures import decode
from train.reading.attention import attention_maps, has_attention
from train.reading.attention_page import heat_maps
from train.reading.read import UNSURE

LARGEST = 20_000_000  # bytes of a picture
SECONDS = 20.0  # for sending a picture, waiting for those before it, and reading it
UNSURE_CHARACTER = 0.8
SHOWN = (1280, 288)  # pixels of the picture on the page, at most
# of what is on the page, only itself may run, and only this server is asked
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}


def read_for_page(recogniser: Recogniser, data: bytes) -> dict[str, Any]:
    """What the page shows of an encoded picture: text, confidence, the picture, and of each character where it looked.

    Pictures are data URLs of JPEGs. `looked` is None if the decoder's attention cannot be drawn. ValueError with the
    reason if it is no picture. The recogniser must be in evaluation mode.
    """
    vision = recogniser.config.vision
    picture = vision.upright(decode(data))
    device = next(recogniser.parameters()).device
    pixels = vision.pixels(picture)[None].to(device)
    (text,), shares = recogniser.read_characters(pixels)
    looked: list[str | None] = [None] * len(text)
    if text and has_attention(recogniser):
        looked = [_address(tile) for tile in heat_maps(picture, attention_maps(recogniser, pixels)[1][0])]
    sure = float(confidence(shares)[0])
    characters = [
        {"character": character, "confidence": share, "unsure": share < UNSURE_CHARACTER, "looked": tile}
        for character, share, tile in zip(text, shares[0].tolist(), looked, strict=False)
    ]
    picture.thumbnail(SHOWN)
    shown = {"picture": _address(picture), "text": text, "confidence": sure, "unsure": sure < UNSURE}
    return {**shown, "characters": characters}


def reading_app(
    title: str, read: Callable[[bytes], dict[str, Any]], hosts: list[str], seconds: float = SECONDS
) -> FastAPI:
    """The page at /, and POST /read: an encoded picture as the body, what `read` returns as JSON.

    Or {"problem": a reason} with status 422 for what `read` raises ValueError for, 413 for more than LARGEST bytes, 503
    after `seconds`. `read` runs in a thread, for one picture at a time. Requests for other `hosts` than these are
    refused, or a web site could give its own name this address and see what is read; "*" allows all.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)  # its own pages would load scripts from elsewhere
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    reader = ThreadPoolExecutor(1, "reader")
    page = _page(title)

    @app.get("/")
    async def show() -> HTMLResponse:
        return HTMLResponse(page, headers=HEADERS)

    @app.post("/read")
    async def answer(request: Request) -> JSONResponse:
        try:
            async with asyncio.timeout(seconds):
                data = await _body(request)
                if data is None:
                    return _problem(413, f"it is larger than {LARGEST // 1_000_000} MB")
                return JSONResponse(await asyncio.get_running_loop().run_in_executor(reader, read, data))
        except TimeoutError:
            return _problem(503, f"it took longer than {seconds:g} seconds")
        except ClientDisconnect:  # nobody is there to be told
            return _problem(400, "it was not sent as a whole")
        except ValueError as error:
            return _problem(422, str(error))

    return app


async def _body(request: Request) -> bytes | None:
    """What was sent; None if that is too much, which is noticed on the way."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > LARGEST:
            return None
    return bytes(data)


def _problem(status: int, why: str) -> JSONResponse:
    return JSONResponse({"problem": why}, status)


def _page(title: str) -> str:
    templates = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = files("train.reading").joinpath("reading_page.html").read_text("utf-8")
    return templates.from_string(text).render(title=title, largest=LARGEST)


def _address(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
