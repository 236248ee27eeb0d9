"""Real words and photographs, where the development data is beside the checkout."""

from itertools import islice

import lmdb
import pytest

from cache.space import open_space
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from sources.photos import photo_count, photos
from sources.words import Reading, words
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
    with lmdb.open(str(source), readonly=True, lock=False) as environment, environment.begin() as transaction:
        assert labels.read == int(transaction.get(b"num-samples")) == 257
    done = embed_text(tmp_path, encoder, labels, "svt", say)
    assert done.labels == len(open_space(tmp_path).corpus("svt").labels()) == len(labels)


@pytest.mark.parametrize("source", ["photos", "words/svt_train"])
def test_photographs_and_crops_become_a_bank(shared, encoder, tmp_path, say, source):
    path = str(shared / source)
    assert photo_count(path) > 200
    done = embed_images(tmp_path, encoder, islice(photos(path), 40), 40, "bank", say)
    assert (done.new, done.skipped) == (40, {})


def test_shipped_encoder_finds_the_words_of_crops_it_never_saw(shared):
    """On all of ic03_val, each of its labels among 1,000 words; the share stands in wordclip's card."""
    crops = Crops.joined(read_crops([shared / "words" / "ic03_val"]))
    lexicon = words(str(shared / "corpora" / "mjsynth_lexicon.txt"), Reading())
    choice = list(dict.fromkeys([*crops.labels, *islice(lexicon, 0, None, 88)]))[:1000]
    assert len(choice) == 1000
    found = nearest(Encoder("wordclip", "shipped"), list(crops.pictures), choice)
    assert sum(a == b for a, b in zip(found, crops.labels, strict=True)) / len(crops) > 0.90
