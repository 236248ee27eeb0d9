"""The benchmarks behind the documented figures, one file each; its last line is JSON. `make bench` runs them all."""
