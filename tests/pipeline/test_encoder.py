"""Features are open_clip's own: compared with its full forward pass on a real, small model."""

import io

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import image_transform_v2
from PIL import Image

from cache.errors import DptrError, WrongUse
from pipeline.encoder import Encoder
from pipeline.towers.prefix_tree import PrefixTree
from pipeline.weights import build_model, weights_digest
from sources.pictures import decode
from tests.conftest import WORDS


def reference_states(encoder: Encoder, labels: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (B, 77) by open_clip's tokenizer, and ln_final of all positions (B, 77, D) seen inside encode_text."""
    tokens = open_clip.get_tokenizer("tiny")([f"a photo of a '{label}'" for label in labels])
    seen = []
    handle = encoder.tower.ln_final.register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad():
        encoder.model.encode_text(tokens)
    handle.remove()
    return tokens, seen[0]


def split_rows(encoder, labels):
    ids = [encoder.prompt.ids(label) for label in labels]
    states = encoder.text_states(ids).astype(np.float32)
    return np.split(states, np.cumsum([encoder.rows(i) for i in ids])[:-1])


def test_ids_are_open_clips(encoder):
    tokens, _ = reference_states(encoder, WORDS)
    for label, row in zip(WORDS, tokens.tolist(), strict=True):
        ids = encoder.prompt.ids(label)
        assert ids == row[: len(ids)]
        assert not any(row[len(ids) :])


def test_compact_rows_equal_the_full_forward_pass(encoder):
    tokens, expected = reference_states(encoder, WORDS)
    ends = tokens.argmax(-1)
    for n, rows in enumerate(split_rows(encoder, WORDS)):
        wanted = expected[n, 5 : ends[n] + 1].numpy()
        assert rows.shape == wanted.shape
        assert np.abs(rows - wanted).max() < 2e-3  # float16 of values up to 4
    # before rounding to float16 the agreement is that of fp32
    (batch,) = PrefixTree([encoder.prompt.ids(label) for label in WORDS], 5).batches(10_000)
    with torch.no_grad():
        rows = encoder.text.replicas.first(*(torch.from_numpy(a) for a in batch[:3])).flatten(0, 1)[batch.source]
    wanted = torch.cat([expected[n, 5 : end + 1] for n, end in enumerate(ends)])
    assert (rows[np.argsort(batch.target)] - wanted).abs().max() < 1e-4


def test_prefix_is_the_same_for_all_and_stored_once(encoder):
    _, expected = reference_states(encoder, WORDS)
    prefix = encoder.prefix_states().astype(np.float32)
    assert prefix.shape == (5, 64)
    assert np.abs(expected[:, :5].numpy() - prefix).max() < 2e-3


def test_projected_end_row_can_be_derived_from_a_compact_memory(encoder):
    tokens, _ = reference_states(encoder, WORDS)
    with torch.no_grad():
        expected = encoder.model.encode_text(tokens).numpy()
    ends = np.stack([rows[-1] for rows in split_rows(encoder, WORDS)])
    assert np.abs(ends @ encoder.text_projection.numpy() - expected).max() < 1e-2


def test_full_layout_is_the_released_one(full_encoder):
    tokens, expected = reference_states(full_encoder, WORDS)
    with torch.no_grad():
        pooled = full_encoder.model.encode_text(tokens)
    for n, rows in enumerate(split_rows(full_encoder, WORDS)):
        assert rows.shape == (78, 64)
        assert np.abs(rows[0] - pooled[n].numpy()).max() < 2e-3
        assert np.abs(rows[1:] - expected[n].numpy()).max() < 2e-3


def test_order_and_company_do_not_matter_in_fp32(encoder):
    alone = [split_rows(encoder, [label])[0] for label in WORDS]
    for a, b in zip(alone, split_rows(encoder, WORDS), strict=True):
        assert np.abs(a - b).max() < 2e-3


def test_bf16_points_the_same_way(encoder):
    rough = Encoder("tiny", "untrained:1", precision="bf16", device="cpu")
    for a, b in zip(split_rows(encoder, WORDS), split_rows(rough, WORDS), strict=True):
        cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        assert cosine.min() > 0.999


def test_image_tokens_begin_with_open_clips_feature(encoder):
    pictures = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = encoder.image_tokens(pictures).astype(np.float32)
    assert tokens.shape == (3, *encoder.image_shape()) == (3, 17, 64)
    visual = encoder.model.visual
    with torch.no_grad():
        assert np.abs(tokens[:, 0] - visual(pictures).numpy()).max() < 2e-3
        visual.output_tokens = True
        patches = visual(pictures)[1] @ visual.proj
        visual.output_tokens = False
    assert np.abs(tokens[:, 1:] - patches.numpy()).max() < 2e-3


@pytest.mark.parametrize("model", ["tiny", "tiny-word"])
def test_pixels_normalised_on_the_device_are_open_clips_own(tiny_models, model):
    encoder = Encoder(model, "untrained:1", precision="fp32")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8))
    theirs = image_transform_v2(encoder.preprocess_config, is_train=False)(picture)[None]
    pixels = encoder.preprocess(picture)[None]
    assert pixels.dtype == torch.uint8
    assert (encoder.image_tokens(pixels) == encoder.image_tokens(theirs)).all()


