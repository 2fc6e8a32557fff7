"""A reference compared with candidates' full maps: one number per candidate, and how sure it is.

`candidates.py` holds what is compared, `scores.py` the scores by name (`hough.py` and `fusion.py`
are parts of them); `rerank.py` reads the maps and scores them, and `confidence.py` says how sure a
match is.
"""
