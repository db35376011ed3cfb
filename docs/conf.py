# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The site of the documentation: `make docs`.

Its source is the whole repository, so that a link is the same here as where the files are shown.
"""

import re

project = html_title = "ainet_ros"
root_doc = "docs/README"
include_patterns = ["*.md", "CHANGELOG.rst", "docs/**", "weights/*.md"]
extensions = ["myst_parser"]
myst_heading_anchors = 3
html_theme = "furo"
html_extra_path = ["index.html"]


def add_contents(app, page, source):
    """The pages that the front page links to, in its order, are the site's contents."""
    if page == root_doc:
        pages = re.findall(r"\]\(([\w./]+)\.(?:md|rst)\)", source[0])
        source[0] += "\n".join(["\n```{toctree}", ":hidden:", *pages, "```"])


def setup(app):
    app.connect("source-read", add_contents)
