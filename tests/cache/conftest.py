"""A small cache on disk, and the same elsewhere, in a store that can be made to fail."""

from pathlib import Path

import numpy as np
import pytest

import cache.objects
from cache.keys import as_keys
from cache.lock import writing
from cache.memories import key_of
from cache.space import complete_space
from cache.transfer import push
from tests.helpers.fingerprint import ONE
from tests.helpers.stores import Shaky

WIDTH, SHARDS, EACH = 8, 3, 200
CONSTANTS = {"prefix": np.ones((2, WIDTH), np.float16), "text_projection": np.eye(WIDTH, dtype=np.float32)}


@pytest.fixture
def store(monkeypatch, tmp_path):
    """Blocks of a few memories, no pauses, a disk of the test's own, and an empty store that works."""
    monkeypatch.setenv("DPTR_DISK", str(tmp_path / "disk"))
    monkeypatch.setattr("cache.memories.BLOCK", 40 * WIDTH)
    monkeypatch.setattr(cache.objects, "PAUSE", 0)
    monkeypatch.setattr(cache.objects, "PART", 1000)
    Shaky.store.clear()
    Shaky.sent.clear()
    monkeypatch.setattr(Shaky, "every", 0)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A cache on disk: 3 shards of 200 memories, and a corpus."""
    folder = tmp_path_factory.mktemp("here")
    space_folder = folder / ONE.folder
    space_folder.mkdir()
    with writing(space_folder):
        space = complete_space(space_folder, ONE, lambda: CONSTANTS)
        random = np.random.default_rng(0)
        for n in range(SHARDS):
            lengths = random.integers(1, 6, EACH)
            keys = as_keys([key_of([n, k]) for k in range(EACH)])
            space.memories.add(keys, random.normal(size=(lengths.sum(), WIDTH)).astype(np.float16), lengths)
            space.corpus("words").add([f"{n} {k}" for k in range(EACH)], keys, [1] * EACH)
    return folder


@pytest.fixture
def there(here, store):
    """The same elsewhere."""
    url = Path("shaky://bucket/cache")
    push(here, url, None).run(lambda count: None)
    Shaky.sent.clear()
    return url
