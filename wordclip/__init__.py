"""How the encoder that dptr ships was made: draw words, train a small CLIP on them, measure it.

`python -m wordclip --help`. What it made is `pipeline/shipped/wordclip.safetensors`; README.md is the model card.
"""
