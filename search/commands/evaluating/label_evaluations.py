"""Evaluations of masks and of videos, which go on where they were interrupted, and of groups of
photos that show the same object.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.commands.evaluating.evaluation_request import Evaluated, Request
from search.commands.terminal.option_values import load_extractor
from search.commands.terminal.printing import say

if TYPE_CHECKING:
    from search.evaluation.run_store import RunResults
    from search.evaluation.steps import OnStep


def evaluate_mask_labels(request: Request) -> Evaluated:
    from search.evaluation.benchmarks import MASKS
    from search.evaluation.labels.mask_methods import select_mask_methods
    from search.evaluation.labels.object_masks import evaluate_masks, masks_folder
    from search.segmentation.cascade import prompted_by
    from search.segmentation.sam import Sam

    benchmark = MASKS[request.protocol](request.root)
    objects = benchmark.objects
    sam = None if request.sam is None else Sam.load(request.sam, request.device)
    draw = None if sam is None else prompted_by(sam)
    methods = select_mask_methods(request.methods, objects, draw)
    extractor = load_extractor(request.model, request.device, batch_size=1)
    files = [] if sam is None else sam.files
    return _evaluate_by_object(
        masks_folder(request.work, request.protocol, objects, extractor, files),
        lambda stored, on_step: evaluate_masks(
            *(request.protocol, benchmark, extractor, methods, stored, on_step), work=request.work
        ),
        things="objects",
        items=[item.name for item in objects],
        methods=[chosen.name for chosen in methods],
    )


def evaluate_video_labels(request: Request) -> Evaluated:
    from search.evaluation.benchmarks import VIDEOS
    from search.evaluation.labels.video_labels import (
        evaluate_videos,
        select_video_methods,
        videos_folder,
    )
    from search.segmentation.video import load_video_extractor

    videos = VIDEOS[request.protocol](request.root)
    methods = select_video_methods(request.methods)
    say(f"loading the model {request.model}")
    extractor = load_video_extractor(request.model, request.device)
    return _evaluate_by_object(
        videos_folder(request.work, request.protocol, videos, extractor),
        lambda *stored: evaluate_videos(request.protocol, videos, extractor, methods, *stored),
        things="sequences",
        items=[video.name for video in videos],
        methods=list(methods),
    )


def evaluate_photo_groups(request: Request) -> Evaluated:
    from search.commands.terminal.progress_bar import ProgressDisplay
    from search.evaluation.benchmarks import GROUPS
    from search.evaluation.photo_groups import evaluate_groups, select_group_methods
    from search.evaluation.report import write_run

    photos = GROUPS[request.protocol](request.root)
    methods = select_group_methods(request.methods, photos)
    extractor = load_extractor(request.model, request.device, request.batch_size)
    with ProgressDisplay() as display:
        report = evaluate_groups(
            *(request.protocol, photos, extractor, methods, request.work, request.codec),
            on_progress=display,
            on_step=display.show,
        )
    say(f"indexes for later runs: {request.work}")
    return Evaluated(report, partial(write_run, report=report), folder=None)


def _evaluate_by_object(
    folder: Path,
    measure: "Callable[[RunResults, OnStep], dict[str, Any]]",
    things: str,
    items: list[str],
    methods: list[str],
) -> Evaluated:
    """Measure what an interrupted run has left. things: what the items are, in the plural."""
    from search.commands.terminal.progress_bar import ProgressDisplay
    from search.evaluation.report import write_run
    from search.evaluation.run_store import open_results

    with open_results(folder) as stored:
        if done := stored.count(items, methods):
            say(f"going on with an interrupted run: {done} of {len(items)} {things} are done")
        with ProgressDisplay() as display:
            report = measure(stored, display.show)
    return Evaluated(report, partial(write_run, report=report), folder)
