"""Small Parquet files that unfold to gigabytes are read within bounds, or refused by what their pages say."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from cache.errors import DptrError, WrongUse
from sources.labelled import labelled
from sources.parquet import check_parquet, pages, rows_at_once
from sources.words import Reading, words
from tests.helpers.memory import forget, most

LONG = "x" * (1 << 20)
WORDS = ["street", "Café", None, "a", "EXIT"] * 700
READ = [word or "" for word in WORDS]
PLAIN = {"use_dictionary": False}


def table(values):
    return pa.table({"n": range(len(values)), "text": values})


def written(path, values=WORDS, **how):
    parquet.write_table(table(values), path, **how)
    return path


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"data_page_version": "2.0", "row_group_size": 1000, "data_page_size": 500},
        {**PLAIN, "compression": "zstd", "write_batch_size": 10, "data_page_size": 100},
        {**PLAIN, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}, "data_page_version": "2.0"},
        {**PLAIN, "column_encoding": {"text": "DELTA_LENGTH_BYTE_ARRAY"}, "compression": "none"},
    ],
)
def test_pages_add_up_to_what_the_footer_says(tmp_path, how):
    path = written(tmp_path / "w.parquet", **how)
    metadata = parquet.read_metadata(path)
    with path.open("rb") as file:
        for group in (metadata.row_group(n) for n in range(metadata.num_row_groups)):
            for chunk in (group.column(n) for n in range(2)):
                found = list(pages(file, path, chunk))
                assert sum(page.values for page in found) == chunk.num_values
                headers = chunk.total_compressed_size - sum(page.packed for page in found)
                assert sum(page.bytes for page in found) + headers == chunk.total_uncompressed_size
                assert 0 < headers < 100 * len(found)
                assert sum(page.dictionary for page in found) == chunk.has_dictionary_page
    assert list(words(str(path), Reading())) == READ
    assert list(words(str(path), Reading(column="n"))) == list(map(str, range(len(WORDS))))
    check_parquet(path)


def test_long_values_are_read_few_at_a_time(tmp_path):
    values = ["a"] * 5000 + [LONG[: 1 << 18]] * 40 + ["b"] * 5000
    path = written(tmp_path / "w.parquet", values, **PLAIN, write_batch_size=10)
    with path.open("rb") as file:
        rows = rows_at_once(file, path, parquet.read_metadata(path).row_group(0).column(1), True)
    assert rows == (32 << 20) // (1 << 18) - 1  # a value has 4 bytes for its length
    assert list(words(str(path), Reading())) == values


MANY = 320
UNFOLDING = {  # to as many MB each
    "shared": {"compression": "zstd"},
    "prefix": {**PLAIN, "compression": "zstd", "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
    "pages": {**PLAIN, "compression": "zstd", "write_batch_size": 1},
}


@pytest.fixture(scope="module")
def unfolding(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unfolding")
    long = table([LONG] * MANY)
    for name, how in UNFOLDING.items():
        parquet.write_table(long, folder / f"{name}.parquet", **how)
    return folder


@pytest.mark.parametrize("name", UNFOLDING)
def test_what_unfolds_is_read_within_bounds(unfolding, name):
    path = unfolding / f"{name}.parquet"
    assert path.stat().st_size < 100_000
    code = (
        "import sys\nimport pyarrow.parquet\nfrom sources.words import Reading, words\n"
        "from tests.helpers.memory import most\nbefore = most()\n"
        "print(sum(map(len, words(sys.argv[1], Reading()))), most() - before)"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    characters, more = map(int, done.stdout.split())
    assert characters == MANY << 20
    assert more < 250 << 20


def test_page_that_would_fill_the_memory_is_refused(tmp_path):
    path = written(tmp_path / "train.parquet", [LONG] * 270, **PLAIN, compression="zstd")
    pa.default_memory_pool().release_unused()
    forget()
    before = most()
    refused = r"has a page of [\d,]+ bytes that unfolds to 283,[\d,]+, and 256 MB are allowed"
    with pytest.raises(DptrError, match=refused):
        list(words(str(path), Reading()))
    for source in (path, tmp_path):  # as `datasets` would read it
        with pytest.raises(DptrError, match=refused):
            labelled(str(source))
    assert most() - before < 50 << 20


def test_what_is_no_page_is_one_sentence(tmp_path):
    path = written(tmp_path / "w.parquet")
    data = bytearray(path.read_bytes())
    chunk = parquet.read_metadata(path).row_group(0).column(1)
    data[chunk.dictionary_page_offset : chunk.dictionary_page_offset + 30] = b"\xff" * 30
    path.write_bytes(data)
    with pytest.raises(DptrError, match=r"w.parquet is damaged: there is no page at byte"):
        list(words(str(path), Reading()))
    path.write_bytes(b"PAR1")
    for read in (lambda: list(words(str(path), Reading())), lambda: check_parquet(path)):
        with pytest.raises(DptrError, match="is not a Parquet file"):
            read()


def test_lists_are_refused_unread(tmp_path):
    parquet.write_table(pa.table({"text": [["a", "b"], []]}), tmp_path / "w.parquet")
    with pytest.raises(WrongUse, match=r"w.parquet \(text\) holds list<.*>, not text: choose another --column"):
        list(words(str(tmp_path / "w.parquet"), Reading()))
