"""Write book/bibliography.md from book/references.bib: `python tools/make_bibliography.py`.

Each work gets a heading by author and year, to which the lessons link in plain Markdown, so that the
link works in Jupyter and on GitHub as on the pages: ../book/bibliography.md#almeida-et-al-2011
"""

import sys
from pathlib import Path

from pybtex.backends.plaintext import Backend
from pybtex.database import parse_file
from pybtex.richtext import Text

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from files import atomic_file  # noqa: E402

SOURCE, TARGET = ROOT / "book" / "references.bib", ROOT / "book" / "bibliography.md"
HEAD = "# Bibliography\n\nThe works that this book cites or builds on, by author and year.\n"


def plain(latex):
    """LaTeX's accents and braces as ordinary text."""
    return Text.from_latex(latex).render(Backend()).replace("--", "–")


def names(entry):
    """The authors' names in full, and their last names; ``others`` stands for those left out."""
    people = entry.persons["author"]
    full = [plain(" ".join(p.first_names + p.middle_names + p.prelast_names + p.last_names)) for p in people]
    last = [plain(" ".join(p.prelast_names + p.last_names)) for p in people]
    return full, last


def heading(entry):
    _, last = names(entry)
    if len(last) > 2 or last[-1] == "others":
        return f"{last[0]} et al. {entry.fields['year']}"
    return f"{' and '.join(last)} {entry.fields['year']}"


def venue(fields):
    """Where a work appeared, in Markdown."""
    where = ""
    if "booktitle" in fields:
        where = f"In *{plain(fields['booktitle'])}*"
    elif "journal" in fields:
        where = f"*{plain(fields['journal'])}*"
    parts = [where] if where else []
    if "volume" in fields:
        series = f" of {plain(fields['series'])}" if "series" in fields else ""
        number = f"({fields['number']})" if "number" in fields else ""
        parts.append(f"volume {fields['volume']}{number}{series}")
    if "pages" in fields:
        parts.append(f"pages {plain(fields['pages'])}")
    kinds = ("howpublished", "institution", "publisher", "note")
    return [", ".join(parts), *(plain(fields[kind]) for kind in kinds if kind in fields), fields["year"]]


def line(entry):
    """One work as a paragraph in Markdown."""
    fields, (full, _) = entry.fields, names(entry)
    authors = ", ".join(full[:-1]) + (" and " if len(full) > 1 else "") + full[-1]
    title, address = plain(fields["title"]), fields.get("url")
    if "doi" in fields:
        address = address or f"https://doi.org/{fields['doi']}"
    codes = {"doi": "DOI ", "eprint": "arXiv:", "isbn": "ISBN "}
    codes = [f"{code}{fields[key]}" for key, code in codes.items() if key in fields]
    parts = [authors, f"[{title}]({address})" if address else title, *venue(fields), *codes]
    return " ".join(f"{part.rstrip('.')}." for part in parts if part)


def bibliography():
    """The whole page, as text."""
    entries = sorted(parse_file(SOURCE).entries.values(), key=lambda entry: heading(entry).lower())
    return HEAD + "".join(f"\n## {heading(entry)}\n\n{line(entry)}\n" for entry in entries)


if __name__ == "__main__":
    with atomic_file(TARGET) as partial:
        partial.write_text(bibliography(), encoding="utf-8")
