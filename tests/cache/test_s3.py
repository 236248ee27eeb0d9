"""A cache in a real S3 server, moto's, some of whose answers are wrong."""

from pathlib import Path

import numpy as np
import pytest

import cache.objects
from cache.memories import MemoryReader
from cache.space import open_space
from cache.transfer import pull, push


@pytest.fixture
def server(monkeypatch):
    """Of its answers some are errors, too short or have a flipped bit. It has the bucket `words`."""
    from bench.s3_server import serve

    server, far = serve(0.0, 0.05)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem().mkdir("words")
    yield far
    server.shutdown()
    server.server_close()


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
