"""The page of misread words: what it holds, seen by a parser, and what it does, in a real browser."""

import base64
import io
import re
from dataclasses import dataclass
from html.parser import HTMLParser

import pytest
from PIL import Image

from sources.labelled import Labelled
from tests.helpers.pictures import picture
from tests.train.reading.test_score import distance_by_definition
from train.reading.errors_page import errors_page
from train.reading.result import Evaluation, Reading, set_result

NASTY = "<script>alert(1)</script>"


@dataclass(frozen=True)
class Misread:
    """A misread word of a set, and the picture on which it stands."""

    dataset: str
    truth: str
    reading: str
    confidence: float
    picture: bytes


# the worst first
MISREAD = [
    Misread("svt", "ab", "xyz", 0.2, picture(1, (20, 50))),  # 3 mistakes in 2 letters
    Misread("ic & <03>", NASTY, "", 0.9, picture(2, (200, 900), "JPEG")),  # 1, and sure of it
    Misread("svt", "Exit", "ABCD", 0.4, picture(3, (64, 10), "WEBP")),
    Misread("svt", "العربية", "العربيه \"'&", 0.9, picture(4, kind="BMP")),  # 5 in 7
    Misread("ic & <03>", "中文字", "中交字", 0.99, b"no picture"),  # 1 in 3
    Misread("ic & <03>", "$title", "$titled", 0.999, picture(5)),  # 1 in 6
    Misread("svt", "street", "Street", 0.5, b""),
]
SHUFFLED = [MISREAD[n] for n in (3, 6, 0, 5, 2, 4, 1)]


def evaluated(run: str, misread: list[Misread], words: int) -> tuple[Evaluation, list[Labelled]]:
    """An evaluation of `words` words, of which these were misread, and the sets they name."""
    done, sets = [], []
    for name in dict.fromkeys(m.dataset for m in misread) or ["d"]:
        own = [m for m in misread if m.dataset == name]
        readings = [Reading(m.truth, m.reading, m.confidence, n) for n, m in enumerate(own)]
        right = [Reading("right", "right", 1.0, len(own))] * (0 if done else words - len(misread))
        done.append(set_result(name, [*readings, *right], {}))
        sets.append(Labelled(name, [m.truth for m in own], [m.picture for m in own].__getitem__, "<{}>.png".format))
    return Evaluation(run, 7, done), sets


def page_of(run: str, misread: list[Misread], words: int, limit: int = 2000) -> str:
    return errors_page(*evaluated(run, misread, words), limit)


