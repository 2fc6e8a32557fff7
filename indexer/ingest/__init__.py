"""Indexing: from the photos that a user names to rows and maps in an index.

`build.index_photos` is the one call. Files are found (`sources`), compared with what the index
holds (`known`), decoded (`decode`), extracted (`sample_cache`) and recorded (`recording`), and
`writer.IndexWriter` commits them. `sample` chooses the photos that the codec is fitted on,
`describing` adds global descriptors, `failure_log` keeps what could not be read, and `progress` has
what a run reports.
"""