def test_large_jpegs_are_decoded_at_a_smaller_scale(encoder):
    y, x = np.mgrid[:400, :600]
    smooth = np.stack([np.sin(x / 60), np.cos(y / 50), np.sin((x + y) / 80)], -1) * 100 + 128
    file = io.BytesIO()
    Image.fromarray(smooth.astype(np.uint8)).save(file, "JPEG", quality=95)
    assert decode(file.getvalue(), (32, 32)).size == (75, 50)  # an eighth
    assert decode(file.getvalue(), (300, 100)).size == (300, 200)
    assert decode(file.getvalue(), (301, 1)).size == (600, 400)
    quick, whole = encoder.pixels(file.getvalue()), encoder.preprocess(decode(file.getvalue()))
    assert (quick.int() - whole.int()).abs().float().mean() < 3


def test_tower_that_is_not_square_sees_whole_pictures(tiny_models):
    encoder = Encoder("tiny-word", "untrained:0", precision="fp32")
    assert encoder.fingerprint.preprocess["resize_mode"] == "squash"
    assert encoder.image_shape() == (33, 64)


def test_untrained_weights_follow_the_seed_and_are_part_of_the_identity(encoder):
    again = Encoder("tiny", "untrained:1", precision="fp32")
    other = Encoder("tiny", "untrained:2", precision="fp32")
    assert again.fingerprint == encoder.fingerprint
    assert other.fingerprint.digest != encoder.fingerprint.digest
    assert encoder.fingerprint.untrained_seed == 1
    before = torch.rand(1, generator=torch.Generator().manual_seed(5))
    torch.manual_seed(5)
    build_model("tiny", "untrained:9")
    assert torch.rand(1) == before  # the caller's random numbers are left alone


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_from_a_file_are_the_same_weights(encoder, tmp_path, suffix):
    from safetensors.torch import save_file

    path = tmp_path / f"clip{suffix}"
    state = build_model("tiny", "untrained:1").state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loaded = Encoder("tiny", str(path), precision="fp32")
    assert loaded.fingerprint.weights == encoder.fingerprint.weights
    assert loaded.fingerprint.untrained_seed is None
    assert loaded.fingerprint.digest != encoder.fingerprint.digest
    assert weights_digest(loaded.model) == encoder.fingerprint.weights


@pytest.mark.parametrize(
    ("model", "pretrained", "message"),
    [
        ("no-such-model", "untrained:0", "open_clip has no model 'no-such-model'"),
        ("tiny", "untrained", "neither a file nor a tag of tiny"),
        ("tiny", "untrained:x", "without a seed"),
        ("ViT-B-16", "shipped", "dptr ships no weights for ViT-B-16: name some with --pretrained .tags: openai, "),
        ("wordclip", "laion400m", "neither a file nor a tag of wordclip .tags: shipped"),
        ("tiny", "nowhere.pt", "neither a file nor a tag of tiny"),
        ("ViT-B-16", "openai", "QuickGELU and ViT-B-16 computes GELU.*--model ViT-B-16-quickgelu"),
        ("ViT-B-16-quickgelu", "laion2b_s34b_b88k", "neither a file nor a tag|GELU and ViT-B-16-quickgelu"),
    ],
)
def test_what_cannot_be_right_is_one_sentence(tiny_models, model, pretrained, message):
    with pytest.raises(WrongUse, match=message):
        Encoder(model, pretrained)


def test_openais_own_archive_needs_quickgelu(tiny_models, tmp_path):
    """OpenAI's files are TorchScript archives; the one built here differs from them only in its weights."""
    path = tmp_path / "ViT-B-16.pt"
    model = build_model("tiny", "untrained:1")
    with pytest.warns(FutureWarning):
        torch.jit.save(torch.jit.trace(model.visual, torch.zeros(1, 3, 32, 32)), path)
    with pytest.raises(WrongUse, match="trained with QuickGELU and tiny computes GELU.*--model tiny-quickgelu"):
        Encoder("tiny", str(path))


def test_weights_of_another_shape_are_named(tiny_models, tmp_path):
    path = tmp_path / "other.pt"
    torch.save(build_model("tiny-wide", "untrained:1").state_dict(), path)
    with pytest.raises(WrongUse, match="tiny cannot be built with the weights .*other.pt"):
        Encoder("tiny", str(path))


def test_weights_that_hide_a_program_are_not_loaded(tiny_models, tmp_path):
    path = tmp_path / "model.pt"
    torch.save(build_model("tiny", "untrained:1"), path)
    with pytest.raises(DptrError, match="model.pt is not loaded, because it asks for open_clip") as error:
        Encoder("tiny", str(path))
    assert "weights_only" not in str(error.value)


def test_weights_that_cannot_be_fetched_say_what_to_do(tiny_models, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(DptrError, match="could not be fetched .*--pretrained FILE"):
        build_model("RN50-quickgelu", "yfcc15m")


def test_full_layout_needs_equal_widths(tiny_models):
    with pytest.raises(WrongUse, match="use --layout compact"):
        Encoder("tiny-wide", "untrained:0", layout="full")
    assert Encoder("tiny-wide", "untrained:0").text_projection.shape == (64, 32)


def test_unknown_words_are_wrong_use(tiny_models):
    with pytest.raises(WrongUse, match="no layout 'x'"):
        Encoder("tiny", "untrained:0", layout="x")
    with pytest.raises(WrongUse, match="no precision 'x'"):
        Encoder("tiny", "untrained:0", precision="x")
    with pytest.raises(WrongUse, match="no device 'x'"):
        Encoder("tiny", "untrained:0", device="x")


@pytest.mark.gpu
def test_gpu_gives_what_the_cpu_gives(encoder):
    on_gpu = Encoder("tiny", "untrained:1", precision="fp32", device="cuda")
    for a, b in zip(split_rows(encoder, WORDS), split_rows(on_gpu, WORDS), strict=True):
        assert np.abs(a - b).max() < 5e-3
