"""The page of `dptr serve`: what it answers, and what it does in a real browser."""

import base64
import io
import re
import threading
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import pytest
from PIL import Image

from sources.pictures import decode
from tests.helpers.pictures import picture
from tests.helpers.serving import HOST, asked, serving
from train.reading import reading_page
from train.reading.read import read as read_files
from train.reading.reading_page import LARGEST, read_for_page
from train.run import load_recogniser

DATA = Path(__file__).parents[2] / "data" / "before-the-move"  # its run `fine` reads numbers, and is rarely sure
CROPS = sorted((DATA / "crops").glob("*.png"))


@pytest.fixture(scope="module")
def recogniser():
    return load_recogniser(DATA / "fine")[0]


@pytest.fixture(scope="module")
def port(recogniser):
    with serving(partial(read_for_page, recogniser)) as port:
        yield port


def decoded(address):
    kind, _, data = address.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_it_answers_what_dptr_read_prints(port):
    expected = read_files(DATA / "fine", [str(DATA / "crops")])
    for one in expected:
        status, _, found = asked(port, body=Path(one.image).read_bytes())
        assert status == 200
        assert found["text"] == one.text
        assert found["confidence"] == pytest.approx(one.confidence, rel=1e-3)
        assert found["unsure"] == one.unsure
        assert "".join(c["character"] for c in found["characters"]) == one.text
        assert [c["confidence"] for c in found["characters"]] == pytest.approx(one.characters, rel=1e-3)
        assert [c["unsure"] for c in found["characters"]] == [share < 0.8 for share in one.characters]
        assert decoded(found["picture"]).size == decode(Path(one.image).read_bytes()).size
        assert all(decoded(c["looked"]).height > 50 for c in found["characters"])
        assert len({c["looked"] for c in found["characters"]}) == len(one.text)
    assert {one.unsure for one in expected} == {True, False}


def test_a_decoder_without_attention_is_read_too(recogniser, monkeypatch):
    monkeypatch.setattr(reading_page, "has_attention", lambda _: False)
    found = read_for_page(recogniser, CROPS[0].read_bytes())
    assert found["text"]
    assert [c["looked"] for c in found["characters"]] == [None] * len(found["text"])


@pytest.mark.parametrize(
    ("body", "why"),
    [(b"no picture", "it is not a picture"), (b"", "it is empty"), (picture(1)[:300], "it is damaged (")],
)
def test_what_is_no_picture_is_said(port, body, why):
    status, _, found = asked(port, body=body)
    assert status == 422
    assert found["problem"].startswith(why)


def test_more_than_the_limit_is_not_even_received(port, monkeypatch):
    monkeypatch.setattr(reading_page, "LARGEST", 50_000)
    connection = HTTPConnection(HOST, port, timeout=20)
    connection.putrequest("POST", "/read")
    connection.putheader("Content-Length", str(10**9))
    connection.endheaders()
    connection.send(bytes(60_000))
    answer = connection.getresponse()
    assert answer.status == 413
    assert b"it is larger than" in answer.read()
    connection.close()


def test_who_takes_too_long_is_told():
    held = threading.Event()
    with serving(lambda data: held.wait(20) and {}, seconds=0.3) as port:
        assert asked(port, body=b"x")[0] == 503  # reading takes long
        status, _, found = asked(port, body=b"x")  # and so does waiting for it
        assert (status, found["problem"]) == (503, "it took longer than 0.3 seconds")
        held.set()
        connection = HTTPConnection(HOST, port, timeout=20)
        connection.putrequest("POST", "/read")
        connection.putheader("Content-Length", "10")
        connection.endheaders()
        connection.send(b"12345")  # sending takes long
        assert connection.getresponse().status == 503
        connection.close()


