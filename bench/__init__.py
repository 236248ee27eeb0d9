"""Each figure of the README: one file, one figure, a JSON line last. `make bench` runs them all."""
