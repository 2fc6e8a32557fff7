"""Evaluation: methods compared on labelled benchmarks.

`benchmarks` reads the labelled folders, `methods` and `metrics` say what is compared and by which
numbers. `retrieval.run_methods` runs the methods of a benchmark of searches; `report` turns the
result into JSON and a run file. `object_masks.evaluate_masks` and `video_labels.evaluate_videos` do
both for masks and for videos. `run_files` puts run files beside each other.
"""
