"""Masks: which pixels of photos and of video frames show an object.

A person reads `segment` first: `segment_photos` compares the cells of a photo with those of a
reference photo (personalized segmentation, PDM), and a `Draw` draws the mask. There are two of
those: `graph_cut.cut_object`, a minimum cut by colours and edges, and `cascade.prompted_by`, which
asks SAM (`sam.Sam`).
`mask_files` writes the masks of photos, and those of a query's matches, as files.

`video.propagate_video` marks the objects of a video's first frame in all other frames:
`frames.open_video` reads them, and `propagate.carry_labels` carries the labels from frame to frame.

`drawing` reads and writes masks as palette PNGs and tints objects; `overlay` draws heatmaps.
"""
