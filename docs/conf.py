# ruff: noqa: INP001 (Sphinx reads this file by its path)
"""Sphinx: the Markdown of this folder as HTML. ``scripts/build_docs`` runs it."""

project = "AIProxy"
author = "the AIProxy authors"
copyright = author

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["_build"]

myst_heading_anchors = 3  # links such as headers.md#x-ai-max-latency

html_theme = "furo"
html_title = "AIProxy"
html_show_copyright = False
