"""What a lesson must hold to, as far as a program can tell.

    python tools/lesson_rules.py notebooks/05_two_class_head.ipynb          # what is wrong with it
    python tools/lesson_rules.py --link notebooks/05_two_class_head.ipynb   # link words to the glossary

CONTRIBUTING.md, "Write a lesson", says what the rules are for; ``tests/test_lessons.py`` holds the
rewritten lessons to them. A rule is a function of a ``Lesson`` that yields what is wrong, in words.
"""

import json
import re
import sys
from functools import cached_property
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from files import atomic_file  # noqa: E402
from reference_results import RESULTS, published  # noqa: E402
from tools.execute import alt_text_of, metadata_of  # noqa: E402

FOLDED = {"hide-cell", "hide-input", "hide-output", "remove-cell", "remove-input"}
WITH_LIVE_FIGURE = "01 02 04 05 06 07 08 09 10".split()
PUBLISHED = ROOT / "tests" / "data" / "seed_document"


def tags(cell):
    return set(cell.metadata.get("tags", []))


class Lesson:
    """A notebook, and the parts of it that the rules ask for."""

    def __init__(self, path):
        self.path = Path(path)
        self.number = self.path.name[:2]
        self.cells = nbformat.read(self.path, as_version=4).cells

    @cached_property
    def exercises_start(self):
        """Position of the cell with the heading "Exercises"; the main path ends there."""
        starts = [i for i, cell in enumerate(self.cells) if re.search(r"^##? Exercises", cell.source, re.M)]
        return starts[0] if starts else len(self.cells)

    def markdown(self, start=0, end=None):
        return [(i, c) for i, c in enumerate(self.cells[:end]) if i >= start and c.cell_type == "markdown"]

    def code(self, start=0, end=None):
        return [(i, c) for i, c in enumerate(self.cells[:end]) if i >= start and c.cell_type == "code"]

    @property
    def mini(self):
        return [(i, cell) for i, cell in self.markdown() if "mini" in tags(cell)]


# ---------------------------------------------------------------------------------
# Reading Markdown, outputs and numbers
# ---------------------------------------------------------------------------------

FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1[ \t]*$", re.M | re.S)
COMMENT = re.compile(r"<!--.*?-->", re.S)
FOLD = re.compile(r"<details>.*?</details>", re.S)
BOX = re.compile(r"<details>\s*<summary>With GPT-2 124M.*?</details>", re.S)
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]*)\)")


def unfolded(text):
    """Markdown without folds and comments: what stands on the page."""
    return FOLD.sub(" ", COMMENT.sub(" ", text))


def text_of(output):
    """What an output shows as text; pictures are left out."""
    data = output.get("data", {})
    html = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", data.get("text/html", ""), flags=re.S)
    return output.get("text", "") + ("" if html else data.get("text/plain", "")) + html


def texts_above(lesson, position):
    """The outputs of the cells above a position, the nearest first."""
    cells = [cell for cell in reversed(lesson.cells[:position]) if cell.cell_type == "code"]
    return ["".join(map(text_of, cell.outputs)) for cell in cells]


# A number of the prose: not part of a word or name, such as GPT-2, 124M or 1e-3.
IN_PROSE = re.compile(r"(?<![\w.-])[-−]?\d[\d,]*(?:\.\d+)?(?:\s?%)?(?!\w|\.\d)")
IN_OUTPUT = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?")
EXEMPT_UP_TO = 12  # smaller whole numbers count things that a reader sees


def value_of(text):
    return float(re.sub(r"[,%\s]", "", text).replace("−", "-"))


def numbers_in(text):
    """All numbers of a printed text. "1,045" is one number, and, as in a list, two."""
    found = {value_of(match) for match in IN_OUTPUT.findall(text) if match.strip("-−,")}
    return found | {value_of(match) for match in re.findall(r"[-−]?\d+(?:\.\d+)?", text)}


