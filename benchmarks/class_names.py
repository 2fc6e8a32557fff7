"""How often the warning that a photo hardly shows a class is right, by the bundled model.

    python benchmarks/class_names.py --scenes data/scenes [--absent 4]
    python benchmarks/class_names.py --folders DIR      # sub-folders, and their classes.json

For each photo, the names of classes that it shows, and of classes of other photos that it does not
show. Prints how many of each are warned of, and the AUC: how often a class that is shown has more
evidence than one that is not. The threshold was chosen on the validation scenes.
"""

from pathlib import Path

import numpy as np
from harness import make_parser, percent

from features.diffusion.presence import LEAST_PRESENCE, class_presence
from features.extractor import FeatureExtractor
from features.photo import load_model_input
from search.evaluation.benchmarks.folders import read_folders
from search.evaluation.benchmarks.scenes import read_scenes

_BATCH = 8


def main() -> None:
    from sklearn.metrics import roc_auc_score

    parser = make_parser(__doc__)
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--scenes", type=Path)
    data.add_argument("--folders", type=Path)
    parser.add_argument("--absent", type=int, default=4, help="absent classes per photo")
    given = parser.parse_args()
    read = read_folders(given.folders) if given.folders else read_scenes(given.scenes)
    if read.gallery_classes is None:
        parser.error("not every photo has a class")
    photos = list(zip(read.gallery, read.gallery_classes, strict=True))
    extractor = FeatureExtractor.load("tiny", batch_size=_BATCH)
    names = sorted(set().union(*read.gallery_classes))
    vectors = {name: extractor.class_vector(name) for name in names}
    draw = np.random.default_rng(0)
    shown: list[float] = []
    absent: list[float] = []
    for start in range(0, len(photos), _BATCH):
        batch = photos[start : start + _BATCH]
        inputs = [load_model_input(p, extractor.image_size, extractor.grid) for p, _ in batch]
        for (_, classes), maps in zip(batch, extractor.extract(inputs), strict=True):
            others = [name for name in names if name not in classes]
            count = min(given.absent, len(others))
            for found, asked in (
                (shown, sorted(classes)),
                (absent, draw.choice(others, count, replace=False).tolist()),
            ):
                rivals = extractor.rival_vectors
                found += [class_presence(maps, vectors[name], rivals) for name in asked]
    for what, found in (("shown", shown), ("not shown", absent)):
        warned = percent((np.array(found) < LEAST_PRESENCE).astype(float))
        print(f"{what:<10} {len(found):>5} names, {warned} % warned of")
    truth = [True] * len(shown) + [False] * len(absent)
    print(f"AUC {roc_auc_score(truth, shown + absent):.3f}")


if __name__ == "__main__":
    main()
