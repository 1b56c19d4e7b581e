"""Many slides: which there are, the run folder that holds their results, and the loop over them."""
