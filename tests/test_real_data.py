"""Real words and photographs, if the development data lies beside the checkout."""

from dataclasses import replace
from itertools import islice

import pytest

from cache.space import open_space
from models.charset import Charset
from pipeline.convert import space_tower
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from sources.cleaning import clean_unicode
from sources.labelled import labelled
from sources.photos import photo_count, photos
from sources.words import Reading, words
from train.data.crops import usable
from train.finetune import Material, finetune
from train.finetune_options import FinetuneOptions
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions
from train.reading.errors_page import errors_page
from train.reading.evaluate import evaluate_crops
from wordclip.crops import Crops, read_crops
from wordclip.show import nearest


def test_lexicon_is_read_whole(shared):
    labels = collect(words(str(shared / "corpora" / "mjsynth_lexicon.txt"), Reading()))
    assert labels.read == len(labels) == 88_172
    assert not labels.dropped


def test_word_list_without_a_header(shared):
    labels = collect(words(str(shared / "corpora" / "wordfreq_vi.tsv"), Reading(column="1")))
    assert labels.read == 10_719
    assert labels.altered > 1000  # diacritics are folded away
    assert sum(dict(labels).values()) + sum(labels.dropped.values()) == labels.read


def test_labels_of_an_lmdb_become_a_corpus(shared, encoder, tmp_path, say):
    source = shared / "words" / "svt_train"
    labels = collect(words(str(source), Reading()))
    assert labels.read == 257
    done = embed_text(tmp_path, encoder, labels, "svt", say)
    assert done.labels == len(open_space(tmp_path).corpus("svt").labels()) == len(labels)


@pytest.mark.parametrize("source", ["photos", "words/svt_train"])
def test_photographs_and_crops_become_a_bank(shared, encoder, tmp_path, say, source):
    path = str(shared / source)
    assert photo_count(path) > 200
    done = embed_images(tmp_path, encoder, islice(photos(path), 40), 40, "bank", say)
    assert (done.new, done.skipped) == (40, {})


def test_shipped_encoder_finds_the_words_of_crops_it_never_saw(shared):
    """On an eighth of ic03_val, each of its labels among 1,000 words; the share of all is in wordclip's model card."""
    crops = Crops.joined(read_crops([shared / "words" / "ic03_val"]))
    crops = Crops(crops.pictures[::8], crops.labels[::8])
    lexicon = words(str(shared / "corpora" / "mjsynth_lexicon.txt"), Reading())
    choice = list(dict.fromkeys([*crops.labels, *islice(lexicon, 0, None, 88)]))[:1000]
    assert len(choice) == 1000
    found = nearest(Encoder("wordclip2", "shipped"), list(crops.pictures), choice)
    assert sum(a == b for a, b in zip(found, crops.labels, strict=True)) / len(crops) > 0.94


def test_real_crops_are_learnt_from_and_measured(shared, cache, tmp_path):
    """Every label of the training sets is usable; a few steps run; the page of errors shows the pictures."""
    one = [
        labelled(str(shared / "words" / name))[0] for name in ("iiit5k_train", "svt_train", "ic15_train", "ic03_train")
    ]
    val = labelled(str(shared / "words" / "ic03_val"))
    assert [len(s) for s in one] == [2000, 257, 4468, 999]
    pretrain(
        PretrainOptions(["numbers"], tmp_path / "pre", cache=cache, depth=1, batch=32, steps=2, device="cpu"), print
    )
    space = open_space(cache)
    material = Material([one], val, space, space_tower(space, (16, 64)))
    options = FinetuneOptions(tmp_path / "pre", ["x"], ["y"], tmp_path / "run", batch=32, steps=4, eval_words=50)
    done = finetune(replace(options, workers=1, device="cpu"), material, print)
    assert (done.crops, done.val, done.dropped) == (7724, 50, {})
    found = evaluate_crops(tmp_path / "run", val, limit=60, device="cpu")
    assert (found.scores.words, found.sets[0].left_out) == (60, {})
    assert errors_page(found, val).count("data:image/") >= 50


def test_vietnamese_labels_keep_their_marks(shared):
    (one,) = labelled(str(shared / "words" / "vintext_val"))
    letters = "".join(sorted({c for label in one.labels for c in clean_unicode(label)}))
    crops = usable([one], Charset(letters), 25)
    assert len(crops) > 1400
    assert sum(not label.isascii() for label in crops.labels) > 500
