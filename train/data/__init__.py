"""Batches to train on, made from the cache and from pictures."""
