"""Real faults: processes killed, writes refused, files damaged, many times over. `make faults` is the long run."""
