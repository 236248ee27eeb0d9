"""How encoders for words are made: draw words, train a small CLIP on them, measure it.

`python -m wordclip --help`. README.md is the model card of the encoder that ships with dptr, and of its successor.
"""
