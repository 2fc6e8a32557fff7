"""The bundled model `tiny`: its weights in diffusers' layout, and its model card."""
