"""The steps of the method on one slide: segmentation, tiles, inference, decision."""
