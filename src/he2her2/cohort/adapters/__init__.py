"""Public cohorts, each from the files as they are given out to a validated manifest."""
