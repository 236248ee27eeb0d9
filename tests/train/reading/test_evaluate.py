"""An evaluation in its three forms: the run's held-out.tsv, the table, and the page of misread words."""

import re
from html import unescape

import pytest

from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions
from train.reading.errors_page import errors_page
from train.reading.evaluate import evaluate
from train.reading.result import table


@pytest.fixture(scope="module")
def run(cache, tmp_path_factory):
    """A run that reads some words and misreads others, some of them alike and equally surely."""
    out = tmp_path_factory.mktemp("runs") / "run"
    options = PretrainOptions(
        ["numbers"], out, cache=cache, depth=1, heads=2, batch=64, steps=130, lr=4e-3, held_out=0.3, device="cpu",
        precision="fp32",
    )  # fmt: skip
    pretrain(options, print)
    return out


def test_held_out_tsv_table_and_page_list_the_same_misreadings_in_the_same_order(run):
    done = evaluate(run, device="cpu")
    expected = [(r.truth, r.text) for r in done.readings if r.truth != r.text]
    assert 20 < len(expected) < len(done.readings)
    assert len({r.error for r in done.readings}) > 3

    rows = [line.split("\t") for line in (run / "held-out.tsv").read_text().splitlines()[1:]]
    assert [(word, text) for _, word, text in rows if word != text] == expected

    _, _, listed = table(done, worst=len(expected)).rpartition("confidence\n")
    assert [tuple(line[:-4].split()) for line in listed.splitlines()] == expected

    page = errors_page(done)
    truths, texts = (re.findall(f'<bdi class="{kind}".*?>(.*?)</bdi>', page) for kind in ("truth", "reading"))
    plain = [[unescape(re.sub("</?mark>", "", part)) for part in parts] for parts in (truths, texts)]
    assert list(zip(*plain, strict=True)) == expected
