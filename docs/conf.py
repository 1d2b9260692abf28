"""Sphinx configuration. `make docs` builds the site into docs/_build/html; nothing is fetched while it does."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from docutils import nodes
from sphinx import addnodes

import smoothcert

project = "smoothcert"
author = "The smoothcert developers"
project_copyright = "The smoothcert developers"
version = release = smoothcert.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "sphinx-mathjax-offline",
    "figures",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "_ext"]
templates_path = ["_templates"]
nitpicky = True
# Names that other projects document.
nitpick_ignore_regex = [
    (r"py:class", r"(abc|sklearn|skorch|torch)\..*|smoothcert\.\w+\..*"),  # base classes outside the reference
    (r"py:obj", r".*"),  # backticks in docstrings, also around parameters
]

# Markdown
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "attrs_block"]
myst_heading_anchors = 3

# Docstrings
default_role = "autolink"
smartquotes = False  # "auto" is Python
toc_object_entries_show_parents = "hide"
autosummary_generate = True
autodoc_typehints = "none"
autodoc_class_signature = "mixed"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
numpydoc_class_members_toctree = False

# Gallery: the build runs the quick scripts, named plot_*.py, and only shows the others.
sphinx_gallery_conf: dict[str, Any] = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"/_",
    "abort_on_example_error": True,
    "default_thumb_file": str(Path(__file__).parent / "_static" / "script.png"),
    "within_subsection_order": "figures.PlotsFirst",
    "show_memory": False,
    "min_reported_time": 1000,
    "plot_gallery": True,
    "reset_modules_order": "both",
    "write_computation_times": False,
    "show_signature": False,
    "remove_config_comments": True,
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Site
html_theme = "pydata_sphinx_theme"
html_title = "smoothcert"
html_static_path = ["_static"]
html_css_files = ["smoothcert.css"]
html_show_sourcelink = False
html_copy_source = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navbar_align": "left",
    "navigation_with_keys": False,
    "show_prev_next": True,
    "show_toc_level": 2,
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars: dict[str, list[str]] = {
    page: [] for page in ("index", "getting_started", "theory", "comparison", "citing", "changelog", "contributing")
}


def skip_member(app: Any, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the methods that scikit-learn adds to every estimator."""
    return True if name.startswith("set_") and name.endswith("_request") else None


def escape_shapes(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep the star of a shape such as (n, *shape) from starting emphasis."""
    lines[:] = [re.sub(r"(?<=, )\*(?=\w+\))", r"\*", line) for line in lines]


def add_anchors(app: Any, doctree: nodes.document) -> None:
    """Give each name an anchor for the package and one for its module, because viewcode links to either."""
    for signature in doctree.findall(addnodes.desc_signature):
        module, name = signature.get("module"), signature.get("fullname")
        if not module or not name.strip("."):
            continue
        found = sys.modules[module]
        for part in name.split("."):
            found = getattr(found, part, None)
        homes = {module, "smoothcert", getattr(found, "__module__", None) or module}
        signature["ids"] += sorted({f"{home}.{name}" for home in homes} - set(signature["ids"]))


def setup(app: Any) -> None:
    """Register hooks."""
    app.connect("autodoc-skip-member", skip_member)
    app.connect("autodoc-process-docstring", escape_shapes, priority=900)
    app.connect("doctree-read", add_anchors)
