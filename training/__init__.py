"""The trainer of the bundled model `tiny`. It runs from the project's folder and is not installed.

`train` is the program; `make tiny-model` runs it after `prepare.sh` has fetched the pictures.

- `emoji`, `icons`: draw pictures from icon packages. `names`: the classes and the vocabulary.
- `pictures`: finds pictures of objects and backgrounds, and divides them into splits.
- `compositor`: composes scenes with known objects, masks and correspondences.
- `chunks`: renders pairs of scenes into files. `pair_store`: reads them for training.
- `tiny_model`: builds, exports and reads the model. `teacher`, `losses`, `muon`: how it learns.
"""
