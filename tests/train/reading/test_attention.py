"""The maps against torch's own attention and a slow, literal pass; and how they are drawn."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn
from torch.nn import functional as F

from cache.errors import DptrError, WrongUse
from models.charset import EOS
from models.layers import Attention
from tests.helpers.decoders import attend
from tests.helpers.pictures import picture
from tests.train.reading.test_read import save, tiny
from train.reading import attention_page
from train.reading.attention import attention_maps
from train.reading.attention_page import draw_attention, look

KINDS = [(0, True), (0, False), (5, True), (5, False)]  # queries of the FMU, class token


def torchs(ours, source_width):
    """torch's module with our parameters."""
    W = ours.query.in_features
    theirs = nn.MultiheadAttention(W, ours.heads, kdim=source_width, vdim=source_width, batch_first=True)
    with torch.no_grad():
        if source_width == W:
            theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.keys_and_values.weight]))
        else:
            theirs.q_proj_weight.copy_(ours.query.weight)
            for mine, part in zip(ours.keys_and_values.weight.chunk(2), ("k_proj", "v_proj"), strict=True):
                getattr(theirs, f"{part}_weight").copy_(mine)
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.keys_and_values.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    return theirs.eval()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("source_width", [32, 24])
def test_weights_are_those_of_torchs_attention(source_width, masked):
    torch.manual_seed(0)
    ours = Attention(32, source_width, 4, 0.0).eval()
    theirs = torchs(ours, source_width)
    x, source = torch.randn(3, 5, 32) * 3, torch.randn(3, 7, source_width) * 3
    mask = torch.arange(7) < torch.tensor([7, 4, 1])[:, None] if masked else None
    padding = None if mask is None else ~mask
    found, average = theirs(x, source, source, key_padding_mask=padding, average_attn_weights=True)
    _, each = theirs(x, source, source, key_padding_mask=padding, average_attn_weights=False)
    wide = None if mask is None else mask[:, None, None]
    weights = ours.weights(x, ours.keys_values(source), wide)
    assert torch.allclose(weights.mean(1), average, atol=1e-6)
    assert torch.allclose(weights, each, atol=1e-6)
    assert torch.allclose(ours(x, ours.keys_values(source), wide), found, atol=1e-5)


