"""Training of the tumour CNN on annotated slides or patches (paper, 3.1.2)."""