def numbers_in_json(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return set().union(*map(numbers_in_json, value)) if value else set()
    if isinstance(value, str):
        return numbers_in(value)
    return {float(value)} if isinstance(value, (int, float)) and not isinstance(value, bool) else set()


def is_shown(number, values):
    """Whether a number of the prose is one of the values, rounded as the prose rounds it."""
    value, percent = abs(value_of(number)), number.endswith("%")
    digits = re.sub(r"[^\d.]", "", number)
    half = 0.5 * 10.0 ** -(len(digits.split(".")[1]) if "." in digits else 0) + 1e-9
    return any(abs(abs(v) - value) <= half or (percent and abs(abs(100 * v) - value) <= half) for v in values)


def published_texts():
    """What the published run printed, one text for each block."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(PUBLISHED.glob("*.txt"))]
    return texts + [entry["text"] for entry in RESULTS["generation"]]


def published_numbers():
    return numbers_in_json(RESULTS).union(*map(numbers_in, published_texts()))


def result_numbers(code):
    """The numbers of the files in results/ that some code names, such as "scale"."""
    files = [path for path in sorted((ROOT / "results").glob("*.json")) if path.stem in code]
    return numbers_in_json([json.loads(path.read_text("utf-8")) for path in files])


def numbers_of_prose(text):
    """The numbers of a paragraph that something must show."""
    text = LINK.sub(r"\1", COMMENT.sub(" ", FENCE.sub(" ", text)))
    text = re.sub(r"<[^>]*>|\$[^$\n]*\$", " ", text)
    for number in IN_PROSE.findall(text):
        whole = "." not in number and "%" not in number
        if not (whole and abs(value_of(number)) <= EXEMPT_UP_TO):
            yield number.strip()


# ---------------------------------------------------------------------------------
# The rules
# ---------------------------------------------------------------------------------


def budget(lesson):
    """Half the words, and at most 25 code cells on the main path; a tenth of slack."""
    end, words, most = lesson.exercises_start, 0, 1500 if int(lesson.number) < 10 else 2000
    for _, cell in lesson.markdown(end=end):
        words += len(re.findall(r"[A-Za-z]{2,}", LINK.sub(r"\1", unfolded(cell.source))))
    if words > 1.1 * most:
        yield f"{words} words on the main path, {most} at most"
    code = [cell for _, cell in lesson.code(end=end) if not tags(cell) & FOLDED]
    if len(code) > 27:
        yield f"{len(code)} code cells on the main path, 25 at most"


def opening(lesson):
    """The first screen asks a question and lets the reader predict; it is no list of goals."""
    if not lesson.cells[0].source.startswith("# "):
        yield "the first cell is not the title"
    if re.search(r"you will learn|learning goals", lesson.cells[0].source, re.I):
        yield "the first cell lists goals; begin with a question"
    first = [cell.source for cell in lesson.cells[:6] if cell.cell_type == "markdown"]
    if not any("Predict" in text and FOLD.search(text) for text in first):
        yield 'no "Predict" with a folded answer (<details>) in the first six cells'


SPHINX_ONLY = re.compile(r"^\s*(?:`{3,}|:{3,})\{[^}]*\}|\{[\w:-]+\}`|^:[\w-]+: |\{\{.*?\}\}", re.M)


def plain_markdown(lesson):
    """No markup that only Sphinx understands: it would stand as raw text elsewhere."""
    for i, cell in lesson.markdown():
        for markup in SPHINX_ONLY.findall(cell.source):
            yield f"cell {i}: markup that only the book's pages understand: {markup.strip()}"
        prose = FENCE.sub("", cell.source)
        if prose.count("<details>") != prose.count("</details>"):
            yield f"cell {i}: a <details> that does not end in its cell"
        for fold in FOLD.findall(prose):
            if not re.match(r"<details>\n<summary>[^\n]+</summary>\n\n.*\n\n</details>$", fold, re.S):
                yield f"cell {i}: in a fold, the text stands between blank lines, below <summary>…</summary>"
            if re.search(r"^#+ ", fold, re.M):
                yield f"cell {i}: a heading in a fold"
        if re.search(r"!\[[^\]]*\]\(|<img ", prose):
            yield f"cell {i}: a picture in Markdown; show_figure gives it caption and alt text"


def figures(lesson):
    """Each figure is stored as a picture with caption and alt text; the lesson has its live figure."""
    shown = [(i, c) for i, c in lesson.code() if re.search(r"^show_(figure|live)\(", c.source, re.M)]
    for i, cell in shown:
        html = "".join(output.get("data", {}).get("text/html", "") for output in cell.outputs)
        if not re.search(r"<img [^>]*alt=\"[^\"]{20,}\"", html) or "<figcaption>" not in html:
            yield f"cell {i}: no stored picture with a caption and an alt text"
    if not shown:
        yield "no drawing"
    if lesson.number in WITH_LIVE_FIGURE and not any("show_live(" in cell.source for _, cell in shown):
        yield "no live figure"


def plots(lesson):
    """Each plot has an alt text, in the metadata of its cell."""
    for i, cell in lesson.code():
        plotted = any("image/png" in output.get("data", {}) for output in cell.outputs)
        if plotted and len(alt_text_of(cell) or "") < 40:
            yield f"cell {i}: a plot without an alt text"


def closed_cells(lesson):
    """What is closed on the page is closed in JupyterLab and Colab, and says what it holds."""
    for i, cell in lesson.code()[1:]:
        if tags(cell) & (FOLDED - {"hide-output"}) and not re.match(r"# ?@title \S", cell.source):
            yield f"cell {i}: closed, and its first line is not `#@title What it holds`"
    for i, cell in enumerate(lesson.cells):
        if cell.metadata != metadata_of(cell):
            yield f"cell {i}: metadata {dict(cell.metadata)}; `tools/execute.py` writes {metadata_of(cell)}"


def no_dashes(lesson):
    """No table whose last column is empty."""
    for i, cell in lesson.code():
        if any(re.search(r"\| -\s*$", text_of(output), re.M) for output in cell.outputs):
            yield f"cell {i}: a table of dashes"


def edition_cells(lesson):
    """What holds for gpt2-mini only says so, and its numbers are shown by an output or the code."""
    outputs = [text_of(output) for _, cell in lesson.code() for output in cell.outputs]
    code = "\n".join(cell.source for _, cell in lesson.code())
    values, results = numbers_in_json([*outputs, code]) | published_numbers(), result_numbers(code)
    for i, cell in lesson.code():
        if "mini" in tags(cell):
            yield f"cell {i}: the tag mini is for text"
    for i, cell in lesson.mini:
        if "gpt2-mini" not in re.split(r"(?<=[.?!])\s", cell.source)[0]:
            yield f"cell {i}: tagged mini, and its first sentence does not name gpt2-mini"
        if re.search(r"^#+ ", cell.source, re.M):
            yield f"cell {i}: a heading in a cell that other editions leave out"
        for number in numbers_of_prose(cell.source):
            exact = len(re.sub(r"\D", "", number).lstrip("0")) >= 3  # results/ holds thousands of numbers
            if not is_shown(number, values) and not (exact and is_shown(number, results)):
                yield f"cell {i}: {number} stands in no output or code here, in no result, in no reference"


def claims(lesson):
    """What a mini paragraph says of its outputs holds: `<!-- claim: number("loss") > number("coin") -->`."""
    for i, cell in lesson.markdown():
        found = re.findall(r"<!--\s*claim:(.*?)-->", cell.source, re.S)
        if "mini" in tags(cell) and not found:
            yield f"cell {i}: tagged mini, without a claim that can fail"
        for claim in found:
            try:
                if not eval(claim.strip(), claim_functions(lesson, i)):
                    yield f"cell {i}: the output denies it: {claim.strip()}"
            except Exception as error:
                yield f"cell {i}: the claim {claim.strip()} cannot be checked: {error}"


def claim_functions(lesson, position):
    """The words of a claim: outputs above it, results, the reference, and Python's own functions."""
    texts = texts_above(lesson, position)

    def numbers(label):
        """All numbers behind the label in its line, in the nearest output that has it."""
        for text in texts:
            for line in text.splitlines():
                if label in line:
                    rest = IN_OUTPUT.findall(line.split(label, 1)[1])
                    return [value_of(number) for number in rest]
        raise LookupError(f"no output above has {label!r}")

    def row(name):
        """All numbers in front of the name that ends a line, behind two spaces, in the nearest output."""
        for text in texts:
            for line in text.splitlines():
                if line.endswith(f"  {name}"):
                    return [value_of(number) for number in IN_OUTPUT.findall(line.removesuffix(name))]
        raise LookupError(f"no output above has a line that ends with {name!r}")

    def at(value, path):
        for part in path.split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
        return value

    def result(path):
        """A number of results/: its file, then the way in it, such as "scale.batch.messages"."""
        name, rest = path.split(".", 1)
        return at(json.loads((ROOT / "results" / f"{name}.json").read_text("utf-8")), rest)

    python = {f.__name__: f for f in (abs, all, any, len, max, min, round, set, sorted, sum)}
    return python | {
        "__builtins__": {},
        "numbers": numbers,
        "number": lambda label, n=1: numbers(label)[n - 1],
        "row": row,
        "text": "\n".join(texts),
        "result": result,
        "published": published,
    }


def boxes(lesson):
    """A box "With GPT-2 124M" shows what was published; the comparison below it is closed."""
    values, texts = published_numbers(), published_texts()
    for i, cell in lesson.markdown():
        for box in BOX.findall(cell.source):
            for block in (match[0] for match in FENCE.finditer(box)):
                printed = "\n".join(block.splitlines()[1:-1])
                parts = [part.strip("\n") for part in re.split(r"^\s*(?:…|\.\.\.)\s*$", printed, flags=re.M)]
                if not all(any(part.strip() in text for text in texts) for part in parts):
                    yield f"cell {i}: the box shows what tests/data/seed_document does not hold"
            for number in numbers_of_prose(box):
                if not is_shown(number, values):
                    yield f"cell {i}: {number} in the box is no published number"
    for i, cell in lesson.code():
        if "compare_with_published(" in cell.source and not tags(cell) & {"remove-cell", "hide-cell"}:
            yield f"cell {i}: the comparison with published numbers is for a closed cell (remove-cell)"


def exercises(lesson):
    """Each exercise calls check; its solution is closed and runs the same check; one is open."""
    start, open_ones, number = lesson.exercises_start, 0, None
    sections = {}
    for cell in lesson.cells[start:]:
        for heading in re.findall(r"^### Exercise (\d+)(.*)$", cell.source, re.M):
            number = f"{lesson.number}-{heading[0]}"
            sections[number] = [heading[1], []]
        if re.search(r"^## (?!Exercises)", cell.source, re.M):
            number = None
        if cell.cell_type == "code" and number:
            sections[number][1].append(cell)
    for number, (title, code) in sections.items():
        if "(open)" in title:
            open_ones += 1
            continue
        call = f'check("{number}"'
        own = [cell for cell in code if call in cell.source and not tags(cell) & FOLDED]
        solutions = [cell for cell in code if re.match(r"# ?@title Solution", cell.source)]
        if not own:
            yield f"exercise {number}: no open cell that calls {call}, …)"
        if not solutions or not all("hide-cell" in tags(cell) for cell in solutions):
            yield f"exercise {number}: no closed solution (hide-cell, `#@title Solution`)"
            continue
        last = solutions[-1]
        if call not in last.source or f"{number}: right." not in "".join(map(text_of, last.outputs)):
            yield f"exercise {number}: the solution does not pass {call}, …)"
        if not last.source.rstrip().splitlines()[-1].lstrip().startswith("#"):
            yield f"exercise {number}: the solution does not end with its conclusion, in a comment"
    if not sections:
        yield "no exercises"
    if open_ones != 1:
        yield f"{open_ones} exercises are marked (open), one should be"


# ---------------------------------------------------------------------------------
# The glossary: the first use of a word is a link
# ---------------------------------------------------------------------------------

OTHER_FORMS = {
    "training, validation and test set": "(?:training|validation|test) set",
    "freezing": "fr(?:eez(?:e|es|ing)|ozen)",
    "padding": "padd(?:ing|ed)",
}
# Where no link can or need stand: code, headings, tables, formulas, folds, quotations of messages.
APART = re.compile(
    r"`+[^`]*`+|^#.*$|^\|.*$|\$\$[^$]*\$\$|\$[^$\n]*\$|<[^>]*>|“[^”]*”|\"[^\"\n]*\"|SMS Spam Collection", re.M
)


def slug(term):
    """The anchor of a heading, as GitHub and the book's pages make it."""
    return re.sub(r"[^\w\- ]", "", term.lower()).replace(" ", "-")


def glossary_terms():
    return re.findall(r"^## (.+)$", (ROOT / "book" / "glossary.md").read_text(encoding="utf-8"), re.M)


def masked(text):
    """Markdown of the same length with spaces for what is no running text; links of the glossary stay."""

    def blank(match):
        return re.sub(r"[^\n]", " ", match[0])

    text = COMMENT.sub(blank, FENCE.sub(blank, text))
    text = FOLD.sub(blank, text)
    text = LINK.sub(lambda match: match[0] if "glossary.md#" in match[2] else blank(match), text)
    links = [match.span() for match in LINK.finditer(text)]
    return APART.sub(
        lambda match: match[0] if any(a <= match.start() < b for a, b in links) else blank(match), text
    )


def first_uses(lesson):
    """Yield (cell position, start, end, term) of each first use that is no link to the glossary."""
    terms = sorted(glossary_terms(), key=len, reverse=True)
    forms = [OTHER_FORMS.get(term, re.escape(term).replace(r"\ ", r"\s+") + "(?:s|es)?") for term in terms]
    words = re.compile("|".join(rf"(?P<t{i}>\b{form}\b)" for i, form in enumerate(forms)), re.I)
    seen = set()
    for i, cell in lesson.markdown(end=lesson.exercises_start):
        text = masked(cell.source)
        links = {match.span(): match[2].split("#", 1)[1] for match in LINK.finditer(text)}
        found = [(span[0], span[1], target, True) for span, target in links.items()]
        for match in words.finditer(text):
            if not any(a <= match.start() < b for a, b in links):
                found.append((*match.span(), slug(terms[int(match.lastgroup[1:])]), False))
        for start, end, target, linked in sorted(found):
            if target not in seen and not linked:
                yield i, start, end, target
            seen.add(target)


def glossary_links(lesson):
    """The first use of each word of the glossary on the main path leads there; links lead to words."""
    for i, start, end, target in first_uses(lesson):
        word = lesson.cells[i].source[start:end]
        yield f"cell {i}: the first “{word}” is no link; write [{word}](../book/glossary.md#{target})"
    known = {slug(term) for term in glossary_terms()}
    works = (ROOT / "book" / "bibliography.md").read_text(encoding="utf-8")
    known |= {slug(work) for work in re.findall(r"^## (.+)$", works, re.M)}
    for i, cell in lesson.markdown():
        for _, target in LINK.findall(cell.source):
            if re.search(r"(glossary|bibliography)\.md#", target) and target.split("#")[1] not in known:
                yield f"cell {i}: {target} leads nowhere"


def link_words(path):
    """Write the missing links of ``first_uses`` into a notebook; returns how many."""
    lesson = Lesson(path)
    uses = list(first_uses(lesson))
    notebook = nbformat.read(path, as_version=4)
    for i, start, end, target in sorted(uses, reverse=True):
        source = notebook.cells[i].source
        link = f"[{source[start:end]}](../book/glossary.md#{target})"
        notebook.cells[i].source = source[:start] + link + source[end:]
    if uses:
        with atomic_file(path) as partial:
            nbformat.write(notebook, partial)
    return len(uses)


RULES = (
    budget, opening, plain_markdown, figures, plots, closed_cells, no_dashes,
    edition_cells, claims, boxes, exercises, glossary_links,
)  # fmt: skip


def problems(path):
    lesson = Lesson(path)
    return [f"{rule.__name__}: {problem}" for rule in RULES for problem in rule(lesson)]


if __name__ == "__main__":
    paths = [argument for argument in sys.argv[1:] if argument != "--link"]
    for path in paths:
        if "--link" in sys.argv:
            print(f"{path}: {link_words(path)} words linked")
        for problem in problems(path):
            print(f"{path}: {problem}")
