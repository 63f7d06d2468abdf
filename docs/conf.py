"""How Sphinx builds the documentation."""

from importlib.metadata import version as installed

project = "Banyan"
author = "the Banyan authors"
copyright = author
release = version = installed("banyan-queue")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
html_theme = "furo"
html_title = "Banyan"
