"""A pre-trained text-to-image diffusion model, and what Waldo takes from it.

`loading.load_model` gives a `model.DiffusionModel`, whose weights are read when they are first
used: a `unet_model.UNetModel`, or one of the transformers in `dit/`. Without them, `architecture`
says what its configuration tells, and `words` what the files of its tokenizer tell. `inversion`
brings a photo's latent to the timestep of the features, `capture` reads the projections of one
block of a UNet (PDM Eq. 1 and 2), `presence` tells how clearly a photo shows a class, and `presets`
names the known models and their settings. `noun_vectors` keeps the class vectors of the nouns in
`vocabulary` on disk.
"""
