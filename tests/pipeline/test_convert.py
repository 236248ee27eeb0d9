"""The tower that fine-tuning trains gives open_clip's own tokens; what it does not know is refused."""

import pytest
import torch

from cache.errors import DptrError, WrongUse
from cache.space import open_space
from pipeline.convert import convert, space_tower
from pipeline.encoder import Encoder


def differences(encoder, tower):
    picture = torch.randn(3, 3, *tower.config.image_size)
    theirs = torch.from_numpy(encoder.image_tokens(picture)).float()
    with torch.inference_mode():
        return (tower(picture) - theirs).abs() / theirs.abs().clamp(min=1)


@pytest.mark.parametrize("model", ["tiny", "tiny-quickgelu", "tiny-wide", "tiny-word", "wordclip", "wordclip2"])
def test_tokens_are_open_clips(model):
    encoder = Encoder(model, "shipped" if model == "wordclip" else "untrained:3", precision="fp32")
    tower = convert(encoder)
    assert tower.config.quick_gelu == (model == "tiny-quickgelu")
    assert differences(encoder, tower).max() < 2e-3  # theirs are rounded to float16


def test_layer_scale_and_no_norm_before_are_understood(tmp_path):
    import json

    import open_clip

    from tests.conftest import TINY

    vision = {**TINY["vision_cfg"], "ls_init_value": 0.3, "no_ln_pre": True}
    (tmp_path / "tiny-scaled.json").write_text(json.dumps({**TINY, "vision_cfg": vision}))
    open_clip.add_model_config(tmp_path)
    encoder = Encoder("tiny-scaled", "untrained:1", precision="fp32")
    with torch.no_grad():
        for block in encoder.model.visual.transformer.resblocks:
            block.ls_1.gamma.uniform_(0.1, 2)
    tower = convert(encoder)
    assert not tower.config.pre_norm
    assert differences(encoder, tower).max() < 2e-3


def test_batch_norms_of_a_stem_are_folded():
    encoder = Encoder("wordclip", "shipped", precision="fp32")
    tower = convert(encoder)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in tower.modules())
    assert tower.config.grid == (2, 32)


def test_tower_of_another_kind_is_refused():
    for model in ("tiny-average", "tiny-attends"):
        with pytest.raises(WrongUse, match="no vision transformer with a class token: fine-tune with --encoder vit"):
            convert(Encoder(model, "untrained:0", precision="fp32"))


def test_what_computes_otherwise_is_refused():
    encoder = Encoder("tiny", "untrained:1", precision="fp32")
    encoder.model.visual.register_buffer("unheard_of", torch.zeros(1))
    with pytest.raises(WrongUse, match="dptr does not know.*unheard_of.*--encoder vit"):
        convert(encoder)
    encoder = Encoder("tiny", "untrained:1", precision="fp32")
    encoder.model.visual.transformer.resblocks[1].mlp.gelu = torch.nn.ReLU()
    with pytest.raises(WrongUse, match="gives other tokens once converted"):
        convert(encoder)


def test_tower_of_a_space_at_another_size(cache):
    space = open_space(cache)
    assert space_tower(space, None).config.image_size == (32, 32)
    assert space_tower(space, (16, 64)).config.grid == (2, 8)
    with pytest.raises(WrongUse, match="smaller than one patch.*--image-size"):
        space_tower(space, (4, 4))
    with pytest.raises(DptrError, match="another encoder.*weights"):
        space_tower(space, None, "untrained:2")
