"""Vision transformers of the transformers library, and what Waldo takes from them.

`vision_extractor.VisionExtractor` takes their patch tokens as feature maps, in place of a diffusion
model's; `vision_presets` names those that are known. `descriptors.ImageDescriptor` takes one vector
per photo, and prepares photos for it by `image_processor`.
"""
