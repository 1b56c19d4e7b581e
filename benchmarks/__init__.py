"""Measurements of speed and memory: `make bench`, or `python -m benchmarks --only reading --quick`."""
