"""Words come out of every kind of source; what is wrong with a source is said in one sentence."""

import json
import tracemalloc

import pyarrow as pa
import pytest
from pyarrow import parquet

from cache.errors import DptrError, WrongUse
from pipeline.labels import collect
from sources.words import Reading, words
from tests.helpers.lmdbs import write_lmdb

EXPECTED = ["street", "Café", "", '5" pipe', "a,b"]


def read(path, **how):
    return list(words(str(path), Reading(**how)))


def test_text_file_has_a_word_a_line(tmp_path):
    (tmp_path / "w.txt").write_text("\n".join(EXPECTED) + "\n")
    assert read(tmp_path / "w.txt") == EXPECTED


def test_byte_order_mark_is_no_part_of_a_word(tmp_path):
    (tmp_path / "w.txt").write_bytes("street\r\n".encode("utf-8-sig"))
    assert read(tmp_path / "w.txt") == ["street"]


def test_csv_column_by_name_by_habit_and_by_number(tmp_path):
    rows = ['5,"street"', "6,Café", "7,", '8,"5"" pipe"', '9,"a,b"']
    (tmp_path / "w.csv").write_text("\n".join(["id,word", *rows]))
    assert read(tmp_path / "w.csv") == EXPECTED
    assert read(tmp_path / "w.csv", column="id") == list("56789")
    (tmp_path / "bare.csv").write_text("\n".join(rows))
    assert read(tmp_path / "bare.csv", column="2") == EXPECTED


def test_tsv_words_may_hold_quotation_marks(tmp_path):
    (tmp_path / "w.tsv").write_text('the\t-1.27\n"\t-2\nto\t-1.57\n')
    assert read(tmp_path / "w.tsv", column="1") == ["the", '"', "to"]


def test_table_of_one_column_needs_no_header(tmp_path):
    (tmp_path / "w.csv").write_text("street\nCafé\n")
    assert read(tmp_path / "w.csv") == ["street", "Café"]
    (tmp_path / "h.csv").write_text("Word\nstreet\n")
    assert read(tmp_path / "h.csv", column="Word") == ["street"]


def test_jsonl_objects_and_strings(tmp_path):
    (tmp_path / "w.jsonl").write_text("".join(json.dumps({"n": 1, "label": w}) + "\n" for w in EXPECTED))
    assert read(tmp_path / "w.jsonl") == EXPECTED
    (tmp_path / "s.jsonl").write_text('"street"\n\n5\n')
    assert read(tmp_path / "s.jsonl") == ["street", "5"]


def test_parquet(tmp_path):
    parquet.write_table(pa.table({"n": range(5), "text": EXPECTED}), tmp_path / "w.parquet")
    assert read(tmp_path / "w.parquet") == EXPECTED
    assert read(tmp_path / "w.parquet", column="n") == list("01234")


def test_lmdb_labels(tmp_path):
    write_lmdb(tmp_path / "set", ["street", None, "Café"])
    assert read(tmp_path / "set") == ["street", "", "Café"]


def test_dataset_folder(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    parquet.write_table(pa.table({"text": EXPECTED, "n": range(5)}), folder / "train.parquet")
    assert read(folder) == EXPECTED
    with pytest.raises(WrongUse, match="cannot load it"):
        read(folder, split="test")


@pytest.mark.parametrize(
    ("name", "content", "how", "error", "message"),
    [
        ("w.txt", b"stra\xdfe\n", {}, DptrError, "is not utf-8 at byte 4: name its --encoding"),
        ("w.csv", b"a,b\n1,2\n", {}, WrongUse, "has the columns a, b: which column holds the words"),
        ("w.csv", b"a,b\n1,2\n", {"column": "c"}, WrongUse, "there is no column 'c'"),
        ("w.csv", b"a,b\n1,2\n", {"column": "3"}, WrongUse, "has 2 columns, so there is no column 3"),
        ("w.jsonl", b'{"text": "a"}\n{', {}, DptrError, "line 2 is not JSON"),
        ("w.jsonl", b"[" * 100_000, {}, DptrError, "line 1 is not JSON"),
        ("w.jsonl", b'{"text": "a"}\n{"word": "a"}\n', {}, WrongUse, "line 2 has no 'text'"),
        ("w.jsonl", b'{"text": ["a"]}\n', {}, WrongUse, "holds list, not text"),
        ("w.parquet", b"no parquet", {}, DptrError, "is not a Parquet file"),
        ("w.docx", b"", {}, WrongUse, "of an unknown kind"),
    ],
)
def test_bad_source_is_one_sentence(tmp_path, name, content, how, error, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        read(tmp_path / name, **how)


def test_other_encoding_when_said(tmp_path):
    (tmp_path / "w.txt").write_bytes(b"stra\xdfe\n")
    assert read(tmp_path / "w.txt", encoding="latin-1") == ["straße"]


def test_unknown_encoding_is_one_sentence(tmp_path):
    (tmp_path / "w.txt").write_bytes(b"x\n")
    with pytest.raises(WrongUse, match="no encoding 'klingon'"):
        read(tmp_path / "w.txt", encoding="klingon")


def test_missing_file_and_damaged_lmdb(tmp_path):
    with pytest.raises(WrongUse, match=r"there is no file .*w\.txt"):
        read(tmp_path / "w.txt")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "data.mdb").write_bytes(b"x" * 10_000)
    with pytest.raises(DptrError, match="LMDB .* cannot be read"):
        read(tmp_path / "set")


def pack(data: bytes, kind: str) -> bytes:
    import bz2
    import gzip
    import lzma

    packers = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    return packers[kind](data) if kind in packers else pa.compress(data, codec="zstd", asbytes=True)


@pytest.mark.parametrize("kind", [".gz", ".bz2", ".xz", ".zst"])
def test_compressed_files_read_as_the_plain_ones(tmp_path, kind):
    plain = {
        "w.txt": "\n".join(EXPECTED),
        "w.csv": 'id,word\n5,"street"\n6,Café\n7,\n8,"5"" pipe"\n9,"a,b"',
        "w.tsv": "id\tword\n" + "\n".join(f"1\t{word}" for word in EXPECTED),
        "w.jsonl": "\n".join(json.dumps({"word": word}) for word in EXPECTED),
    }
    for name, text in plain.items():
        (tmp_path / (name + kind)).write_bytes(pack(text.encode(), kind))
        assert read(tmp_path / (name + kind)) == EXPECTED


@pytest.mark.parametrize("kind", [".gz", ".bz2", ".xz", ".zst"])
def test_compressed_file_cut_short_is_one_sentence(tmp_path, kind):
    path = tmp_path / f"w.txt{kind}"
    whole = pack("\n".join(map(str, range(20_000))).encode(), kind)
    for cut in (len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DptrError, match=f"w.txt{kind} cannot be (read|unpacked)"):
            read(path)
    path.write_bytes(b"no such format at all")
    with pytest.raises(DptrError, match=f"w.txt{kind} cannot be (read|unpacked)"):
        read(path)


LONG = "in a line longer than 1,048,576 characters"


def reasons(path, **how):
    return [getattr(word, "why", word) for word in words(str(path), Reading(**how))]


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("w.txt", "a\n", "\nb\n"),
        ("w.txt.gz", "a\n", "\nb\n"),
        ("w.csv", "word,n\na,1\n", ",2\nb,3\n"),
        ("w.tsv", "word\tn\na\t1\n", "\t2\nb\t3\n"),
        ("w.jsonl", '"a"\n', '\n"b"\n'),
        ("w.jsonl.gz", '"a"\n', '\n"b"\n'),
    ],
)
def test_line_that_is_too_long_is_a_reason_and_never_in_memory(tmp_path, name, before, after):
    text = (before + "x" * (40 << 20) + after).encode()
    (tmp_path / name).write_bytes(pack(text, ".gz") if name.endswith(".gz") else text)
    assert peak(lambda: reasons(tmp_path / name)) < 20 << 20
    assert reasons(tmp_path / name) == ["a", LONG, "b"]


