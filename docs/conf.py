"""How Sphinx builds these pages: ``make docs`` writes them to docs/_build/html."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sphinx.util.nodes import make_refnode

import pcgraph

project = "pcgraph"
author = "the pcgraph contributors"
copyright = author
version = release = pcgraph.__version__

extensions = [
    "myst_nb",
    "sphinx_design",
    "sphinx_copybutton",
    *(f"sphinx.ext.{name}" for name in ("autodoc", "autosummary", "napoleon", "mathjax")),
]
exclude_patterns = ["_build", "figures"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
nb_execution_mode = "off"  # outputs are kept in the notebooks, and the tests run these

html_theme = "furo"
html_title = f"pcgraph {release}"
html_static_path = ["_static"]
html_css_files = ["pcgraph.css"]
html_js_files = ["versions.js"]  # fills the list of versions, where the site has one
templates_path = ["_templates"]
html_sidebars = {
    "**": [
        f"sidebar/{part}.html" for part in ("brand", "search", "scroll-start", "navigation", "versions", "scroll-end")
    ]
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_selector = "div:not(.highlight-output):not(.output) > div.highlight pre"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "github-dark"

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

# Names as a user writes them; types stand in the numpy-style docstrings, with shapes, and not in signatures as well.
add_module_names = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
autosummary_generate = False
napoleon_google_docstring = False
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]
python_maximum_signature_line_length = 100
# A parameter in `single backticks`, as numpy's style has it.
default_role = "literal"

# Shapes such as (batch, *shape), which reStructuredText would take for the beginning of emphasis.
STARRED = re.compile(r"``.*?``|(?<![\w*`\\])\*(?=\w+[,)])")


def indented(line):
    return len(line) - len(line.lstrip())


def literally(lines):
    """Yield each line and whether it is shown as it stands; what is set in by four, as equations are, is marked so."""
    before, since = "", None
    for i, line in enumerate(lines):
        if line.strip():
            if since is not None and indented(line) < since:
                since = None
            if since is None and i and not lines[i - 1].strip() and indented(line) >= indented(before) + 4:
                since = indented(line)
                if not before.rstrip().endswith("::") and not before.lstrip().startswith((".. ", "* ")):
                    yield " " * indented(before) + ".. code-block:: text", True
                    yield "", True
            before = before if since is not None else line
        yield line, since is not None


def prepare(app, what, name, obj, options, lines):
    """Show equations line by line, and shield the star of a shape outside of literals, in place."""
    lines[:] = [
        line if literal else STARRED.sub(lambda m: m[0] if m[0] != "*" else r"\*", line)
        for line, literal in list(literally(lines))
    ]


def add_picture(app, what, name, obj, options, lines):
    """A generator of graphs shows what it makes: the picture of its name that ``docs/figures/generators.py`` drew."""
    room, _, function = name.rpartition(".")
    if room == "pcgraph.graphs" and what == "function":
        at = next((i for i, line in enumerate(lines) if line.startswith("Parameters")), len(lines))
        lines[at:at] = [f".. image:: ../figures/graphs/{function}.png", f"   :alt: {function}", ""]


def drop_inherited_signature(app, what, name, obj, options, signature, returns):
    """What nn.Module takes says nothing of a class that takes no arguments; results and plans are not made by hand."""
    made_elsewhere = name in ("pcgraph.InferenceResult", "pcgraph.Plan", "pcgraph.topology.Report")
    return ("", returns) if what == "class" and (made_elsewhere or signature == "(*args, **kwargs)") else None


def find_where_users_know_it(app, env, node, contnode):
    """A room refers to its own ``check``; the page has it as ``pcgraph.check``."""
    name = node.get("reftarget", "").rpartition(".")[2]
    entry = env.domains["py"].objects.get(f"pcgraph.{name}") if node.get("refdomain") == "py" else None
    if entry is None:
        return None
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contnode)


def setup(app):
    """Called by Sphinx. Equations and shapes are marked before napoleon reads the docstrings."""
    app.connect("autodoc-process-docstring", prepare, priority=400)
    app.connect("autodoc-process-docstring", add_picture, priority=300)
    app.connect("autodoc-process-signature", drop_inherited_signature)
    app.connect("missing-reference", find_where_users_know_it)
