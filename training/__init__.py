"""The trainer of the bundled model `tiny`; run from the project's folder, not installed.

- `pictures`, `names`: the cut-out pictures that scenes are made of, and what they are called;
- `emoji`, `icons`: drawings rendered from icon packages;
- `compositor`: scenes with known objects, masks and correspondences;
- `pairs`, `batches`: scenes rendered ahead into arrays for the trainer;
- `teacher`, `losses`, `muon`, `tiny_model`, `train`: the training itself.
"""
