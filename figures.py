"""The drawings and live figures of the book, and how a notebook shows them.

    from figures import show_figure, show_live

    show_figure("head_replaced")
    show_live("attention")

Each has a caption, and a text for those who do not see it: of drawings in ``book/figures/words_en.json``,
of live figures below. The stored output of such a cell is a picture with its caption, which JupyterLab,
VS Code, Colab and GitHub show alike. On the pages of the book the cell is the figure itself, numbered,
and a live one answers to the reader; ``book/extensions/live_figures.py`` puts it there.

Drawings are ``book/figures/NAME.svg``; pictures of the live figures, ``book/figures/live/NAME.png``,
are photographs that ``python book/live/photograph.py`` takes of them.
"""

import base64
import json
from html import escape
from pathlib import Path

import edition  # noqa: F401 - tiktoken needs no network

FOLDER = Path(__file__).resolve().parent / "book" / "figures"
LIVE_NOTE = "On the book's page this figure is live: it answers to what you type."

WORDS = json.loads((FOLDER / "words_en.json").read_text(encoding="utf-8"))["drawings"]

# name: (caption, what the figure shows, for those who do not see it)
DRAWINGS = {name: (words["caption"], words["alt"]) for name, words in WORDS.items()}
LIVE = {
    "classifier": (
        "The same GPT-2 before and after fine-tuning reads your message. Colour and bar under each token "
        "say what changes when that token is left out.",
        "A text field with a message; below it the probability of spam before and after fine-tuning on a "
        "scale with the threshold; below that the tokens of the message, each marked by how much it pushed "
        "the decision towards spam or away from it.",
    ),
    "tokens": (
        "GPT-2 reads tokens, not words: your message as tokens and IDs, and how much of its row in a batch "
        "is padding.",
        "A text field with a message; below it the message cut into tokens, each with its ID, and a row of "
        "small squares, one for each position that the classifier reads: message or padding.",
    ),
    "prevalence": (
        "The same filter where spam is rarer: of a thousand messages, those that it calls spam, and how many "
        "of these are spam.",
        "A thousand small squares: spam caught, spam missed, false alarms, and the rest. Sliders set the "
        "share of spam and the two error rates; precision is written below.",
    ),
    "anatomy": (
        "Where the parameters of GPT-2 sit, in five sizes: areas to scale, slivers widened to be seen.",
        "A row of areas, one for each part of the model: token embedding, position embedding, attention, "
        "feed-forward, norms. A slider changes the size of the model, a choice of a part shows its shapes "
        "and its number of parameters.",
    ),
    "generation": (
        "What comes next, as the language model sees it, and what temperature and top-k make of it.",
        "A text and below it bars: the most probable next tokens with their probabilities. Sliders for "
        "temperature and top-k, buttons to append one token or twenty.",
    ),
    "attention": (
        "What each row attends to, in every layer and head, and how the last row becomes the two scores.",
        "A square of cells, one row for each token that asks and one column for each token that is read; "
        "what lies ahead is masked. Beside each row its two logits; the last row is the one that is used.",
    ),
    "trainable": (
        "Which parts may change: how many numbers train, what that costs, and the accuracy, all measured.",
        "The model as a stack of parts from the embeddings to the head, those that train filled; beside it "
        "the trainable parameters, work, time and memory of training, and the test accuracy of each seed.",
    ),
    "loss": (
        "Add the same number to every margin: accuracy moves in steps, the loss moves smoothly, and its "
        "slope is mean probability minus share of spam.",
        "The messages of the test set as dots on a line of margins, coloured by class, and two curves over "
        "the bias: accuracy, a staircase, and loss, a smooth curve, with its slope at the chosen bias.",
    ),
    "training": (
        "Fine-tuning as a film: the margin of every validation message, step by step. One heap wanders over "
        "the border and back, then it parts.",
        "Dots on a line of margins, spam above and the rest below, that move while a slider goes through the "
        "steps of training; one message is followed by name. Below, accuracy and loss over the steps.",
    ),
    "threshold": (
        "Threshold and real share of spam: what the filter catches, what it takes by mistake, and what that "
        "costs beside flagging nothing.",
        "Two rows of dots, messages that are spam and messages that are not, by their probability of spam; a "
        "threshold between them; below it the confusion matrix, precision, recall and cost.",
    ),
    "experiments": (
        "One choice changed at a time: test accuracy with its 95 % interval.",
        "A dot for each setting with an interval around it, a small dot for each seed, sorted by accuracy, "
        "and a line at the setting of the book.",
    ),
}


class Figure:
    """A picture with its caption, as a notebook stores it.

    Attributes: ``name``, ``caption``, ``alt`` (the text for those who do not see it), ``live`` (whether
    it is a live figure) and ``path`` (the file of the picture).
    """

    def __init__(self, name, live):
        table = LIVE if live else DRAWINGS
        if name not in table:
            raise ValueError(f"There is no figure {name!r}. Choose one of: {', '.join(table)}.")
        self.name, self.live = name, live
        self.caption, self.alt = table[name]
        self.path = FOLDER / "live" / f"{name}.png" if live else FOLDER / f"{name}.svg"

    def _repr_html_(self):
        # An image with its data inside is what every front end keeps: GitHub and an untrusted notebook
        # in JupyterLab drop scripts and styles, Colab and a moved notebook do not find other files.
        kind = "image/png" if self.live else "image/svg+xml"
        data = base64.b64encode(self.path.read_bytes()).decode()
        caption = f"{self.caption} {LIVE_NOTE}" if self.live else self.caption
        return (
            f'<figure><img src="data:{kind};base64,{data}" alt="{escape(self.alt)}" width="760">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )

    def __repr__(self):
        return f"Figure: {self.caption}"


def show_figure(name):
    """A drawing of the book, a key of ``DRAWINGS``, with its caption: the last line of a cell shows it."""
    return Figure(name, live=False)


def show_live(name):
    """A live figure of the book, a key of ``LIVE``; where nothing is live, a picture of it."""
    return Figure(name, live=True)
