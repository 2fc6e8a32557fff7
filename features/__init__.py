"""A photo and a diffusion model in, feature maps out. Knows nothing of stores or queries."""
