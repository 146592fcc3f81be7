"""Benchmarks: one command (`python -m bench`), a record of the machine, raw results kept, ratios within one run."""
