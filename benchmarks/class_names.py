"""How often the warning that a photo hardly shows a class is right, by the bundled model.

    python benchmarks/class_names.py [--scenes data/scenes/validation] [--absent 4]

For each scene, names of classes that it shows, and of classes of other scenes that it does not
show. Prints how many of each are warned of, and the AUC: how often a class that is shown has more
evidence than one that is not. The threshold was chosen on the validation scenes.
"""

from pathlib import Path

import numpy as np
from harness import make_parser

from features.diffusion.presence import LEAST_PRESENCE, class_presence
from features.extractor import FeatureExtractor
from features.photo import load_model_input
from search.evaluation.benchmarks.scenes import read_scenes

_BATCH = 8


def main() -> None:
    from sklearn.metrics import roc_auc_score

    parser = make_parser(__doc__)
    parser.add_argument("--scenes", type=Path, default=Path("data/scenes/validation"))
    parser.add_argument("--absent", type=int, default=4, help="absent classes per scene")
    given = parser.parse_args()
    extractor = FeatureExtractor.load("tiny", batch_size=_BATCH)
    scenes = read_scenes(given.scenes).scenes
    names = sorted({name for scene in scenes for name in scene.classes})
    vectors = {name: extractor.class_vector(name) for name in names}
    draw = np.random.default_rng(0)
    shown: list[float] = []
    absent: list[float] = []
    for start in range(0, len(scenes), _BATCH):
        batch = scenes[start : start + _BATCH]
        inputs = [load_model_input(s.photo, extractor.image_size, extractor.grid) for s in batch]
        for scene, maps in zip(batch, extractor.extract(inputs), strict=True):
            others = [name for name in names if name not in scene.classes]
            for found, asked in (
                (shown, sorted(set(scene.classes))),
                (absent, draw.choice(others, given.absent, replace=False).tolist()),
            ):
                rivals = extractor.rival_vectors
                found += [class_presence(maps, vectors[name], rivals) for name in asked]
    for what, found in (("shown", shown), ("not shown", absent)):
        warned = np.mean(np.array(found) < LEAST_PRESENCE)
        print(f"{what:<10} {len(found):>5} names, {100 * warned:.1f} % warned of")
    truth = [True] * len(shown) + [False] * len(absent)
    print(f"AUC {roc_auc_score(truth, shown + absent):.3f}")


if __name__ == "__main__":
    main()
