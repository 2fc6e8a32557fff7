"""The metrics: how good a ranking, a mask, a confidence or a class map is.

`summary` has those of a benchmark of searches, `masks` those of masks and videos. They know
benchmarks and scores, but not the methods that scores come from.
"""
