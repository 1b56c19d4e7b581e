"""Training of tile CNN and aggregator on H&E slides (paper, 3.3)."""
