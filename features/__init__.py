"""A photo and a model in, features out. This room knows nothing of stores or queries.

    file -> Photo -> ModelInput -> FeatureMaps
            photo.load_photo       extractor.FeatureExtractor.extract

`picture` decodes files of any format, whatever their metadata. `frame.Frame` maps pixels to cells
and back. `regions` selects the cells of an object in the reference photo.
`checkpoints` finds and reads weights, and `models` finds an extractor by a model's name.
`diffusion/` is the diffusion model, `tiny/` the bundled one. `vision/` holds vision transformers,
whose tokens are maps too, and which give one vector per photo.
"""
