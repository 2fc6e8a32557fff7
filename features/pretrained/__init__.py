"""Pre-trained models of diffusers and transformers.

`checkpoints` finds and reads their weights, and `library_parts` imports their classes without the
rest of these libraries.
"""
