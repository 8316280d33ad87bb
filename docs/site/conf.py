"""How Sphinx builds the site; ``build.py`` prepares the pages and runs it."""

import os

project = "adapterdock"
author = "The adapterdock maintainers"
copyright = author
version = release = os.environ["ADAPTERDOCK_DOCS_VERSION"]

extensions = ["myst_parser", "sphinx_copybutton"]
myst_heading_anchors = 6
myst_enable_extensions = ["attrs_inline"]
# The reference of Python begins with the level that `docs/reference.py` writes.
suppress_warnings = ["myst.header", "misc.highlighting_failure"]
nitpicky = True
smartquotes = False  # options have two dashes

html_theme = "furo"
html_title = f"adapterdock {release}"
html_static_path = ["../../build/site-source/_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "source_repository": os.environ["ADAPTERDOCK_DOCS_REPOSITORY"],
    "top_of_page_buttons": [],
    "footer_icons": [],
}

copybutton_prompt_text = r"\$ |> "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"
