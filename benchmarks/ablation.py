"""What each choice behind a model's features is worth, one changed at a time.

    python benchmarks/ablation.py --root data/scenes/validation

Every row is an evaluation of late interaction, by mask and by class name alone, under settings that
differ from the model's own in one thing. Choose on validation scenes, report on others.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from features.capture import transformer_blocks
from features.extractor import FeatureExtractor
from features.presets import FeatureSettings
from indexer.tokens import TokenMap
from search.evaluation.methods import METHODS, MapMethod
from search.evaluation.protocols import read_benchmark
from search.evaluation.run import run_methods
from search.evaluation.summary import summary
from search.scores import SCORES, CandidateMaps, Score, ScoringReference, token_heat


def variations(extractor: FeatureExtractor) -> Iterator[tuple[str, FeatureSettings]]:
    """Settings that differ in one thing from the extractor's, with what is different."""
    own = extractor.settings
    yield "as it is", own
    for block in transformer_blocks(extractor.model.unet):
        if block != own.block:
            yield f"block {block}", replace(own, block=block)
    for size in (128, 160, 192, 224):
        if size != own.image_size:
            yield f"input {size} pixels", replace(own, image_size=size)
    for prompt in ("", "a photo", "a photo of an object"):
        if prompt != own.prompt:
            yield f'prompt "{prompt}"', replace(own, prompt=prompt)
    for timestep in (50, 100, 200, 400):
        yield f"clean latent told t = {timestep}", replace(own, timestep=timestep)
    for timestep in (50, 200):
        noised = replace(own, timestep=timestep, inversion="noise")
        yield f"noised to t = {timestep}", noised
        yield f"DDIM inversion, 4 steps, t = {timestep}", replace(noised, inversion="ddim", steps=4)
        yield (
            f"fixed-point inversion, 4 steps, t = {timestep}",
            replace(noised, inversion="fixed-point", steps=4, iterations=3),
        )


def uncentred(reference: ScoringReference, candidates: CandidateMaps) -> torch.Tensor:
    """Late interaction by plain cosine."""
    tokens = candidates.appearance.decode()
    plain = TokenMap.plain(tokens, torch.zeros_like(tokens[0, 0]))
    return SCORES["late"].function(reference, replace(candidates, appearance=plain))


def main() -> None:
    parser = argparse.ArgumentParser(description="What each choice behind the features is worth.")
    parser.add_argument("--protocol", default="scenes")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    benchmark = read_benchmark(given.protocol, given.root)
    extractor = FeatureExtractor.load(given.model, given.device, batch_size=8)
    plain = MapMethod(
        "uncentred", "model", Score("uncentred", "late, plain cosine", uncentred, token_heat)
    )
    own = [METHODS["late"], METHODS["late-by-class"]]
    table = Table(title=f"{given.model} on {given.root}: mAP, 95 % interval", box=None)
    for column in ("changed", "by mask", "by class name"):
        table.add_column(column, no_wrap=True)
    for name, settings in variations(extractor):
        varied = FeatureExtractor(extractor.model, settings, extractor.batch_size)
        methods = [*own, plain] if settings == extractor.settings else own
        cells = []
        with tempfile.TemporaryDirectory() as work:
            for result in run_methods(benchmark, methods, varied, Path(work)).results:
                values = summary(benchmark, result)
                low, high = values["mAP_interval"]
                cells.append(f"{100 * values['mAP']:.1f} ({100 * low:.1f} to {100 * high:.1f})")
        table.add_row(name, *cells[:2])
        if len(cells) > 2:
            table.add_row("cosine not centred", cells[2], "")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
