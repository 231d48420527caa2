"""Write the address of the book's repository: `make repository URL=https://github.com/OWNER/NAME`.

make passes the address on in the environment variable BOOK_URL, so that no shell reads it.

The setting is `repository: url:` in _config.yml; empty means that the book is not published.
The buttons of the pages read it there. This script writes the address into that file and into
what cannot read it: the first cell of every notebook, which fetches the book on Colab, the
badges of README.md, and CITATION.cff. An empty address, `URL=`, takes it out of all of them;
without `URL` the address stays, and what is not as it should be, such as the first cell of a
new notebook, is written.

It needs Python alone, so that it runs before the environment is made.
"""

import json
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETTING = re.compile(r'^repository:\n  url: "(?P<address>.*)"\n  branch: (?P<branch>\S+)$', re.M)
ADDRESS = re.compile(r"(https://github\.com/[A-Za-z0-9-]+/(?!\.+/?$)[\w.-]+?)(?:\.git)?/?", re.ASCII)

FIRST_CELL = """\
# The same first cell in every notebook: go to the book's folder. On Colab, fetch the book first.
import os, pathlib, subprocess, sys, zipfile; from itertools import chain
repository = os.environ.get("BOOK_REPOSITORY", "{address}")  # the address is written by `make repository`
on_colab, here = "google.colab" in sys.modules, pathlib.Path.cwd()

def book_folder():  # here, above, or up to four levels below: uploaded, or on a mounted Drive
    below = (path.parent for depth in range(1, 5) for path in here.glob("*/" * depth + "edition.py"))
    folders = chain([here, *here.parents], below)
    return next((folder for folder in folders if (folder / "edition.py").exists() and (folder / "assets").is_dir()), None)

def run(*command):
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, f"This command failed: {{' '.join(command)}}\\n{{result.stdout}}{{result.stderr}}"

if not book_folder():  # perhaps it stands here as a zip file
    for archive in filter(zipfile.is_zipfile, here.glob("*.zip")):
        if any(name.endswith("edition.py") for name in zipfile.ZipFile(archive).namelist()):
            zipfile.ZipFile(archive).extractall("book")
if on_colab and repository and not book_folder():
    run("git", "clone", "-q", "--depth", "1", repository, "book")
assert book_folder(), f"The book's folder is neither above nor below {{here}}. Open the notebook from a copy of the whole book. On Colab do one of these and run this cell again: upload the book as a zip file; mount the Drive that holds it: from google.colab import drive; drive.mount('/content/drive'); name its repository: os.environ['BOOK_REPOSITORY'] = 'https://github.com/OWNER/NAME'"
if on_colab:
    run(sys.executable, "-m", "pip", "install", "-q", "tiktoken", "safetensors")
os.chdir(book_folder()); sys.path.insert(0, os.getcwd()); import edition; edition.prepare()"""  # noqa: E501

BADGES = """\
[![tests]({address}/actions/workflows/tests.yml/badge.svg)]({address}/actions/workflows/tests.yml)
[![weekly run with GPT-2 124M]({address}/actions/workflows/weekly.yml/badge.svg)]({address}/actions/workflows/weekly.yml)
[![published book]({address}/actions/workflows/publish.yml/badge.svg)]({pages})
[![open notebook 01 in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})
"""  # noqa: E501


def checked(address):
    """Return the address of a repository on GitHub without `.git` and `/` at its end.

    Raises:
        ValueError: if it is none. The empty address is allowed.
    """
    match = ADDRESS.fullmatch(address)
    if address and not match:
        raise ValueError(
            f"{address!r} is not the address of a repository on GitHub. It looks like this: "
            "make repository URL=https://github.com/OWNER/NAME"
        )
    return match[1] if match else ""


def setting(root=ROOT):
    """The address and the branch that _config.yml holds, as two strings."""
    match = SETTING.search((root / "_config.yml").read_text(encoding="utf-8"))
    if not match:
        raise ValueError("_config.yml has no setting `repository:` with the lines `url:` and `branch:`.")
    return match["address"], match["branch"]


def pages_address(address):
    """Where GitHub Pages shows the book of a repository."""
    owner, name = address.split("/")[-2:]
    host = f"{owner.lower()}.github.io"
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"


def with_first_cell(notebook, address):
    """Return the text of a notebook file with the common cell, and the address, as first code cell."""
    content = json.loads(notebook)
    cell = next(cell for cell in content["cells"] if cell["cell_type"] == "code")
    cell["source"] = FIRST_CELL.format(address=address).splitlines(keepends=True)
    return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"  # as nbformat writes it


def with_badges(readme, address, branch):
    """Return the text of README.md with the badges of the address between their two marks, or with none."""
    badges = ""
    if address:
        owner_and_name = address.removeprefix("https://github.com/")
        first = min(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
        colab = f"https://colab.research.google.com/github/{owner_and_name}/blob/{branch}/notebooks/{first}"
        badges = BADGES.format(address=address, pages=pages_address(address), colab=colab)
    return re.sub(
        r"(<!-- badges: .*? -->\n).*?(<!-- end of badges -->)",
        lambda match: match[1] + badges + match[2],
        readme,
        flags=re.S,
    )


def with_repository_code(citation, address):
    """Return the text of CITATION.cff with `repository-code: ADDRESS` above its keywords, or without."""
    citation = re.sub(r"^repository-code:.*\n", "", citation, flags=re.M)
    line = f"repository-code: {address}\n" if address else ""
    return re.sub(r"^(?=keywords:)", lambda _: line, citation, flags=re.M)


def replace_together(contents):
    """Give several files new contents, {path: bytes}: all of them, or after an error none."""
    before = {path: path.read_bytes() for path in contents}
    try:
        for path, content in contents.items():
            new = path.with_name(f"{path.name}.new")
            new.write_bytes(content)
            os.replace(new, path)
    except BaseException:
        for path, content in before.items():
            path.with_name(f"{path.name}.new").unlink(missing_ok=True)
            if path.read_bytes() != content:
                path.write_bytes(content)
        raise


def set_repository(address, root=ROOT):
    """Write an address, or with "" no address, into all files. Return those that changed."""
    address = checked(address)
    _, branch = setting(root)
    rules = {
        root / "_config.yml": lambda text: SETTING.sub(
            f'repository:\n  url: "{address}"\n  branch: {branch}', text
        ),
        root / "README.md": lambda text: with_badges(text, address, branch),
        root / "CITATION.cff": lambda text: with_repository_code(text, address),
    }
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        rules[path] = lambda text: with_first_cell(text, address)

    before = {path: path.read_text(encoding="utf-8") for path in rules}
    after = {path: rule(before[path]) for path, rule in rules.items()}
    changed = [path for path in rules if after[path] != before[path]]
    replace_together({path: after[path].encode() for path in changed})
    return changed


if __name__ == "__main__":
    try:
        changed = set_repository(os.environ.get("BOOK_URL", setting()[0]))
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    print(f"Repository: {setting()[0] or 'none'}. Files changed: {len(changed)}.")
    for path in changed:
        print(f"  {path.relative_to(ROOT).as_posix()}")
