"""How the encoder that dptr ships was made: render words, train a small CLIP on them, measure it.

Not installed with dptr: `pipeline/models/wordclip.safetensors` is what it made. README.md is the model card.
"""
