"""How good a model is, with an interval on every number."""
