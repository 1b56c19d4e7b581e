"""Other libraries on the same slide, each in an environment of its own: `make bench-peers`."""
