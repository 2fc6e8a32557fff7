"""Care for an index that exists: what `waldo info`, `verify`, `compact` and `remove` do.

`check` describes an index and verifies it, `compact` frees the room of deleted photos, `remove`
deletes photos by their paths, and `fusion_weights` stores weights that were fitted to a collection.
`naming` keeps named objects and what people say of photos, `album_commit` stores which photos show
them, and `link_commit` which regions of photos show the same thing.
"""
