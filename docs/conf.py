"""How Sphinx builds the documentation: `nox -s docs`."""

from trio_kv import __version__

project = "trio_kv"
author = "The trio_kv authors"
copyright = author
release = __version__

extensions = ["myst_parser"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
# DuckDB has literals that standard SQL, and so its lexer, does not know.
suppress_warnings = ["misc.highlighting_failure"]
html_theme = "furo"
html_title = f"trio_kv {__version__}"
