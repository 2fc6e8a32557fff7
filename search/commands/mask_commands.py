"""Masks of an object: `waldo segment` for photos, `waldo propagate` for videos."""

from pathlib import Path
from typing import Annotated

import typer

from search.commands.options import (
    BoxOption,
    ClassOption,
    DeviceOption,
    JsonOption,
    MaskOption,
    ModelOption,
    PointOption,
    load_extractor,
    object_in,
    print_json,
    print_table,
    say,
    say_error,
)


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
    model: ModelOption = "tiny",
    device: DeviceOption = "auto",
    json_output: JsonOption = False,
) -> None:
    """Find the pixels of the object of REFERENCE in other photos."""
    from search.commands.progress_bar import ProgressDisplay
    from search.commands.tables import segment_json, segment_table
    from search.reference import make_reference
    from search.segmentation.cascade import prompted_by
    from search.segmentation.graph_cut import cut_object
    from search.segmentation.mask_files import check_out, list_targets, write_masks
    from search.segmentation.sam import Sam

    # Wrong arguments are refused before a model is loaded.
    asked = object_in(reference, class_name, mask, box, point)
    check_out(out, [reference] if mask is None else [reference, mask])
    photos, failures = list_targets(targets, out)
    extractor = load_extractor(model, device, batch_size=max(1, min(8, len(photos))))
    mask_model = None if sam is None else Sam.load(sam, device)
    described = make_reference(asked, extractor)
    if mask_model is not None:
        say(f"loading {sam}")
        mask_model.get_ready()
    draw = cut_object if mask_model is None else prompted_by(mask_model)
    with ProgressDisplay() as display:
        written, failed = write_masks(
            *(out, described, photos, extractor, draw),
            on_done=lambda done: display.show("photos", done, len(photos)),
        )
    failures += failed
    for failure in failures:
        say_error(failure.reason)
    if json_output:
        print_json(segment_json(asked, written, failures))
    else:
        print_table(segment_table(written))
    if failures:
        raise typer.Exit(2)


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
    from search.commands.progress_bar import ProgressDisplay
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