def test_line_without_end_is_one_reason(tmp_path):
    (tmp_path / "w.txt").write_text("x" * (5 << 20))
    assert reasons(tmp_path / "w.txt") == [LONG]


def peak(run):
    """The most memory in bytes that `run` has had from Python's allocator."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_parquet_that_unfolds_to_gigabytes(tmp_path):
    """100,000 rows of one long value, in a few hundred bytes."""
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array(["x" * 100_000]))
    path = tmp_path / "w.parquet"
    parquet.write_table(pa.table({"text": long.slice(0, 20_000)}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 1000
    before, most = pa.total_allocated_bytes(), 0
    for number, word in enumerate(words(str(path), Reading())):
        assert len(word) == 100_000
        most = max(most, pa.total_allocated_bytes() - before) if number % 1000 == 0 else most
    assert number == 19_999
    assert most < 64 << 20  # of 2 GB
    parquet.write_table(pa.table({"text": ["a", None, "b", "a"]}), path)
    assert read(path) == ["a", "", "b", "a"]


def test_lines_end_at_line_feeds_alone(tmp_path):
    expected = ["a\u2028b", "c\x85d", "e\x0bf", "g\rh"]
    (tmp_path / "w.txt").write_bytes("\r\n".join(expected).encode())
    assert read(tmp_path / "w.txt") == expected


def test_half_a_character_is_a_reason(tmp_path):
    (tmp_path / "w.jsonl").write_text('{"text": "a\\ud800"}\n{"text": "\\ud83d\\ude00"}\n')
    assert reasons(tmp_path / "w.jsonl") == ["with half a character (a lone surrogate)", "\U0001f600"]
    for keep in (True, False):
        labels = collect(words(str(tmp_path / "w.jsonl"), Reading()), keep_unicode=keep)
        assert labels.dropped["with half a character (a lone surrogate)"] == 1
        assert sum(labels.dropped.values()) + len(labels) == labels.read == 2


def test_lmdb_labels_in_another_encoding(tmp_path):
    write_lmdb(tmp_path / "set", [b"CAF\xc9", b"street"])
    assert reasons(tmp_path / "set") == ["that are not UTF-8", "street"]
    assert read(tmp_path / "set", encoding="latin-1") == ["CAFÉ", "street"]


def test_lmdb_that_claims_more_than_it_has(tmp_path):
    said = []
    write_lmdb(tmp_path / "set", ["a", None, "b"], samples=b"4000000000")
    assert read(tmp_path / "set", say=said.append) == ["a", "", "b"]
    assert "says that it has 3,999,999,997 more samples, which are not there" in said[0]
    write_lmdb(tmp_path / "bad", ["a"], samples=b"abc")
    with pytest.raises(DptrError, match="has num-samples 'abc', which is no number"):
        read(tmp_path / "bad")


def test_folder_of_lmdbs(tmp_path):
    for name, label in (("b/set", "b"), ("a", "a")):
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        write_lmdb(tmp_path / "all" / name, [label])
    write_lmdb(tmp_path / "far", ["c"])
    (tmp_path / "all" / "c").symlink_to(tmp_path / "far")
    assert read(tmp_path / "all") == ["a", "b", "c"]


def test_what_is_no_file_is_not_read(tmp_path):
    (tmp_path / "w.txt").symlink_to("/dev/zero")
    with pytest.raises(WrongUse, match=r"w\.txt is a device or a pipe"):
        read(tmp_path / "w.txt")
