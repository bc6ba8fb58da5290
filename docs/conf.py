"""Sphinx's configuration: `sphinx-build -W docs OUT`, with the extra `docs` installed."""

from __future__ import annotations

import argparse

from docutils import nodes
from sphinx.application import Sphinx
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

myst_fence_as_directive = ["mermaid"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"

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


def setup(app: Sphinx) -> None:
    app.add_directive("commands", Commands)
    app.add_directive("statuses", Statuses)
