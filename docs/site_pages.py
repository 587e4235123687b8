"""The pages of the site that are made from something else when it is built, so that they cannot go stale.

The command line's reference comes from the program itself; the first page, the notes for contributors and the changes
are the files at the top of the repository, which link to `docs/` as readers of a checkout need it.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import typer

from shoal.cli.main import app

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

TOP = Path(__file__).parents[1]
AT_THE_TOP = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}
CLI = "reference/cli.md"
ALGORITHMS = "algorithms/README.md"


def on_config(config: "MkDocsConfig") -> "MkDocsConfig":
    """Put the page of each algorithm under the list of them: a hook of mkdocs."""
    listed = re.findall(r"^\| \[([^]]+)\]\((\w+\.md)\)", (TOP / "docs" / ALGORITHMS).read_text(), re.MULTILINE)
    pages = [{name: f"algorithms/{page}"} for name, page in [*listed, ("Baselines", "baselines.md")]]
    for section in config.nav or []:
        for entries in section.values():
            if ALGORITHMS in entries:
                entries += pages
    return config


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the pages that are made: a hook of mkdocs."""
    from mkdocs.structure.files import File

    for source, target in AT_THE_TOP.items():
        files.append(File.generated(config, target, content=linked_from_docs((TOP / source).read_text())))
    files.append(File.generated(config, CLI, content=command_line()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to files at the top to the pages made of them: a hook of mkdocs."""
    up = "../" * page.file.src_uri.count("/")
    for source, target in AT_THE_TOP.items():
        markdown = re.sub(rf"\]\((\.\./)+{re.escape(source)}", f"]({up}{target}", markdown)
    return markdown


def linked_from_docs(text: str) -> str:
    """Return a page of the repository's top with its links as they are from `docs/`."""
    text = text.replace("](docs/", "](").replace('="docs/', '="')
    for source, target in AT_THE_TOP.items():
        text = text.replace(f"]({source}", f"]({target}")
    return text


def command_line() -> str:
    """Return the reference of the command line, one section a command."""
    sections = ["# Command line", "Made from the program: what `shoal COMMAND --help` says, of every command."]
    for command, context in commands():
        sections.append(f"## {context.command_path}" if context.parent else "## shoal")
        sections += list(section(command, context))
    return "\n\n".join(sections) + "\n"


def commands() -> Iterator[tuple[click.Command, click.Context]]:
    """Return every command and group with the context in which it is called, groups before what is in them."""
    top = typer.main.get_command(app)
    yield from _below(top, click.Context(top, info_name="shoal"))


def _below(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    yield command, context
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from _below(inner, click.Context(inner, info_name=name, parent=context))


def section(command: click.Command, context: click.Context) -> Iterator[str]:
    """Return what one command says of itself, as Markdown."""
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{context.command_path} {usage}\n```"
    yield _plain(command.help or "")
    rows = [_row(option, context) for option in command.params if not getattr(option, "hidden", False)]
    if rows:
        yield "\n".join(["| option | what it does |", "|---|---|", *rows])
    if command.epilog:
        yield "```sh\n" + "\n".join(_examples(command.epilog)) + "\n```"


def _row(option: click.Parameter, context: click.Context) -> str:
    names, text = option.get_help_record(context) or (option.name or "", "")
    cells = f"`{names.strip()}`", _plain(text)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _plain(text: str) -> str:
    """Return text with what Markdown would take for markup or HTML made harmless."""
    return re.sub(r"([<>*_])", r"\\\1", " ".join(text.replace("\b", "").split()))


def _examples(epilog: str) -> Iterator[str]:
    for line in epilog.replace("\b", "").splitlines():
        if line.strip() and line.strip() != "Example:":
            yield line.strip()
