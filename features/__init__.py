"""A photo and a model in, features out. This room knows nothing of stores or queries.

    file -> Photo -> ModelInput -> FeatureMaps
            photo.load_photo       extractor.FeatureExtractor.extract

`picture` decodes files of any format, whatever their metadata. `frame.Frame` maps pixels to cells
and back. `regions` selects the cells of an object in the reference photo.
`descriptors.ImageDescriptor` gives one vector per photo. `checkpoints` finds and reads weights.
`diffusion/` is the diffusion model, `tiny/` the bundled one.
"""
