"""The paper's own way on phantoms, reduced in size only: `python -m experiments.paper_sized --help`."""
