"""Uses the cache: charset, permutations, perturbation, decoder, pre-training, evaluation. Needs no open_clip."""
