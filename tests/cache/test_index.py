"""An index of every kind finds what exact search finds, grows to the file that is made at once, and knows its bank."""

import hashlib
import shutil
import subprocess
import sys

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import class_tokens, index, index_file
from cache.bank import Bank, picture_key
from cache.class_tokens import unit
from cache.errors import Damaged, DptrError, WrongUse
from cache.keys import as_keys
from tests.helpers.files import file_size_limit
from tests.helpers.fingerprint import ONE

WIDTH = 16


def photographs(count, seed=0):
    """Class tokens (count, WIDTH) in clusters, as photographs of like things are."""
    random = np.random.default_rng(seed)
    means = random.normal(size=(40, WIDTH))
    return (means[random.integers(40, size=count)] + 0.4 * random.normal(size=(count, WIDTH))).astype(np.float16)


def add(bank, tokens, sizes):
    """Commit tokens as shards of these sizes, two tokens a picture, the second of no account."""
    for size in sizes:
        start = bank.rows
        names = [f"{n}.jpg" for n in range(start, start + size)]
        rows = tokens[start : start + size]
        features = np.stack([rows, np.ones_like(rows)], 1)
        bank.add(names, as_keys([picture_key(n.encode()) for n in names]), features, "as it is")
    return bank


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A bank of 3,000 pictures without an index. Not to be written to."""
    return add(Bank(tmp_path_factory.mktemp("banks") / "large", ONE), photographs(3000), [700, 1, 1299, 1000])


@pytest.fixture
def bank(large, tmp_path):
    return Bank(shutil.copytree(large.folder, tmp_path / "bank"), ONE)


def literal(bank, queries, k):
    """The k nearest by a full sort in double precision."""
    rows = bank.features()[:, 0].astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.argsort(-(queries.astype(np.float64) @ rows.T), axis=1, kind="stable")[:, :k]


def shared_share(found, truth):
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), truth.tolist(), strict=True)])


@pytest.mark.parametrize(("kind", "least"), [("exact", 1.0), ("ivf", 0.9), ("hnsw", 0.9), ("pq", 0.45)])
def test_every_kind_finds_the_true_neighbours(bank, kind, least):
    facts = bank.write_index(kind)
    queries = unit(photographs(200, seed=0)[:200] + np.float16(0.01))
    found = index.search(bank.index(), queries, 10)
    share = shared_share(found, literal(bank, queries, 10))
    assert share >= least
    assert abs(facts.recall - share) < 0.08
    assert (facts.kind, facts.pictures) == (kind, 3000)
    assert bank.index_facts() == facts


def test_exact_search_in_blocks_is_a_full_sort(bank, monkeypatch):
    monkeypatch.setattr(class_tokens, "BLOCK", 256)
    queries = unit(photographs(50, seed=3))
    assert (index.exact(bank.class_tokens(), queries, 7) == literal(bank, queries, 7)).all()


@settings(max_examples=20)
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=8), start=st.integers(0, 200), edge=st.integers(1, 64))
def test_blocks_are_the_bank_whatever_its_shards(tmp_path_factory, sizes, start, edge):
    tokens = photographs(sum(sizes))
    bank = add(Bank(tmp_path_factory.mktemp("bank") / "b", ONE), tokens, sizes)
    start = min(start, len(tokens) - 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(class_tokens, "BLOCK", edge)
        for checked in (True, False):
            blocks = list(bank.class_tokens().blocks(start, checked))
            assert [first for first, _ in blocks] == list(range(start // edge * edge, len(tokens), edge))
            assert (np.concatenate([rows for _, rows in blocks]) == unit(tokens)[start // edge * edge :]).all()


def test_size_chooses_the_kind(bank, monkeypatch):
    assert index.chosen("auto", 50_000) == "exact"
    assert index.chosen("auto", 50_001) == "ivf"
    with pytest.raises(WrongUse, match="there is no index of kind 'lsh': choose auto, exact, ivf, pq or hnsw"):
        bank.write_index("lsh")
    assert bank.write_index().kind == "exact"
    monkeypatch.setattr(index, "EXACT", 2999)
    assert bank.write_index().kind == "ivf"


@pytest.mark.parametrize("kind", ["exact", "ivf", "pq", "hnsw"])
def test_grown_index_is_the_one_made_at_once(tmp_path, kind, monkeypatch):
    """Within one power of two centroids stay, and beyond it they are made anew."""
    monkeypatch.setattr(class_tokens, "BLOCK", 128)
    monkeypatch.setattr(index, "BLOCK", 128)
    tokens = photographs(1300)
    grown = Bank(tmp_path / "grown", ONE)
    for sizes in ([600], [7, 200], [93], [300, 100]):
        add(grown, tokens, sizes)
        grown.write_index(kind)
        once = add(Bank(tmp_path / f"once-{grown.rows}", ONE), tokens, [grown.rows])
        once.write_index(kind)
        assert (grown.folder / "index.faiss").read_bytes() == (once.folder / "index.faiss").read_bytes()


def test_cells_are_trained_once_until_the_bank_has_doubled(tmp_path, monkeypatch):
    tokens, trained = photographs(1300), []
    original = index.empty_index
    monkeypatch.setattr(index, "empty_index", lambda kind, t: trained.append(len(t)) or original(kind, t))
    bank = Bank(tmp_path / "b", ONE)
    for size in (600, 300, 100, 300):
        add(bank, tokens, [size]).write_index("ivf")
        bank.write_index("ivf")
    assert trained == [600, 1300]


def test_large_index_is_mapped_and_searched_alike(bank, monkeypatch):
    bank.write_index("ivf")
    queries = unit(photographs(20, seed=5))
    before = index.search(bank.index(), queries, 10)
    monkeypatch.setattr(index_file, "MAPPED", 1)
    mapped = bank.index()
    assert isinstance(faiss.downcast_InvertedLists(mapped.invlists), faiss.OnDiskInvertedLists)
    assert (index.search(mapped, queries, 10) == before).all()
    cells = index.cells_of(mapped)
    monkeypatch.setattr(index_file, "MAPPED", 1 << 30)
    assert (index.cells_of(bank.index()) == cells).all()


def test_more_neighbours_than_the_cells_hold_are_found_elsewhere(bank):
    for kind in ("ivf", "hnsw"):
        bank.write_index(kind)
        found = index.search(bank.index(), unit(photographs(9, seed=5)), 2900)
        assert found.min() >= 0
        assert all(len(set(row)) == 2900 for row in found.tolist())


@pytest.mark.parametrize("kind", ["ivf", "exact"])
def test_cells_hold_what_is_alike(bank, kind):
    """Within a cell pictures are closer than across; every picture is in one."""
    bank.write_index(kind)
    cells = index.cells_of(bank.index())
    rows = unit(photographs(3000))
    assert cells.shape == (3000,)
    assert cells.dtype == np.int32
    assert 8 < len(set(cells.tolist())) <= index._cells(3000, index.SCENE)
    products = rows @ rows.T
    same = cells[:, None] == cells
    assert products[same].mean() > products[~same].mean() + 0.3
    assert (index.cells_of(bank.index()) == cells).all()


def test_index_of_other_pictures_is_refused(bank, tmp_path):
    bank.write_index()
    other = Bank(tmp_path / "other", ONE)
    tokens = photographs(3001)
    add(other, tokens[::-1], [1])
    other.add(["x"], as_keys([picture_key(b"x")]), np.ones((1, 2, WIDTH), np.float16), "as it is")
    other.write_index()
    shutil.copyfile(other.folder / "index.faiss", bank.folder / "index.faiss")
    with pytest.raises(Damaged, match=r"index.faiss is damaged: it is of other pictures than the bank's") as told:
        bank.index()
    assert "\n" not in str(told.value)


def test_index_of_an_earlier_version_is_made_anew(bank):
    facts = bank.write_index()
    data = (bank.folder / "index.faiss").read_bytes()
    plain = faiss.serialize_index(bank.index()).tobytes()
    (bank.folder / "index.faiss").write_bytes(plain + hashlib.sha256(plain).digest())
    assert bank.index() is None
    assert bank.index_facts() is None
    assert bank.write_index() == facts
    assert (bank.folder / "index.faiss").read_bytes() == data


def test_full_disk_leaves_the_old_index(bank):
    bank.write_index("exact")
    before = (bank.folder / "index.faiss").read_bytes()
    with file_size_limit(50_000), pytest.raises(DptrError, match="cannot write .*index.faiss: File too large"):
        bank.write_index("ivf")
    assert (bank.folder / "index.faiss").read_bytes() == before
    assert not list(bank.folder.glob("*.tmp"))


def test_codes_need_pictures(tmp_path):
    bank = add(Bank(tmp_path / "b", ONE), photographs(300), [100])
    with pytest.raises(WrongUse, match="need 256 pictures"):
        bank.write_index("pq")


BOTH = """
import os, sys, time
import numpy as np
first, second = sys.argv[1:]
__import__(first), __import__(second)
import faiss, torch
from cache import index
torch.set_num_threads(2)
rows = np.random.default_rng(0).normal(size=(4000, 64)).astype(np.float32)
flat = faiss.IndexFlatIP(64)
flat.add(rows)
a = torch.randn(400, 400)
def multiply():
    a @ a
def search():
    index.search(flat, rows[:64], 10)
def seconds(*works):
    began = time.perf_counter()
    for _ in range(4):
        for work in works:
            work()
    return time.perf_counter() - began
for work in (multiply, search):
    work()
apart, together = [], []
for _ in range(3):
    apart.append(seconds(multiply) + seconds(search))
    together.append(seconds(multiply, search))
assert torch.get_num_threads() == 2, torch.get_num_threads()
print(min(together) / min(apart))
"""


@pytest.mark.parametrize("order", [("torch", "faiss"), ("faiss", "torch")])
def test_torch_and_faiss_get_on_in_one_process(order):
    """Neither crashes, neither changes the other's threads, and taking turns costs no more than working apart."""
    done = subprocess.run([sys.executable, "-c", BOTH, *order], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 10  # two OpenMPs that fight for the cores take a hundred times as long
