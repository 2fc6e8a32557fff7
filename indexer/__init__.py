"""The index: feature maps of a photo collection, stored on disk so that no crash harms them.

Start with `ingest.build.index_photos`, which makes or updates an index, and `reader.IndexReader`,
which reads one. `protocols` has the contracts of what turns photos into numbers, `photo_lists`
reads lists of photos, `tar_photos` photos in tars, `parts` says what a fleet is, and `ray_cluster`
hires workers on other machines. The rooms: `codec` turns maps into bytes, `store` keeps files,
`recall` finds candidates, `ingest` writes, `upkeep` checks and compacts. Nothing here knows of
queries.
"""
