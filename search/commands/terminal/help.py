"""Help texts: options and commands in groups, and examples below the options."""

from typing import Any

from typer.core import TyperCommand, TyperGroup

# By command: shell lines, and comments that say what they do.
EXAMPLES = {
    "index": """
# index your photos; run it again after you add, change or delete some
waldo index ~/Pictures

# another index, with larger and better features
waldo index ~/Pictures --index large.waldo --model sdxl-turbo
""",
    "query": """
# which photos show this very dog?
waldo query my-dog.jpg --class dog

# say where it is, and look at the answer in a browser
waldo query beach.jpg --box 120,80,340,300 --html found.html

# copy the photos that surely show it
waldo query my-dog.jpg --class dog --min-confidence 0.9 -0 | xargs -0 cp -t found
""",
    "objects": """
# what appears in several photos? look at it in a browser
waldo objects --html objects.html

# object 3 is Rex: from now on he has an album
waldo objects --name 3=Rex
""",
    "serve": """
# search in the browser: drop a photo, draw a box
waldo serve --open
""",
    "segment": """
# masks of the dog in all photos of a folder
waldo segment my-dog.jpg ~/Pictures/2024 --box 120,80,340,300 --out masks
""",
    "propagate": """
# follow the objects of a video's first frame
waldo propagate frames/ --mask first-mask.png --out labels
""",
    "show": """
# what is taken as the dog, and where the model sees one
waldo show my-dog.jpg --class dog --out dog.png

# the same dog in two photos, by early and late features
waldo show my-dog.jpg beach.jpg --timestep 0 --timestep 500 --out features.html
""",
    "name": """
# keep an object under a name; then look for it by `waldo query @Rex`
waldo name Rex dog.jpg --box 120,80,340,300

# another photo of it; and one of another dog, which it is not
waldo name Rex dog2.jpg --box 40,60,210,330 --not other.jpg@300,200
""",
    "named": """
waldo named
""",
    "album": """
# which photos show Rex?
waldo album Rex

# look at them in a browser, and copy them
waldo album Rex --html rex.html --export rex
""",
    "confirm": """
# yes, these show Rex; in the second he is in this box
waldo confirm Rex beach.jpg garden.jpg@40,60,210,330
""",
    "refuse": """
# no, this is another dog
waldo refuse Rex park.jpg
""",
    "merge": """
# Rex and Roy are one dog, called Rex
waldo merge Rex Roy
""",
    "rename": """
waldo rename Rex Roy
""",
    "forget": """
waldo forget Roy
""",
    "info": """
waldo info
waldo info --index pictures.waldo --json
waldo info --machine
""",
    "verify": """
waldo verify
waldo verify --index pictures.waldo
""",
    "remove": """
waldo remove ~/Pictures/2019
waldo remove ~/Pictures/private.jpg --index pictures.waldo
""",
    "compact": """
waldo compact
waldo compact --index pictures.waldo
""",
    "export": """
# an index into a bucket, and on another machine back into a folder
waldo export --index pictures.waldo --to s3://my-bucket/pictures
waldo export --index s3://my-bucket/pictures --to pictures.waldo
""",
    "models": """
# the models known by name
waldo models

# the words that the bundled model knows
waldo models --words
""",
    "evaluate": """
waldo evaluate scenes --root data/scenes --out run.json
waldo evaluate folders --root photos-by-object --method late --method consistent
""",
    "report": """
waldo report before.json after.json --html runs.html
waldo report run.json --markdown
""",
    "fit-weights": """
waldo fit-weights folders --root photos-by-object --index pictures.waldo
""",
    "prepare": """
waldo prepare permir --burst burst/ --out permir
""",
}


class GroupedCommand(TyperCommand):
    """A command whose help shows options under the names of their panels, then its epilog.

    Typer draws such panels with rich, whose import takes longer than the whole command line does;
    and its boxes leave little room for the text on a terminal of 80 columns.
    """

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [p.metavar for p in self.params if p.param_type_name == "argument"]
        return ["[OPTIONS]", *(name for name in arguments if name)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if parameter.param_type_name == "argument":
                record = (parameter.metavar or "", getattr(parameter, "help", ""))
                groups.setdefault("Arguments", []).append(record)
            elif (found := parameter.get_help_record(ctx)) is not None:
                groups.setdefault(_panel(parameter), []).append(found)
        _write(groups, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.splitlines():
                    formatter.write(f"  {line}\n")


class GroupedCommands(TyperGroup):
    """Commands whose list is in groups, named by their panels."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        widest = max(map(len, self.commands))
        for name, command in self.commands.items():
            # The names of all groups are padded to one width, so that their texts are aligned.
            record = (name.ljust(widest), command.get_short_help_str(limit=200))
            groups.setdefault(_panel(command), []).append(record)
        _write(groups, formatter)


def _panel(item: Any) -> str:
    return getattr(item, "rich_help_panel", None) or "Options"


def _write(groups: dict[str, list[tuple[str, str]]], formatter: Any) -> None:
    for title, rows in groups.items():
        with formatter.section(title):
            formatter.write_dl(rows)
