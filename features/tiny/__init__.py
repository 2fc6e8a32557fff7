"""The bundled model `tiny`: its weights in the layout of diffusers, and its model card."""
