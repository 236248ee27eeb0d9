"""A fingerprint of no encoder in particular."""

from cache.fingerprint import Fingerprint

ONE = Fingerprint(
    model="ViT-B-16-quickgelu",
    pretrained="/data/clip.pt",
    config={"embed_dim": 512, "text_cfg": {"width": 512}},
    weights="ab" * 32,
    untrained_seed=None,
    quick_gelu=True,
    tokenizer="clip-bpe 49408",
    prompt="a photo of a '{label}'",
    layout="compact",
    preprocess={"size": [224, 224]},
    compute="fp32",
)
