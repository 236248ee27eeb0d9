"""Text towers that look ahead, or are built differently, give the states of open_clip's own forward pass."""

import json

import numpy as np
import open_clip
import pytest
import torch

from cache.errors import WrongUse
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from pipeline.towers.plain_text import PlainTower, _name
from tests.conftest import TINY, WORDS

VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "a",
    "photo",
    "of",
    "'",
    *"abcdehlorstx",
    *(f"##{c}" for c in "abcdehlorstx"),
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A CLIP with a small BERT for text, from files like those of a hub; its weights are random."""
    from transformers import BertConfig, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=24).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=48, **sizes).save_pretrained(folder)
    text = {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder), "hf_model_pretrained": False}
    text |= {"context_length": 24, "hf_proj_type": "linear", "hf_pooler_type": "cls_pooler"}
    (folder / "tiny-bert.json").write_text(json.dumps({**TINY, "custom_text": True, "text_cfg": text}))
    (folder / "config.json").rename(folder / "kept.json")  # open_clip takes every .json here for a model
    open_clip.add_model_config(folder / "tiny-bert.json")
    (folder / "kept.json").rename(folder / "config.json")
    return "tiny-bert"


def split(encoder: Encoder, ids: list[list[int]]) -> list[np.ndarray]:
    states = encoder.text_states(ids).astype(np.float32)
    return np.split(states, np.cumsum([encoder.rows(i) for i in ids])[:-1])


def test_tokens_that_look_ahead_are_computed_whole(tiny_models):
    encoder = Encoder("tiny-bidirectional", "untrained:1", precision="fp32")
    assert isinstance(encoder.text, PlainTower)
    assert encoder.prompt.prefix == []
    assert encoder.prefix_states().shape == (0, 64)
    tokens = open_clip.get_tokenizer("tiny")([f"a photo of a '{label}'" for label in WORDS])
    seen = []
    handle = encoder.tower.ln_final.register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad():
        features = encoder.model.encode_text(tokens).numpy()
    handle.remove()
    for n, rows in enumerate(split(encoder, [encoder.prompt.ids(label) for label in WORDS])):
        end = int(tokens[n].argmax())
        assert len(rows) == end + 1
        assert np.abs(rows - seen[0][n, : end + 1].numpy()).max() < 2e-3
        assert np.abs(rows[end] @ encoder.text_projection.numpy() - features[n]).max() < 1e-2


def test_a_tower_of_transformers_gives_its_own_hidden_states(bert):
    encoder = Encoder(bert, "untrained:3", precision="fp32")
    assert encoder.width == 32
    assert encoder.text_projection.shape == (32, 0)
    assert encoder.context == 24
    labels = ["hello", "tar", "abc", "a", "xx"]
    tokens = open_clip.get_tokenizer(bert)([f"a photo of a '{label}'" for label in labels])
    with torch.no_grad():
        wanted = encoder.model.text.transformer(input_ids=tokens, attention_mask=(tokens != 0).long()).last_hidden_state
    for n, (label, rows) in enumerate(
        zip(labels, split(encoder, [encoder.prompt.ids(x) for x in labels]), strict=True)
    ):
        assert encoder.prompt.ids(label) == tokens[n][tokens[n] != 0].tolist()
        assert np.abs(rows - wanted[n, : len(rows)].numpy()).max() < 2e-3


def test_they_are_embedded_and_the_plan_says_so(bert, tmp_path):
    from cache.space import Space
    from train.data.word_batches import MemoryLoader

    encoder, lines = Encoder(bert, "untrained:3", precision="fp32"), []
    done = embed_text(tmp_path, encoder, collect(["hello", "tar", "hello", "x" * 25]), "words", lines.append)
    assert (done.new_memories, done.dropped) == (2, {"with a prompt longer than the encoder's context": 1})
    assert any("look ahead" in line and "each prompt is computed in full" in line for line in lines)
    loader = MemoryLoader(Space(tmp_path / done.space), torch.device("cpu"))
    states = encoder.text_states([encoder.prompt.ids("tar")])
    memory, mask = loader.padded(states, np.array([len(states)]))
    assert memory.shape == (1, len(states), 32)
    assert mask.all()


def test_the_full_layout_is_for_causal_towers(tiny_models):
    with pytest.raises(WrongUse, match="looks ahead: use --layout compact"):
        Encoder("tiny-bidirectional", "untrained:0", layout="full")


def test_without_transformers_it_is_said_what_to_install(bert, monkeypatch):
    monkeypatch.setattr("open_clip.hf_model.transformers", None)
    with pytest.raises(WrongUse, match="pip install 'dptr.multilingual.'"):
        Encoder(bert, "untrained:3")


def test_a_batch_is_called_after_its_tokens_however_they_are_held():
    assert _name([[1, 2], [3]]) == _name([np.array([1, 2], np.int32), np.array([3], np.int32)])
    assert _name([[1, 2], [3]]) != _name([[1], [2, 3]])
