"""Buttons to the repository, its issues and Colab, on a book that knows its repository.

The address is `repository: url:` in ``_config.yml`` (`make repository` writes it). The theme
makes the buttons from it; without an address this extension turns them off.
"""

BUTTONS = ("use_repository_button", "use_edit_page_button", "use_issues_button")


def choose_buttons(app, config):
    options = config.html_theme_options
    published = bool(options["repository_url"])
    options.update({button: published for button in BUTTONS})
    if not published:
        options["launch_buttons"] = {}


def setup(app):
    app.connect("config-inited", choose_buttons)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
