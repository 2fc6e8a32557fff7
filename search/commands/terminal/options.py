"""The options that commands share, what a shell completes of them, and the index that is used
where none is named.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

# The names that a shell completes. They are repeated here, because the modules that hold the scores
# and the benchmarks import numpy; a test compares them.
SCORE_NAMES = (
    *("consistent", "fused", "late", "late-gated", "correspondence", "mutual", "maximum"),
    *("top-mean", "pdm", "appearance", "cosine", "semantic"),
)
SEARCH_BENCHMARKS = (
    *("folders", "scenes", "permir", "roxford5k", "rparis6k"),
    *("pods", "instre", "gldv2", "sop", "inshop", "ilias", "mini_ilias"),
)
OTHER_BENCHMARKS = (
    "ilias_text",
    "perseg",
    "permis",
    "pods_masks",
    "davis2017",
    "objects-folders",
    "objects-scenes",
)


def model_names() -> list[str]:
    """The names of the presets."""
    from features.diffusion.presets import PRESETS
    from features.vision.vision_presets import VISION_PRESETS

    return [*PRESETS, *VISION_PRESETS]


def class_names() -> list[str]:
    """The nouns that class names are expected to be."""
    from features.diffusion.vocabulary import nouns

    return nouns()


def codec_names() -> list[str]:
    """The qualities in which maps can be stored."""
    from indexer.codec.quality import QUALITIES

    return list(QUALITIES)


# The folder of an index where none is named, and the groups of options in a help text.
INDEX_NAME = ".waldo"
INDEX_VARIABLE = "WALDO_INDEX"
OBJECT = "The object"
ANSWER = "The answer"
SEARCHED = "The photos that are searched"
EXPERTS = "For experts"


def nearest_index() -> Path:
    """The folder `.waldo` here or in the nearest folder above; the one here where there is none."""
    here = Path.cwd()
    above = (folder / INDEX_NAME for folder in here.parents)
    found = next((index for index in above if index.is_dir()), None)
    return Path(INDEX_NAME) if found is None or Path(INDEX_NAME).is_dir() else found


def default_index() -> str:
    """What --index is where it is not given: the variable's, else `nearest_index`."""
    return os.environ.get(INDEX_VARIABLE) or str(nearest_index())


def _default_indexes() -> list[Path]:
    """As `default_index`, where --index may be repeated. A variable has one index: a path may hold
    any sign that could part several.
    """
    return [Path(default_index())]


def _needs_faiss(context: typer.Context, index: Any) -> Any:
    """Raise ModuleNotFoundError at once where FAISS is missing, and not after hours of work."""
    if find_spec("faiss") is None and not context.resilient_parsing:
        raise ModuleNotFoundError(name="faiss")
    return index


# `index_places.py` beside this gives the folder to work in.
IndexOption = Annotated[
    Path,
    typer.Option(
        "--index",
        metavar="DIR|URL",
        envvar=INDEX_VARIABLE,
        default_factory=nearest_index,
        show_default=False,
        callback=_needs_faiss,
        help="The folder of the index, or its address in a bucket. Default: the nearest .waldo, "
        "here or in a folder above.",
    ),
]
IndexesOption = Annotated[
    list[Path],
    typer.Option(
        "--index",
        metavar="DIR|URL",
        default_factory=_default_indexes,
        show_default=False,
        callback=_needs_faiss,
        help="The folder of the index, or its address in a bucket. Default: $WALDO_INDEX, or the "
        "nearest .waldo, here or in a folder above. Repeated: indexes of the same photos by other "
        "models, which rank together.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
ModelOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        autocompletion=model_names,
        help="A name from `waldo models`, a folder, or a hub id.",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        rich_help_panel=EXPERTS,
        help="Where the model runs: auto, cpu, cuda, cuda:1, mps ...",
    ),
]
BatchSizeOption = Annotated[
    int, typer.Option(metavar="N", min=1, rich_help_panel=EXPERTS, help="Photos per batch.")
]
PartsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        rich_help_panel=EXPERTS,
        help="Make a fleet: N indexes that are searched as one, for very large collections.",
    ),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        metavar="auto|HOST:PORT",
        rich_help_panel=EXPERTS,
        help="Have workers on a Ray cluster do the work on the parts of a fleet: on that at an "
        "address, or, with auto, on that of this machine, which is started where there is none.",
    ),
]
ClassOption = Annotated[
    str | None,
    typer.Option(
        "--class",
        metavar="NAME",
        autocompletion=class_names,
        rich_help_panel=OBJECT,
        help="What the object is: dog, car ...",
    ),
]
MaskOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", rich_help_panel=OBJECT, help="A picture that is white on the object."
    ),
]
BoxOption = Annotated[
    str | None,
    typer.Option(
        metavar="X0,Y0,X1,Y1",
        rich_help_panel=OBJECT,
        help="Two opposite corners of a box around the object, in upright pixels.",
    ),
]
PointOption = Annotated[
    str | None,
    typer.Option(
        metavar="X,Y", rich_help_panel=OBJECT, help="A point on the object, in upright pixels."
    ),
]
AlsoOption = Annotated[
    list[str] | None,
    typer.Option(
        "--also",
        metavar="PHOTO[@REGION]",
        rich_help_panel=OBJECT,
        help="Another photo of the same object, and where the object is: X0,Y0,X1,Y1 or X,Y "
        "or the file of a mask. Without a region the class name selects it. May be repeated.",
    ),
]
NotOption = Annotated[
    list[str] | None,
    typer.Option(
        "--not",
        metavar="PHOTO[@REGION]",
        rich_help_panel=OBJECT,
        help="Another object, which is not looked for however similar it is. May be repeated.",
    ),
]
MinConfidenceOption = Annotated[
    float | None,
    typer.Option(
        metavar="C",
        rich_help_panel=ANSWER,
        help="Leave out matches of less confidence, from 0 to 1. Of searches for an object that no "
        "photo shows, a share of about 1 - C still finds something.",
    ),
]
