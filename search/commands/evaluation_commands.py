"""`waldo evaluate`: checks what it is asked, calls the evaluation of that kind, and prints."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from search.commands.evaluating.evaluation_request import Request
from search.commands.evaluating.label_evaluations import (
    evaluate_mask_labels,
    evaluate_photo_groups,
    evaluate_video_labels,
)
from search.commands.evaluating.sample_check import check_sample
from search.commands.evaluating.search_evaluations import evaluate_searches, evaluate_text_searches
from search.commands.terminal.option_values import check_codec, cluster_of, given_settings
from search.commands.terminal.options import (
    EXPERTS,
    OTHER_BENCHMARKS,
    SEARCH_BENCHMARKS,
    BatchSizeOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    PartsOption,
    RayOption,
    codec_names,
)
from search.commands.terminal.printing import print_json, print_table


def evaluate(
    context: typer.Context,
    protocol: Annotated[
        str | None,
        typer.Argument(
            metavar="PROTOCOL",
            autocompletion=lambda: (*SEARCH_BENCHMARKS, *OTHER_BENCHMARKS),
            help="folders, scenes, permir, roxford5k, rparis6k, pods, instre, gldv2, sop, "
            "inshop, ilias or mini_ilias for searches, ilias_text for those by texts, perseg, "
            "permis or pods_masks for masks, davis2017 for videos, objects-folders or "
            "objects-scenes for what recurs.",
        ),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder of the benchmark.")
    ] = None,
    model: ModelOption = "tiny",
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A score, a baseline, a global descriptor as for `waldo index`, or NAME+SCORE: "
            "the best 400 photos by one method, re-ranked by a score; or together:NAME,NAME. May "
            "be repeated. Default: all that need no download. NAME@KEY=VALUE changes how features "
            "are extracted (late@timestep=200); KEY is one of image_size, block, timestep, "
            "inversion, steps, "
            "iterations, prompt, model, tau.",
        ),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V,V...",
            rich_help_panel=EXPERTS,
            help="Measure each --method with every one of these settings, and show a grid. `block` "
            "alone takes all blocks of the model, `timestep` alone ten. May be given twice.",
        ),
    ] = None,
    distractors: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="For searches: photos behind the gallery that answer no query, such as the "
            "million of Revisited Oxford and Paris. They may lie in tars.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    batch_size: BatchSizeOption = 8,
    codec: Annotated[
        str,
        typer.Option(
            metavar="QUALITY",
            autocompletion=codec_names,
            help="How maps are stored, as for `waldo index`.",
        ),
    ] = "standard",
    out: Annotated[
        Path | None, typer.Option(metavar="RUN.json", help="Write the result of every query.")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The folder for indexes that later runs use again, and for the results of an "
            "interrupted run. Default: waldo/evaluate in your cache folder.",
        ),
    ] = None,
    sam: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="For benchmarks of masks, as for `waldo segment`."),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN.json",
            help="Repeat 8 queries of a run of searches, without PROTOCOL and --root, and say "
            "whether they agree.",
        ),
    ] = None,
    parts: PartsOption = None,
    ray: RayOption = None,
    json_output: JsonOption = False,
) -> None:
    """Compare methods on a labelled benchmark. Searches rank its whole gallery.

    A run that was interrupted continues when the same command is given again.
    """
    from features.errors import WaldoError
    from indexer.parts import check_parts
    from search.evaluation.benchmarks import GROUPS, MASKS, TEXTS, VIDEOS
    from search.evaluation.method_table import evaluation_table, parts_table
    from search.evaluation.methods.sweep import sweep_table, sweep_title
    from search.evaluation.run_store import default_work_folder

    if check is not None:
        if given := given_settings(context, but=("check", "work", "json_output")):
            raise WaldoError(
                f"--check {check}: takes its settings from the run; leave out {', '.join(given)}"
            )
        check_sample(check, work or default_work_folder(), json_output)
        return
    if protocol is None or root is None:
        raise WaldoError("name a protocol, and its folder by --root")
    if sam is not None and protocol not in MASKS:
        known = ", ".join(MASKS)
        raise WaldoError(f"--sam {sam}: draws masks for {known}, not for {protocol}")
    if sweep and protocol in {**MASKS, **VIDEOS, **GROUPS, **TEXTS}:
        raise WaldoError(f"--sweep {sweep[0]}: searches can be swept, not {protocol}")
    if distractors and protocol in {**MASKS, **VIDEOS, **GROUPS, **TEXTS}:
        raise WaldoError(f"--distractors {distractors}: searches have a gallery, not {protocol}")
    for option, value in (("--parts", parts), ("--ray", ray)):
        if value is not None and protocol in {**MASKS, **VIDEOS, **GROUPS}:
            raise WaldoError(f"{option} {value}: searches have a gallery, not {protocol}")
    if parts is not None:
        check_parts(parts)
    check_codec(codec)
    cluster = cluster_of(ray, device)
    request = Request(
        protocol=protocol,
        root=root,
        model=model,
        methods=method or [],
        device=device,
        batch_size=batch_size,
        codec=codec,
        work=work or default_work_folder(),
        sam=sam,
        sweep=sweep or [],
        distractors=distractors,
        parts=parts,
        cluster=cluster,
    )
    if protocol in VIDEOS:
        evaluated = evaluate_video_labels(request)
    elif protocol in MASKS:
        evaluated = evaluate_mask_labels(request)
    elif protocol in GROUPS:
        evaluated = evaluate_photo_groups(request)
    elif protocol in TEXTS:
        evaluated = evaluate_text_searches(request)
    else:
        evaluated = evaluate_searches(request)
    if out is not None:
        evaluated.write(out)
    if json_output:
        print_json(evaluated.report)
    else:
        print_table(evaluation_table(evaluated.report, narrow=sys.stdout.isatty()))
        if (divided := parts_table(evaluated.report)) is not None:
            print()
            print_table(divided)
        for swept in evaluated.report.get("sweeps", []):
            print(f"\n{sweep_title(swept)}")
            print_table(sweep_table(swept))
    if evaluated.folder is not None:
        shutil.rmtree(evaluated.folder)
