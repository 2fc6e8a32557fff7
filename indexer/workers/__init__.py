"""Extraction by several processes: one for each GPU, or several that share a CPU's cores.

`extractor_pool.ExtractorPool` is an extractor like any other, but that the maps are encoded where
they are made. It hands photos to the processes that `worker_process` starts; each runs
`worker_program`. They talk in `messages`.
"""
