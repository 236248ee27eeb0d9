"""A cache in a real S3 server, moto's, some of whose answers are wrong."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

import cache.objects
from cache.errors import DptrError
from cache.memories import MemoryReader
from cache.objects import Objects
from cache.space import open_space
from cache.transfer import pull, push


@pytest.fixture
def server(monkeypatch):
    """Of its answers some are errors, too short or have a flipped bit. It has the bucket `words`, with an object."""
    from bench.s3_server import serve

    server, far = serve(0.0, 0.05)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket="words")
    client.put_object(Bucket="words", Key="a", Body=b"text")
    yield far
    server.shutdown()
    server.server_close()


@pytest.fixture
def asked(server, monkeypatch):
    """The server's requests from now on."""
    found, app = [], server._app
    monkeypatch.setattr(server, "_app", lambda environ, start: found.append(environ) or app(environ, start))
    return found


@pytest.fixture
def without_keys(server, monkeypatch, tmp_path):
    """No key in the environment, in files or from the machine's role; an empty folder for such files."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


def test_pushed_read_and_pulled(here, store, server, tmp_path, monkeypatch):
    monkeypatch.setattr(cache.objects, "PART", 1 << 20)
    monkeypatch.setattr("cache.memories.BLOCK", 1 << 10)  # 28 requests of states
    url = Path("s3://words/cache")
    push(here, url, None).run(lambda count: None)
    ours, theirs = (MemoryReader(open_space(one).memories) for one in (here, url))
    numbers = np.random.default_rng(0).permutation(600)
    for a, b in zip(ours.gather(numbers), theirs.gather(numbers), strict=True):
        assert (a == b).all()
    pull(url, tmp_path / "theirs", None).run(lambda count: None)
    pulled = {p.relative_to(tmp_path / "theirs"): p.read_bytes() for p in (tmp_path / "theirs").rglob("*.*5")}
    assert pulled == {p.relative_to(here): p.read_bytes() for p in here.rglob("*.*5")}
    assert server.sent["busy"] + server.sent["cut"] + server.sent["flipped"] > 3


def forbidden(environ, start_response):
    start_response("403 Forbidden", [("Content-Length", "0")])
    return [b""]


def test_what_goes_wrong_is_one_sentence(server, monkeypatch):
    monkeypatch.setattr(cache.objects, "PAUSE", 0)
    with pytest.raises(
        DptrError, match=r"s3://nobody/cache/ cannot be listed, tried 6 times \(.*404 Not Found\): check"
    ):
        open_space(Path("s3://nobody/cache"))
    with pytest.raises(DptrError, match=r"s3://words/x cannot be read \(.*404 Not Found\): check the URL"):
        Objects("s3://words").read("x", 0, 1)
    monkeypatch.setattr(server, "_app", forbidden)
    with pytest.raises(DptrError, match=r"s3://words/x cannot be read \(.*403 Forbidden\): check the URL"):
        Objects("s3://words").read("x", 0, 1)


def test_a_forked_process_says_so(here, store, server):
    url = "s3://words/cache"
    opened = Objects(url)
    opened.write("a", b"text")
    found = multiprocessing.get_context("fork").Queue()

    def ask():
        for use in (opened.sizes, lambda: Objects(url)):
            try:
                use()
            except DptrError as error:
                found.put(str(error))

    child = multiprocessing.get_context("fork").Process(target=ask)
    child.start()
    assert all("in a process that was forked from one" in found.get(timeout=20) for _ in range(2))
    child.join()


def test_keys_and_endpoint_of_a_profile(asked, without_keys, monkeypatch):
    keys = "aws_access_key_id = someone\naws_secret_access_key = it"
    profile = f"[default]\n{keys}\nendpoint_url = {os.environ['AWS_ENDPOINT_URL']}\n"
    (without_keys / "AWS_CONFIG_FILE").write_text(profile)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    Objects("s3://words/folder").write("a", b"text")
    assert Objects("s3://words").sizes()["folder/a"] == 4
    assert all("Credential=someone/" in environ["HTTP_AUTHORIZATION"] for environ in asked)
    assert asked
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(
        DptrError, match=r"s3://words cannot be opened \(The config profile \(nobody\) could not be found"
    ):
        Objects("s3://words")


def test_without_keys_requests_are_anonymous(asked, without_keys):
    assert Objects("s3://words").sizes()["a"] == 4
    assert asked
    assert not any("HTTP_AUTHORIZATION" in environ for environ in asked)
