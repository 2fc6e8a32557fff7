"""Evaluation: methods compared on labelled benchmarks.

`benchmarks` reads the labelled folders, `methods` and `metrics` say what is compared and by which
numbers. `retrieval.run_methods` runs the methods of a benchmark of searches; `report` turns the
result into JSON and a run file. `labels` does both for masks and videos, `photo_groups` for groups
of photos, and `text_queries` for searches by texts. `runs` puts run files beside each other.
"""
