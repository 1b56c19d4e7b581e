"""HER2 status from an H&E whole-slide image, with the evidence (Oliveira et al., 2020). Research use only."""

__version__ = "0.1.0"
