"""Diffusion transformers (DiT): PixArt, Stable Diffusion 3, Flux.1 and Flux.2, in place of a UNet.

`dit_architecture` reads what a pipeline's configuration says, `dit_model.DiTModel` holds what all
families share, and `pixart`, `sd3`, `flux` and `flux2` have one family each. `block_hooks` reads
the projections of one block while the transformer runs.
"""
