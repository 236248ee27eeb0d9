"""Labels become prompts, each once, exactly as with a dictionary in memory."""

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import DptrError
from cache.memories import key_of, packed
from cache.space import open_space
from pipeline.embed_text import embed_text
from pipeline.labels import collect, telling
from pipeline.prompt_table import Prompts
from tests.conftest import WORDS

NEW = ["Street", "new", "NEW", "street", "1984", "newer"]


@given(texts=st.lists(st.sampled_from([*WORDS, *NEW, "", "汉", "a b"]), max_size=60), page=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_prompts_are_those_of_a_dictionary(texts, page, encoder, cache):
    """`cache` holds the numbers up to 899, so not 1984."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.prompt_table.PAGE", page)
        labels = collect(texts)
        prompts = Prompts(labels, encoder)
        counts: dict[str, int] = {}
        for text in texts:
            if label := text.replace(" ", "").replace("汉", ""):
                counts[label] = counts.get(label, 0) + 1
        ids = {label: encoder.prompt.ids(label) for label in counts}
        unique = {key_of(i): i for i in ids.values()}
        assert dict(labels) == counts
        assert (prompts.labels, len(prompts)) == (len(counts), len(unique))
        assert prompts.bytes == sum(encoder.rows(i) * encoder.width * 2 for i in unique.values())
        space = open_space(cache)
        assert list(prompts.missing(space.memories)) == [(key, packed(i)) for key, i in unique.items()]
        assert prompts.hold(space.corpus("none")) == 0
        assert list(prompts.pointers(held=False)) == [(n, key_of(ids[n]), counts[n]) for n in counts]


def test_what_is_cached_is_not_missing_and_what_is_held_gets_no_pointer(tmp_path, encoder):
    embed_text(tmp_path, encoder, collect(WORDS), "words", print)
    prompts = Prompts(collect([*NEW, "EXIT"]), encoder)
    space = open_space(tmp_path)
    assert [ids for _, ids in prompts.missing(space.memories)] == [
        packed(encoder.prompt.ids(w)) for w in ("new", "newer")
    ]
    assert prompts.hold(space.corpus("words")) == 3  # street, hello and EXIT
    assert [label for label, _, _ in prompts.pointers(held=False)] == ["Street", "new", "NEW", "newer"]
    assert len(list(prompts.pointers(held=True))) == 7


def test_full_temporary_disk_is_one_sentence():
    with pytest.raises(DptrError, match="SQLITE_TMPDIR"), telling():
        raise sqlite3.OperationalError("database or disk is full")


def test_error_of_a_source_comes_through(tmp_path):
    """The words are counted inside the database's own loop."""

    def words():
        yield "street"
        raise DptrError("the file ends here")

    with pytest.raises(DptrError, match="the file ends here"):
        collect(words())
