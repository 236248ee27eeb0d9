"""The figures of docs/figures.md: one file a group, its JSON line last. `make bench` runs those that need no data."""
