"""Frozen towers, made fast: what they compute is what open_clip computes, and tests compare the two."""
