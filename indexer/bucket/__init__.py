"""An object store: S3, Google Cloud Storage, Azure, and what speaks their protocols.

`object_store` is the client of one place in a bucket. `transfer` copies an index there and back.
`remote_index` reads one where it lies, and `working_copy` writes it there.
`object_path` opens photos that lie in one.
"""
