"""Albums: which photos of an index show the object of each name, found out once and kept.

`comparing` scores photos against many named objects, `filling` does so for photos and names that
are new and stores what it finds, `album` tells it, without a model, and `verdicts` turns what a
person says of photos into what a name keeps.
"""
