"""How the site is built; `make site` does it, with every warning an error."""

import os
import re
from pathlib import Path
from typing import Any

from docutils.nodes import document
from sphinx.addnodes import pending_xref

import headrace

DOCS = Path(__file__).parent
ROOT = DOCS.parent

project = "headrace"
copyright = "the headrace contributors"
version = release = headrace.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]

html_theme = "furo"
html_title = f"headrace {release}"
html_copy_source = False
html_static_path = ["_static"]
html_js_files = ["keyboard.js"]
highlight_language = "none"
copybutton_prompt_text = "$ "

# Links go to headings: the levels that have an anchor.
myst_heading_anchors = 4

# Docstrings are Google's; those of the native classes have code in single backticks.
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# A class has what it inherits from private classes, and not what the public ones below it have on their own page.
autodoc_default_options = {"inherited-members": "AsyncConsumer, BaseException, Protocol, object, tuple, dict"}

# References to headrace's public names have to lead somewhere; those of others where they can be looked up.
nitpick_ignore_regex = [(r"py:.*", r"(?!headrace\.[a-z]).*"), (r"py:.*", r"headrace\.(.*\.)?_.*")]
if os.environ.get("SITE_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "django": ("https://docs.djangoproject.com/en/stable", "https://docs.djangoproject.com/en/stable/_objects/"),
        "channels": ("https://channels.readthedocs.io/en/stable", None),
    }


def _prepare(app: Any, page: str, source: list[str]) -> None:
    """Put in what a page includes, and make of a link to a file outside docs/, which the site lacks, its name."""
    folder = (DOCS / page).parent

    def included(comment: re.Match[str]) -> str:
        name, heading = comment.groups()
        text = (ROOT / name).read_text()
        if heading:
            text = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        # Without the title, which the page has, and with links from where the page is.
        text = re.sub(r"\A# .*\n", "", text)
        up = os.path.relpath(ROOT, folder)
        return re.sub(r"\]\((?!https?:|#)", f"]({up}/", text)

    def named(link: re.Match[str]) -> str:
        text, target = link.groups()
        path = (folder / target).resolve()
        if path.is_relative_to(DOCS):
            return link[0]
        name = str(path.relative_to(ROOT))
        return f"`{name}`" if text.strip("`") == name else f"{text} (`{name}` in the repository)"

    source[0] = re.sub(r"<!-- include: (\S+?)(?:, ([^>]+))? -->", included, source[0])
    source[0] = re.sub(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#]+)\)", named, source[0])


def _leave_bytes(app: Any, page: document) -> None:
    """Keep the type ``bytes`` in signatures from being a link to an attribute of that name."""
    for reference in list(page.findall(pending_xref)):
        if reference["reftarget"] == "bytes":
            reference.replace_self(reference.children)


def setup(app: Any) -> None:
    """Tell Sphinx what is done here."""
    app.connect("doctree-read", _leave_bytes)
    app.connect("source-read", _prepare)
