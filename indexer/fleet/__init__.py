"""A fleet: one collection in several ordinary indexes, its parts (`indexer.parts`).

`fleet_reader` reads a fleet as one collection, and opens whatever kind of collection a folder
holds. `fleet_build` makes and updates fleets: `new_fleet` fits the codec of a new one, `shares`
divides the listing of a run among the parts, `part_update` is what is done to each, where
`part_places` says, and `fleet_progress` tells how far they are. On a cluster, a `part_worker` in
each process does the work, and `ray_workers` gives it out; for searches, a `part_holder` in each
process has some parts open, and `cluster_reader` reads what they hold as one collection.
"""
