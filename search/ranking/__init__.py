"""Candidates in their final order, and where in the first of them the object is.

`candidate_ranking.py` orders them, with more references by `expansion.py`; `matches.py` tells what
is found in a photo: its places (`localise.py`) and the pairs of cells that voted for them
(`pairs.py`).
"""
