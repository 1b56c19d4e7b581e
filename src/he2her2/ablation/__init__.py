"""The six methods of the paper's Tables 2 to 4, trained and tested (paper, 5.4)."""
