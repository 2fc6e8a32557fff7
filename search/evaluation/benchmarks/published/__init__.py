"""Published benchmarks of searches, each read as it is published.

A module reads the folder of one benchmark, or of two with the same kind of list. `named_photos` has
what they share, `packed_photos` finds photos in tars.
"""
