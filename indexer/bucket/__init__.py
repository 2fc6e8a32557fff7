"""An object store: S3, Google Cloud Storage, Azure, and what speaks their protocols.

`object_store` is the client of one place in a bucket. `transfer` copies an index there and back.
`remote_index` reads one where it lies, `remote_check` checks it. `collection_copy` writes there:
an index through a `working_copy`, a fleet through a `fleet_copy`. `object_path` opens photos that
lie in a bucket.
"""
