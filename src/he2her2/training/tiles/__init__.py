"""Training of the tile CNN on tiles that inherit the score of their slide (paper, 3.2)."""
