"""Coverage of the intervals of `he2her2.statistics`, and of the guarantees of operating points, in simulated cohorts.

Nominal 95 % should be 93-97 %. Intervals of counts of 8 patients are measured exactly, over every table of 8; the
others by simulated cohorts, whose share has a standard error of half a point for 2 000. For comparison stand what is
commonly done: the plain percentile bootstrap and plain DeLong.

Run: `python -m experiments.coverage [--draws 2000] [--only auc]`. Each study replaces its part of
`results/coverage.json`, and `results/coverage.md` is written from all of it, so studies may run apart.
"""
