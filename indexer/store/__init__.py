"""The store: the files of an index, and how they are written and read without losing anything.

`manifest` says what an index consists of; replacing it is the commit. `shards` are the files of
encoded maps, `mapstore.MapStore` reads many photos' maps from them, and `resident.ResidentMaps`
holds all of them in memory. `photos.read_photo_table` gives the photo table, which
`filters.PhotoFilter` searches by path and date. `files`, `locks` and `folder` keep the index whole
whenever a process dies. The store knows of a codec only how many bytes one photo takes.
"""
