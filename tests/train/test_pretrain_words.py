"""Which words pre-training learns from: their length, their spaces, the characters of the charset."""

from dataclasses import replace

import pytest

from cache.errors import DptrError
from models.decoders import names
from pipeline.embed_text import embed_text
from pipeline.labels import collect
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions
from train.reading.evaluate import evaluate
from train.run import load_run


@pytest.fixture
def options(pretraining):
    return pretraining


def test_no_word_held_out_is_an_error(options, encoder, tmp_path):
    embed_text(tmp_path, encoder, collect(["a"]), "one", print)
    with pytest.raises(DptrError, match="there must be some of both"):
        pretrain(replace(options, cache=tmp_path, corpus=["one"], bank=None), print)


@pytest.mark.parametrize("kind", names())
def test_words_as_long_as_asked_are_read(options, encoder, tmp_path, kind):
    words = [f"{n:030}" for n in range(60)]
    embed_text(tmp_path / "cache", encoder, collect(words, 30), "long", print)
    one = replace(options, cache=tmp_path / "cache", corpus=["long"], bank=None, steps=2, decoder=kind)
    with pytest.raises(DptrError, match="no usable label: 60 longer than 25 characters"):
        pretrain(one, print)
    done = pretrain(replace(one, max_length=30), print)
    assert done.words + done.held_out == 60
    assert load_run(one.out)[0].config.max_length == 30
    assert evaluate(one.out, device="cpu").sets[0].score.words == done.held_out


def test_spaces_are_read_if_the_charset_has_one(options, encoder, tmp_path):
    words = [f"{n} {n + 1}" for n in range(40, 100)]
    embed_text(tmp_path / "cache", encoder, collect(words, keep_spaces=True), "pairs", print)
    one = replace(options, cache=tmp_path / "cache", corpus=["pairs"], bank=None, steps=2)
    with pytest.raises(DptrError, match="no usable label: 60 with characters outside the charset"):
        pretrain(one, print)
    done = pretrain(replace(one, space_char=True), print)
    assert done.words + done.held_out == 60
    lines = (one.out / "held-out.tsv").read_text().splitlines()[1:]
    assert {line.split("\t")[1] for line in lines} <= {*words}


def test_labels_that_no_charset_holds_are_counted_in_words(options, tmp_path):
    (tmp_path / "letters.txt").write_text("abc")
    message = "corpus numbers holds no usable label: 900 with characters outside the charset."
    with pytest.raises(DptrError, match=message):
        pretrain(replace(options, charset=str(tmp_path / "letters.txt")), print)


def test_decoder_writes_the_charset_of_a_file(tmp_path, encoder):
    words = [a + b for a in "đưaăâ" for b in "êôơnh"] * 2
    embed_text(tmp_path / "cache", encoder, collect(words, keep_unicode=True), "vi", print)
    (tmp_path / "vi.txt").write_text("aăâđeêioôơuưnh", "utf-8")
    options = PretrainOptions(
        ["vi"],
        tmp_path / "run",
        cache=tmp_path / "cache",
        depth=1,
        heads=2,
        batch=8,
        steps=2,
        held_out=0.2,
        device="cpu",
    )
    summary = pretrain(replace(options, charset=str(tmp_path / "vi.txt")), lambda line: None)
    assert summary.words + summary.held_out == 25
    decoder, config, _ = load_run(tmp_path / "run")
    assert decoder.charset.characters == "aăâđeêioôơuưnh"
    assert config.model.characters == "aăâđeêioôơuưnh"
    assert len(evaluate(tmp_path / "run").readings) == summary.held_out
