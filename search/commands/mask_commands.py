"""Masks of an object: `waldo segment` for photos, `waldo propagate` for videos."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.commands.terminal.option_values import check_confidence, load_extractor, object_in
from search.commands.terminal.options import (
    BoxOption,
    ClassOption,
    DeviceOption,
    JsonOption,
    MaskOption,
    ModelOption,
    PointOption,
)
from search.commands.terminal.printing import print_json, print_table, say, say_error

if TYPE_CHECKING:
    from features.models import MapExtractor
    from search.query import Query
    from search.segmentation.mask_files import Failure, NotHere, WrittenMask

# Photos of less confidence are taken not to show the object.
_LEAST_CONFIDENCE = 0.5

LeastConfidenceOption = Annotated[
    float | None,
    typer.Option(
        "--min-confidence",
        metavar="C",
        help="Mark only photos that show the object with at least this confidence, from 0 to 1; 0 "
        "marks all, 0.9 suits folders where few photos show it. Default: 0.5 by the bundled model, "
        "0 by others.",
    ),
]


def segment(
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="A photo of the object.")],
    targets: Annotated[
        list[Path],
        typer.Argument(
            metavar="TARGET...",
            help="Photos, folders, or text files that list photos, to find the object in.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder for masks and overlays.")],
    class_name: ClassOption = None,
    mask: MaskOption = None,
    box: BoxOption = None,
    point: PointOption = None,
    sam: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Draw the masks by SAM or SAM 2: a folder in transformers' layout, or a hub id.",
        ),
    ] = None,
    min_confidence: LeastConfidenceOption = None,
    model: ModelOption = "tiny",
    device: DeviceOption = "auto",
    json_output: JsonOption = False,
) -> None:
    """Find the pixels of the object of REFERENCE in other photos that show it."""
    from search.commands.terminal.progress_bar import ProgressDisplay
    from search.reference import make_reference
    from search.segmentation.cascade import prompted_by
    from search.segmentation.graph_cut import cut_object
    from search.segmentation.mask_files import check_out, list_targets, write_masks
    from search.segmentation.sam import Sam

    # Wrong arguments are refused before a model is loaded.
    check_confidence(min_confidence)
    asked = object_in(reference, class_name, mask, box, point)
    check_out(out, [reference] if mask is None else [reference, mask])
    photos, failures = list_targets(targets, out)
    extractor = load_extractor(model, device, batch_size=max(1, min(8, len(photos))))
    least = _least_confidence(min_confidence, extractor)
    mask_model = None if sam is None else Sam.load(sam, device)
    described = make_reference(asked, extractor)
    if mask_model is not None:
        say(f"loading {sam}")
        mask_model.get_ready()
    draw = cut_object if mask_model is None else prompted_by(mask_model)
    with ProgressDisplay() as display:
        found, failed = write_masks(
            *(out, described, photos, extractor, draw, least),
            on_done=lambda done: display.show("photos", done, len(photos)),
        )
    failures += failed
    for failure in failures:
        say_error(failure.reason)
    _print_found(asked, found, failures, json_output)
    if failures:
        raise typer.Exit(2)


def _least_confidence(asked: float | None, extractor: "MapExtractor") -> float:
    """The confidence from which photos show the object. Raises WaldoError where one is asked for
    that was not measured for the model.
    """
    from features.errors import WaldoError
    from search.segmentation.segment import has_confidence

    if asked is None:
        return _LEAST_CONFIDENCE
    if asked > 0 and not has_confidence(extractor):
        raise WaldoError("--min-confidence: was measured for the model tiny only; leave it out")
    return asked


def _print_found(
    asked: "Query",
    found: "Sequence[WrittenMask | NotHere]",
    failures: "Sequence[Failure]",
    json_output: bool,
) -> None:
    from search.commands.terminal.tables import segment_json, segment_table
    from search.segmentation.mask_files import NotHere

    if json_output:
        print_json(segment_json(asked, found, failures))
    else:
        print_table(segment_table(found))
    if absent := sum(isinstance(one, NotHere) for one in found):
        say(f"not here: {absent} of {len(found)} photos; --min-confidence 0 marks them, too")


def propagate(
    video: Annotated[
        Path,
        typer.Argument(
            metavar="VIDEO",
            help="A folder of frames, or a video file (which needs PyAV or OpenCV).",
        ),
    ],
    mask: Annotated[
        Path,
        typer.Option(
            metavar="FIRST.png",
            help="The objects of the first frame: palette indices or grey values 1, 2, ... or "
            "white.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder for the masks of the frames.")
    ],
    model: ModelOption = "tiny",
    device: DeviceOption = "auto",
    json_output: JsonOption = False,
) -> None:
    """Find the objects of a video's first frame in all its frames; masks are as in DAVIS."""
    from search.commands.terminal.progress_bar import ProgressDisplay
    from search.segmentation.video import load_video_extractor, open_labelled, propagate_video

    # Wrong arguments are refused before a model is loaded.
    labelled = open_labelled(video, mask)
    say(f"loading the model {model}")
    extractor = load_video_extractor(model, device)
    with ProgressDisplay() as display:
        report = propagate_video(
            *(labelled, out, extractor),
            on_frame=lambda done, total, _: display.show("frames", done, total),
        )
    for name, problem in report.failed:
        say(f"warning: frame {name}: {problem}; it gets the labels of the frame before")
    if json_output:
        print_json(report.as_json())
    else:
        count = len(report.objects)
        print(f"{report.frames} frames, {count} objects, in {report.seconds:.1f} s: {report.out}")
        print(f"to look at: {report.overlay or report.contact_sheet}")
