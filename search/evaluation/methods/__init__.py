"""The methods that benchmarks of searches compare: scores, baselines and ablations.

`methods` lists them and finds them by name. A new method is a line in its table.
"""