def test_who_hangs_up_leaves_no_trace(port, capfd):
    connection = HTTPConnection(HOST, port, timeout=20)
    connection.putrequest("POST", "/read")
    connection.putheader("Content-Length", "10")
    connection.endheaders()
    connection.send(b"12345")
    connection.close()
    assert asked(port, body=CROPS[0].read_bytes())[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_pictures_are_read_one_at_a_time():
    now, most = [], []

    def read(data):
        now.append(1)
        most.append(len(now))
        threading.Event().wait(0.02)
        now.pop()
        return {}

    with serving(read) as port:
        threads = [threading.Thread(target=asked, args=(port,), kwargs={"body": b"x"}) for _ in range(6)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert most == [1] * 6


def test_only_this_page_is_served_and_only_under_its_own_name(port):
    status, headers, page = asked(port, "GET", "/")
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "connect-src 'self'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert "<title>dptr: numbers &lt;&amp;&gt;</title>" in page
    assert not re.search(r"https?:|//\w|@import|url\(", page)
    for path in ("/docs", "/redoc", "/openapi.json", "/reading_page.html", "/%2e%2e/cli.py"):
        assert asked(port, "GET", path)[0] == 404
    for other in ("evil.example", f"evil.example:{port}"):  # a name that a web site pointed here
        assert asked(port, "GET", "/", headers={"Host": other})[0] == 400
        assert asked(port, body=CROPS[0].read_bytes(), headers={"Host": other})[0] == 400
    assert asked(port, "GET", "/", headers={"Host": f"localhost:{port}"})[0] == 200


@pytest.fixture
def opened(browser, port):
    """The page in a browser. It may ask this server alone, open no dialog and raise no error."""
    heard: list[str] = []
    with browser.new_context(viewport={"width": 400, "height": 800}, color_scheme="dark") as context:
        page = context.new_page()
        page.on("request", lambda request: heard.append(f"request {request.url}"))
        for event in ("dialog", "pageerror"):
            page.on(event, lambda what, event=event: heard.append(f"{event} {what}"))
        page.goto(f"http://{HOST}:{port}/")
        yield page
        own = [line for line in heard if line.startswith((f"request http://{HOST}:{port}/", "request data:"))]
        assert own == heard


def cards(page, count):
    """What the cards show, newest first, once all are read."""
    from playwright.sync_api import expect

    expect(page.locator("li")).to_have_count(count)
    expect(page.locator(".state", has_text="reading ...")).to_have_count(0)
    return page.locator("li").all()


def test_chosen_pictures_are_read(opened):
    opened.get_by_label("Choose pictures").set_input_files([*CROPS[:2], DATA / "words.txt"])
    text, *pictures = cards(opened, 3)
    assert text.inner_text() == "words.txt\n\nThis cannot be read: it is not a picture."
    for card, path in zip(pictures, CROPS[1::-1], strict=True):
        (one,) = read_files(DATA / "fine", [str(path)])
        assert card.locator(".name").inner_text() == path.name
        assert card.locator(".text").inner_text() == one.text
        said = f"{int(100 * one.confidence)}% confident{', unsure' if one.unsure else ''}"
        assert card.locator(".sure").inner_text() == said
        assert card.locator("mark").all_inner_texts() == [
            c for c, share in zip(one.text, one.characters, strict=True) if share < 0.8
        ]
        assert card.locator("figcaption b").all_inner_texts() == list(one.text)
        for tile in card.locator("img").all():
            assert tile.evaluate("one => one.decode().then(() => one.naturalWidth)") > 0
    assert opened.locator("body").evaluate("body => body.scrollWidth <= innerWidth")  # fits a phone


def test_dropped_and_pasted_pictures_are_read(opened):
    encoded = base64.b64encode(CROPS[0].read_bytes()).decode()
    for event, holder in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        opened.evaluate(
            """([event, holder, encoded]) => {
                const data = new DataTransfer(), bytes = Uint8Array.from(atob(encoded), c => c.charCodeAt(0));
                data.items.add(new File([bytes], `<b>${event}</b>.png`));
                const kind = event === "drop" ? DragEvent : ClipboardEvent;
                document.body.dispatchEvent(new kind(event, {[holder]: data, bubbles: true, cancelable: true}));
            }""",
            [event, holder, encoded],
        )
    pasted, dropped = cards(opened, 2)
    assert [card.locator(".name").inner_text() for card in (pasted, dropped)] == ["<b>paste</b>.png", "<b>drop</b>.png"]
    assert pasted.locator(".text").inner_text() == dropped.locator(".text").inner_text() != ""


def test_what_is_too_large_is_not_sent(opened):
    opened.evaluate(f"add(new File([new Uint8Array({LARGEST + 1})], 'large.png'))")
    (card,) = cards(opened, 1)
    assert card.locator(".state").inner_text() == "This cannot be read: it is larger than 20 MB."


def test_a_server_that_has_ended_is_said(browser, recogniser):
    with browser.new_context() as context:
        page = context.new_page()
        with serving(partial(read_for_page, recogniser)) as port:
            page.goto(f"http://{HOST}:{port}/")
        page.get_by_label("Choose pictures").set_input_files(CROPS[0])
        (card,) = cards(page, 1)
        assert card.locator(".state").inner_text().endswith("it is a folder, or dptr serve has ended.")