class Parsed(HTMLParser):
    """Every element except marks, with its attributes and the text up to the next one; and what is marked."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str], list[str]]] = [("", {}, [])]
        self.marked: list[str] = []
        self.in_mark = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.in_mark = tag == "mark"
        if not self.in_mark:
            self.elements.append((tag, {name: value or "" for name, value in attrs}, []))

    def handle_endtag(self, tag):
        self.in_mark = False

    def handle_data(self, data):
        self.elements[-1][2].append(data)
        if self.in_mark:
            self.marked.append(data)

    def all(self, tag: str, **wanted: str) -> list[str]:
        """The texts of elements of this kind with these attributes (`kind` is class)."""
        wanted = {"class" if name == "kind" else name: value for name, value in wanted.items()}
        return [
            "".join(texts).strip()
            for name, have, texts in self.elements
            if name == tag and wanted.items() <= have.items()
        ]

    def pairs(self) -> list[tuple[str, str]]:
        return list(zip(self.all("bdi", kind="truth"), self.all("bdi", kind="reading"), strict=True))


def test_the_worst_come_first_and_nothing_is_lost_in_escaping():
    parsed = Parsed(page_of("a <b> & $c {{ 7 * 7 }}", SHUFFLED, 2000))
    assert parsed.pairs() == [(m.truth, m.reading) for m in MISREAD]
    errors = [distance_by_definition(truth, reading) / len(truth) for truth, reading in parsed.pairs()]
    ranks = [(error, m.confidence) for error, m in zip(errors, MISREAD, strict=True)]
    assert ranks == sorted(ranks, reverse=True)
    assert parsed.all("title") == ["a <b> & $c {{ 7 * 7 }}, step 7"]
    assert parsed.all("h1") == ["a <b> & $c {{ 7 * 7 }}, step 7"]
    assert [t for t in parsed.all("span") if t.endswith("confident")][:2] == ["20% confident", "90% confident"]
    assert parsed.all("bdi", kind="key") == [f"<{n}>.png" for n in (2, 2, 3, 0, 1, 0, 1)]  # of each in its own set
    assert parsed.all("option") == ["all (7)", "ic & <03> (3)", "svt (4)"]
    assert len(parsed.all("script")) == 1


def test_what_differs_is_marked():
    parsed = Parsed(page_of("", [Misread("d", "a<reet", "a&&reets", 0.5, b"")], 1))
    assert parsed.marked == ["<", "&&", "s"]
    assert parsed.pairs() == [("a<reet", "a&&reets")]


def test_nothing_is_fetched_and_pictures_are_small():
    page = page_of("", MISREAD, 2000)
    assert not re.search(r"https?:|//\w|@import|url\(", re.sub(r'"data:[^"]*"', "", page))
    parsed = Parsed(page)
    links = [
        have[name] for _, have, _ in parsed.elements for name in ("src", "href", "srcset", "action") if name in have
    ]
    assert all(link.startswith("data:") for link in links)
    sources = [have["src"] for tag, have, _ in parsed.elements if tag == "img"]
    assert len(sources) == 5
    for source, (height, width) in zip(sources, [(20, 50), (64, 288), (64, 10), (48, 40), (48, 40)], strict=True):
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as crop:
            assert crop.size == (width, height)


@pytest.mark.parametrize("data", [b"", b"hello", picture(1)[:300], picture(1, (400, 400), "JPEG")[:3000]])
def test_a_broken_picture_leaves_its_place_to_the_reason(data):
    parsed = Parsed(page_of("", [Misread("d", "a", "b", 0.5, data)], 1))
    assert parsed.all("img") == []
    assert parsed.all("div", kind="none")[0].startswith("picture not shown: it is ")
    assert parsed.pairs() == [("a", "b")]


def test_memories_have_no_pictures():
    done, _ = evaluated("", SHUFFLED, 2000)
    parsed = Parsed(errors_page(done))
    assert parsed.pairs() == [(m.truth, m.reading) for m in MISREAD]
    assert parsed.all("img") == parsed.all("div") == []


def test_any_mode_is_shown():
    for mode in ("L", "RGBA", "P", "CMYK", "1", "I;16"):
        file = io.BytesIO()
        Image.new(mode, (5, 4)).save(file, "TIFF")
        assert len(Parsed(page_of("", [Misread("d", "a", "b", 0.5, file.getvalue())], 1)).all("img")) == 1


def test_only_the_worst_are_shown_and_the_page_says_so():
    parsed = Parsed(page_of("", SHUFFLED, 2000, limit=3))
    assert parsed.pairs() == [(m.truth, m.reading) for m in MISREAD[:3]]
    assert "Only the worst 3 of 7 misread words are on this page." in parsed.all("p")
    assert parsed.all("option") == ["all (3)", "ic & <03> (1)", "svt (2)"]
    assert not any("Only" in text for text in Parsed(page_of("", SHUFFLED, 2000, limit=7)).all("p"))


def test_no_mistake_is_said():
    parsed = Parsed(page_of("", [], 2000))
    assert "None of 2,000 words was misread." in parsed.all("p")
    assert parsed.pairs() == []
    assert parsed.all("form", hidden="")


def test_labels_no_file_can_hold_do_not_stop_the_page():
    page_of("\ud800", [Misread("\ud800", "\udc00\0", "\ud800", 0.5, b""), Misread("d", "", "a", 1, b"")], 1).encode()


@pytest.fixture(scope="module")
def tab(browser, tmp_path_factory):
    """A phone's tab for all tests, the page's address, and what is heard of the page: requests, dialogs, errors."""
    file = tmp_path_factory.mktemp("page") / "errors.html"
    file.write_text(page_of("Misread", SHUFFLED, 2000), "utf-8")
    heard: list[str] = []
    with browser.new_context(viewport={"width": 400, "height": 800}, color_scheme="dark") as context:
        page = context.new_page()
        page.on("request", lambda request: heard.append(f"request {request.url}"))
        for event in ("dialog", "pageerror", "console"):
            page.on(event, lambda what, event=event: heard.append(f"{event} {what}"))
        yield page, file.as_uri(), heard


@pytest.fixture
def opened(tab):
    """The page, opened anew. It may request only files and data, open no dialog and raise no error."""
    page, address, heard = tab
    page.goto("about:blank")
    heard.clear()
    page.goto(address)
    yield page
    asked = [line for line in heard if line.startswith(("request file:", "request data:"))]
    assert asked
    assert asked == heard


def visible(page) -> list[str]:
    return page.locator("li:visible .truth").all_text_contents()


def expected(dataset: str | None, part: str) -> list[str]:
    found = [m for m in MISREAD if dataset in (None, m.dataset)]
    return [m.truth for m in found if part.lower() in m.truth.lower() or part.lower() in m.reading.lower()]


@pytest.mark.parametrize("dataset", [None, "ic & <03>", "svt"])
def test_filters(opened, dataset):
    assert opened.locator("output").inner_text() == "7 of 7 misread, 2,000 words"
    assert visible(opened) == expected(None, "")
    label = {None: "all (7)", "ic & <03>": "ic & <03> (3)", "svt": "svt (4)"}[dataset]
    opened.get_by_label("Dataset").select_option(label=label)
    assert visible(opened) == expected(dataset, "")
    for part in ("STREET", "tr", "<SCRIPT>", "交", "ه", '"', "q", ""):
        opened.get_by_label("Find").fill(part)
        assert visible(opened) == expected(dataset, part)
        count = len(expected(dataset, part))
        assert opened.locator("output").inner_text() == f"{count} of 7 misread, 2,000 words"
        assert opened.get_by_text("No misread word matches.").is_visible() == (count == 0)


def test_by_keyboard(opened):
    opened.keyboard.press("Tab")
    opened.keyboard.press("ArrowDown")
    assert visible(opened) == expected("ic & <03>", "")
    opened.keyboard.press("Tab")
    opened.keyboard.type("title")
    opened.keyboard.press("Enter")
    assert visible(opened) == expected("ic & <03>", "title")
    opened.keyboard.press("Escape")
    assert visible(opened) == expected("ic & <03>", "")


def test_pictures_decode_and_labels_are_text(opened):
    pictures = opened.locator("li img").all()
    assert len(pictures) == 5
    for one in pictures:
        one.scroll_into_view_if_needed()  # which is when it is loaded
        assert one.evaluate("one => one.decode().then(() => one.naturalWidth)") > 0
    assert opened.get_by_text(NASTY, exact=True).is_visible()
    assert opened.locator("script").count() == 1
    assert opened.locator("body").evaluate("body => body.scrollWidth <= innerWidth")  # fits a phone