def pixels(count):
    return torch.randint(0, 256, (count, 3, 16, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


def maps_by_hand(recogniser, one):
    """Maps (S, rows, columns) of one picture: its text left to right, then the cloze pass, layer by layer."""
    decoder, S = recogniser.decoder, recogniser.config.decoder.max_length + 1
    tokens = recogniser.adapt(recogniser.tokens(one[None]))
    memory = recogniser.memory(one[None])
    ids = decoder.read(memory, None, 0)[0][0].tolist()
    ids = [decoder.charset.bos, *ids[: S - 1]]
    end = ids.index(EOS) if EOS in ids else S
    cloze = torch.tensor([[j != i + 1 and j < end for j in range(S)] for i in range(S)])
    causal = torch.tensor([[j <= i and j < end for j in range(S)] for i in range(S)])
    everything = torch.ones(S, memory.shape[1], dtype=torch.bool)
    content = torch.stack(
        [decoder.embedding.weight[i] * 32**0.5 + (decoder.positions[n - 1] if n else 0) for n, i in enumerate(ids)]
    )
    query, looked = decoder.positions, []
    for layer in decoder.layers:
        normed, streams = layer.norm_content(content), []
        for stream, start, mask in ((query, layer.norm_query(query), cloze), (content, normed, causal)):
            x = stream + attend(layer.self_attention, start, normed, mask)
            if stream is query:
                at = layer.norm_cross(x)[None]
                looked.append(torchs(layer.cross_attention, 24)(at, memory, memory)[1][0])
            x = x + attend(layer.cross_attention, layer.norm_cross(x), memory[0], everything)
            streams.append(x + layer.feed(layer.norm_feed(x)))
        query, content = streams
    found = torch.stack(looked).mean(0)
    if recogniser.config.queries:
        found = found @ torchs(recogniser.fmu.attention, 24)(recogniser.fmu.queries[None], tokens, tokens)[1][0]
    found = found[:, 1:] if recogniser.config.vision.class_token else found
    return F.normalize(found, p=1, dim=-1).view(-1, 2, 8)


@pytest.mark.parametrize(("queries", "class_token"), KINDS)
@pytest.mark.parametrize("depth", [1, 2])
@torch.no_grad()
def test_maps_equal_the_literal_ones(queries, class_token, depth):
    recogniser, shown = tiny(queries, class_token, depth), pixels(9)
    texts, maps = attention_maps(recogniser, shown)
    assert texts == recogniser.read(shown)[0]
    assert len({len(text) for text in texts}) > 1
    for text, found, one in zip(texts, maps, shown, strict=True):
        assert found.shape == (len(text), 2, 8)
        assert found.dtype == torch.float32
        assert torch.allclose(found.sum((1, 2)), torch.ones(len(text)))
        assert torch.allclose(found, maps_by_hand(recogniser, one)[: len(text)], atol=1e-5)
    assert not any(module._forward_pre_hooks for module in recogniser.modules())


@pytest.mark.parametrize(("queries", "class_token"), KINDS)
def test_maps_do_not_depend_on_the_pictures_beside(queries, class_token):
    recogniser, shown = tiny(queries, class_token), pixels(9)
    texts, maps = attention_maps(recogniser, shown)
    for n in range(9):
        (text,), (alone,) = attention_maps(recogniser, shown[n : n + 1])
        assert text == texts[n]
        assert torch.allclose(alone, maps[n], atol=1e-6)


def test_heat_stands_where_the_map_is_large(tmp_path):
    grey = Image.new("RGB", (80, 20), "grey")
    maps = torch.full((2, 2, 8), 1e-3)
    maps[0, :, 0] = maps[1, :, 7] = 0.5
    draw_attention([grey], ["ab"], None, [maps], tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as drawn:
        page = np.asarray(drawn).astype(int)
    assert page.shape[1] < attention_page.WIDTH
    hot = (page[..., 0] > 150) & (page[..., 2] < page[..., 0] - 60)
    columns = np.flatnonzero(hot.any(0))
    tile = 228
    assert columns.min() >= 12
    assert columns.max() < 12 + tile + 12 + tile
    assert not hot[:, 12 + tile // 4 : 12 + tile + 12 + 3 * tile // 4].any()  # right of the one, left of the other
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_tiles_of_an_unsure_reader_differ():
    grey = Image.new("L", (80, 20), 128)
    flat = torch.full((2, 8), 1 / 16)
    left, right = flat.clone(), flat.clone()
    left[:, 0] += 1e-4
    right[:, 7] += 1e-4
    a, b, neither = (np.asarray(attention_page._heated(grey, one)).astype(int) for one in (left, right, flat))
    assert a[:, :5, 0].min() > a[:, 40:, 0].max() + 60  # red where it looks, if only slightly
    assert b[:, -5:, 0].min() > b[:, :40, 0].max() + 60
    assert len(np.unique(neither[..., 0])) == 1  # no place is preferred


@pytest.mark.parametrize(("one", "bits"), [([1, 0, 0, 0], 0.0), ([0.25] * 4, 2.0), ([0.5, 0.25, 0.125, 0.125], 1.75)])
def test_entropy_in_bits(one, bits):
    assert attention_page.entropy(torch.tensor(one).view(2, 2)) == pytest.approx(bits)


def test_the_entropy_is_written_below_each_tile(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, place, text, *more: written.append(text))
    sharp = torch.zeros(2, 8)
    sharp[0, 0] = 1
    maps = torch.stack([sharp, torch.full((2, 8), 1 / 16)])
    draw_attention([Image.new("RGB", (80, 20))], ["ab"], [0.5], [maps], tmp_path / "a.png")
    assert written == ["ab", "confidence 50%", "a", "0.0 bits", "b", "4.0 bits"]


def test_words_long_empty_and_beyond_ascii(tmp_path):
    shown = [Image.new("RGB", size, "white") for size in ((200, 50), (3, 300), (900, 3))]
    texts = ["abcdefghijklmnop", "", "\u1edf"]
    maps = [torch.rand(len(text), 2, 8) for text in texts]
    draw_attention(shown, texts, [0.5, 0.1, 1.0], maps, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as page:
        assert page.width <= attention_page.WIDTH + 24
    with pytest.raises(DptrError, match="cannot write"):
        draw_attention(shown, texts, None, maps, tmp_path / "none" / "a.png")
    font = ImageFont.load_default(18)
    assert attention_page._legible("b\u1edfc", font) == "b U+1EDF c"
    assert attention_page._legible("it's", font) == "it's"


def test_look(tmp_path, monkeypatch):
    run = save(tmp_path / "run", tiny())
    for n in range(3):
        (tmp_path / f"{n}.png").write_bytes(picture(n))
    (tmp_path / "bad.png").write_bytes(b"no")
    assert look(run, [str(tmp_path / "*.png")], tmp_path / "a.out") == 3
    assert (tmp_path / "a.out").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(DptrError, match="none of the files is a picture"):
        look(run, [str(tmp_path / "bad.png")], tmp_path / "b.png")
    monkeypatch.setattr(attention_page, "MOST", 2)
    with pytest.raises(WrongUse, match="has room for 2 pictures"):
        look(run, [str(tmp_path / "*.png")], tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()
