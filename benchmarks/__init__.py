"""Measures what PERFORMANCE promises: `make bench`, or `python -m benchmarks --only reading --quick`."""
