"""Sphinx's configuration: `sphinx-build -W docs OUT`, with the extra `docs` installed."""

from __future__ import annotations

import argparse

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import nfsdict
from nfsdict.cli import parser

project = "nfsdict"
author = "The developers of nfsdict"
copyright = "The developers of nfsdict"
release = version = nfsdict.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxcontrib.mermaid",
]
exclude_patterns = ["_build"]
# Fields of several reports have the name of a type.
suppress_warnings = ["ref.python"]

myst_fence_as_directive = ["mermaid"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_mock_imports = ["joblib", "numpy", "optuna", "zarr"]  # none of them is needed for this
napoleon_google_docstring = True
napoleon_numpy_docstring = False

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"

mermaid_fullscreen = False
mermaid_height = "auto"

html_theme = "furo"
html_title = f"nfsdict {release}"
html_static_path = ["_static"]
html_css_files = ["nfsdict.css"]


class Commands(SphinxDirective):
    """``commands``: what ``nfsdict COMMAND --help`` prints, a section for each command."""

    def run(self) -> list[nodes.Node]:
        [found] = [a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)]
        sections: list[nodes.Node] = []
        for name, command in sorted(found.choices.items()):
            # Without the exit statuses, which are the same for all.
            command.epilog = None
            section = nodes.section(ids=[f"nfsdict-{name}"])
            section += nodes.title(text=name)
            section += nodes.literal_block(text=command.format_help(), language="text")
            sections.append(section)
        return sections


class Statuses(SphinxDirective):
    """``statuses``: what is printed below the help of each command."""

    def run(self) -> list[nodes.Node]:
        return [nodes.literal_block(text=parser().epilog, language="text")]


def check_complete(app: Sphinx, environment: BuildEnvironment) -> None:
    """Warn of each public name that the pages don't have, methods of the dictionary included."""
    names = [name for name in nfsdict.__all__ if name != "__version__"]
    names += [f"NfsDict.{name}" for name in dir(nfsdict.NfsDict) if not name.startswith("_")]
    there = environment.domains["py"].objects
    for name in names:
        if f"nfsdict.{name}" not in there:
            logging.getLogger(__name__).warning("nfsdict.%s is in no page", name)


COLON = "\N{MODIFIER LETTER COLON}"


def hide_colons(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Napoleon takes what is before a colon in an attribute's docstring for its type."""
    if what in ("attribute", "data", "property"):
        lines[:] = [line.replace(": ", f"{COLON} ") for line in lines]


def show_colons(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    lines[:] = [line.replace(COLON, ":") for line in lines]


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", hide_colons, priority=400)
    app.connect("autodoc-process-docstring", show_colons, priority=600)
    app.connect("env-check-consistency", check_complete)
    app.add_directive("commands", Commands)
    app.add_directive("statuses", Statuses)
