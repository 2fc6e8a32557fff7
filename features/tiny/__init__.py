"""The bundled model `tiny`: its weights, its model card, and the code that made it.

- `pictures`: finding and naming the cut-out pictures the scenes are made of, and who may see them;
- `emoji`: drawing the emoji sets among them;
- `compositor`: scenes with known objects, masks and correspondences, made from such pictures;
- `batches`: scenes rendered ahead into arrays for the trainer;
- `train`: the trainer; `report`: what the trained model is measured by.

Nothing here is imported when the model is only used: it is loaded from `weights/` as any other
diffusers pipeline.
"""
