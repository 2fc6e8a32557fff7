"""Evaluation: labelled benchmarks, the methods compared on them, and the metrics reported."""
