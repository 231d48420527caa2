"""The model, from tokens down to scores: one picture, and the same picture with a part lit.

    python book/figures/draw_model.py

writes the SVG files of ``PICTURES``. Four tokens go down four lanes; a lane is a row of what PyTorch
prints. The parts are groups named by ``data-part``, so that a page can light them too.
"""

import json
from dataclasses import dataclass

from drawing import (
    FOLDER,
    LABELS,
    REFERENCE,
    ROOT,
    arrow,
    drawing,
    group,
    number,
    path,
    rect,
    text,
    tip,
)

LEFT, RIGHT = 40, 336  # of the boxes
LANES = [77, 151, 225, 299]
BYPASS = 358  # where the residual connections run
TOKENS = ["Do", "you", "have", "time"]
VOCABULARY = json.loads((ROOT / "assets" / "10M" / "hparams.json").read_text(encoding="utf-8"))["n_vocab"]
SCORES = REFERENCE["head"]["outputs"]
PARTS = "tok_emb pos_emb norm1 att add1 norm2 ff add2 final_norm head".split()


@dataclass(frozen=True)
class Picture:
    """One variant.

    Attributes:
        lit: parts in the light, of ``PARTS``, and "blocks", "output"; the others step back.
        lane: whether the last lane is in the light: all of it, or, with ``kept``, what runs in every epoch.
        output: "vocabulary" (the language model), "two" (the classifier), "one" (its last row alone),
            "three" (a classifier of headlines) or "scores" (with the numbers).
        notes: pairs (part, key of a second label that stands in it).
        head: key of the head's label.
        before: key of a label for the blocks before the one that is drawn; "": all are drawn as one.
        loss: whether the loss follows the last row.
        back: whether the gradient goes up from the loss, as far as something is trained.
        kept: whether what enters the last block is kept.
        single: whether only the last lane goes on behind the attention of the last block.
    """

    lit: tuple = ()
    lane: bool = False
    output: str = "vocabulary"
    notes: tuple = ()
    head: str = "head"
    before: str = ""
    loss: bool = False
    back: bool = False
    kept: bool = False
    single: bool = False

    def goes_on(self, i):
        """Whether lane ``i`` leaves the attention of the last block."""
        return not self.single or i == len(LANES) - 1


TRAINED = ("norm1", "att", "add1", "norm2", "ff", "add2", "block", "final_norm", "head")
WEIGHTS = tuple((part, f"weights_{part}") for part in PARTS if not part.startswith("add"))
PICTURES = {
    "model": Picture(),
    "model_weights": Picture(notes=WEIGHTS),
    "model_output": Picture(lit=("head", "output"), lane=True),
    "head_replaced": Picture(lit=("head", "output"), output="two", head="new_head"),
    "last_row": Picture(lit=("output",), lane=True, output="scores"),
    "trainable_parts": Picture(lit=TRAINED, output="two", before="before_frozen"),
    "model_loss": Picture(lit=("output", "loss"), lane=True, output="two", loss=True),
    "model_gradient": Picture(
        lit=(*TRAINED, "loss"), output="two", before="before_no_gradient", loss=True, back=True
    ),
    "three_classes": Picture(lit=TRAINED, output="three", head="new_head_three", before="before_frozen"),
    "fast_paths": Picture(lit=TRAINED, output="two", before="before_read_once", kept=True),
    "one_row": Picture(
        lit=TRAINED, lane=True, output="one", before="before_read_once", kept=True, single=True
    ),
}


class Sketch:
    """A picture while it grows downwards; ``y`` is where the next piece begins."""

    def __init__(self, picture):
        self.picture, self.pieces, self.y = picture, [], 16
        self.centres = {}  # {part: y of its middle}

    def kind(self, *names):
        """The class of a part: lit, dim where another is lit, or neither."""
        if set(names) & set(self.picture.lit):
            return "lit"
        return "dim" if self.picture.lit or self.picture.lane else ""

    def part(self, name, height, inside=(), radius=7):
        """A box over all lanes with its name, a note, and what is drawn inside."""
        y, pieces = self.y, [rect(LEFT, self.y, RIGHT - LEFT, height, "box", radius)]
        baseline = y + (height / 2 + 5 if not inside else 20)
        note = dict(self.picture.notes).get(name)
        own = {"head": self.picture.head, "att": "att_single" if self.picture.single else "att"}
        words = LABELS[own.get(name, name)].format(n=number(VOCABULARY))
        if note:
            pieces.append(text(LEFT + 12, baseline, words))
            pieces.append(text(RIGHT - 12, baseline, LABELS[note], "code end"))
        else:
            pieces.append(text((LEFT + RIGHT) / 2, baseline, words, "middle"))
        pieces += inside
        self.pieces.append(group(pieces, f"part {self.kind(name)}".strip(), name))
        self.centres[name] = y + height / 2
        self.y += height

    def add(self, name, top):
        """The residual connection: what went in at ``top`` comes back by the side and is added."""
        y, height = self.y, 22
        pieces = [
            path(f"M{LANES[-1]} {top:g} H{BYPASS - 8} q8 0 8 8 V{y + 3:g} q0 8 -8 8 H{RIGHT + 7}"),
            tip(RIGHT + 1, y + height / 2, direction="left"),
            f'<circle class="tip" cx="{LANES[-1]}" cy="{top:g}" r="3"/>',
            rect(LEFT, y, RIGHT - LEFT, height, "box", height / 2),
            *(text(x, y + 16, "+", "middle strong") for i, x in enumerate(LANES) if self.picture.goes_on(i)),
        ]
        self.pieces.append(group(pieces, f"part {self.kind(name)}".strip(), name))
        self.y += height


def attention(y, picture):
    """Each lane takes in itself and the lanes to its left; the last one does so in the light, or alone."""
    top, middle, bottom, pieces = y + 30, y + 51, y + 72, []
    for j, end in enumerate(LANES):
        if not picture.goes_on(j):
            continue
        lit = " lit" if picture.lane and j == len(LANES) - 1 else ""
        for start in LANES[: j + 1]:
            steps = f"M{start} {top} C{start} {middle} {end} {middle} {end} {bottom}"
            pieces.append(path(steps, f"line thin{lit}"))
        pieces.append(f'<circle class="mark{lit}" cx="{end}" cy="{bottom}" r="3.5"/>')
    return pieces + [f'<circle class="mark" cx="{x}" cy="{top}" r="3.5"/>' for x in LANES]


def feed_forward(y, picture):
    """Each lane by itself: wider inside."""
    pieces = []
    for i, x in enumerate(LANES):
        if not picture.goes_on(i):
            continue
        steps = (
            f"M{x - 8} {y + 30} H{x + 8} L{x + 22} {y + 39} L{x + 8} {y + 48} H{x - 8} L{x - 22} {y + 39} Z"
        )
        pieces.append(path(steps, "mark"))
    return pieces


def block(sketch):
    """Norm, attention, residual, norm, feed-forward, residual."""
    picture, top = sketch.picture, sketch.y
    sketch.y += 38
    start = sketch.y - 4
    for norm, part, add, height, draw in (
        ("norm1", "att", "add1", 84, attention),
        ("norm2", "ff", "add2", 60, feed_forward),
    ):
        sketch.y += 8
        sketch.part(norm, 26)
        sketch.y += 10
        sketch.part(part, height, draw(sketch.y, picture))
        sketch.y += 10
        sketch.add(add, start)
        sketch.y += 14
        start = sketch.y - 4
    bottom = sketch.y
    behind = (
        []
        if picture.before
        else [rect(28, top - 8, 344, 40, "panel", 12), rect(22, top - 4, 356, 40, "panel", 12)]
    )
    lit = " lit" if "block" in picture.lit else ""
    title = LABELS["last_block"] if picture.before else LABELS["block"]
    sketch.panel = group([*behind, rect(16, top, 368, bottom - top, "panel", 12)], "", "block")
    sketch.pieces.append(text(30, top + 22, title, f"strong halo{lit}"))
    if not picture.before:
        sketch.pieces.append(text(370, top + 22, LABELS["times"], "end muted halo"))


def output(sketch):
    """What comes out below each lane, and what it is, in words."""
    picture, y = sketch.picture, sketch.y
    kind = sketch.kind("output")
    classes = LABELS["headline_classes"] if picture.output == "three" else LABELS["two_classes"]
    height = 32 if picture.output == "vocabulary" else 23 * len(classes)
    for i, x in enumerate(LANES):
        if not picture.goes_on(i):
            continue
        last = picture.lane and i == len(LANES) - 1
        own = kind if kind != "lit" or not picture.lane or last else "dim"
        pieces = []
        if picture.output == "vocabulary":
            heights = [(9, 16, 7, 20, 12), (14, 8, 20, 10, 6), (6, 12, 9, 20, 15), (8, 20, 12, 6, 10)][i]
            pieces += [rect(x - 26, y, 52, 32, "box", 5)]
            pieces += [rect(x - 19 + 8 * k, y + 27 - h, 6, h, "mark", 1) for k, h in enumerate(heights)]
        else:
            pieces += [rect(x - 34, y, 68, height, "box", 5)]
            pieces += [path(f"M{x - 34} {y + 23 * k} H{x + 34}", "line thin") for k in range(1, len(classes))]
            for k, name in enumerate(classes):
                shown = number(SCORES[i][k], 2) if picture.output == "scores" else name
                pieces.append(text(x, y + 16 + 23 * k, shown, "middle small"))
        sketch.pieces.append(group(pieces, own, f"output-{i}"))
    sketch.y += height
    words = LABELS[f"output_{picture.output}"].format(n=number(VOCABULARY))
    sketch.y += 22
    sketch.pieces.append(text((LEFT + RIGHT) / 2, sketch.y, words, "middle muted small"))
    sketch.y += 6


def draw(name):
    picture = PICTURES[name]
    sketch = Sketch(picture)
    chips = []
    for i, (x, word) in enumerate(zip(LANES, TOKENS)):
        own = "lit" if picture.lane and not picture.kept and i == len(LANES) - 1 else ""
        chips.append(
            group([rect(x - 28, sketch.y, 56, 28, "plain", 14), text(x, sketch.y + 19, word, "middle")], own)
        )
    start = sketch.y + 28
    sketch.pieces += chips
    lit_from, sketch.y = start, start + 16
    sketch.part("tok_emb", 30)
    sketch.y += 8
    sketch.part("pos_emb", 30, radius=15)
    sketch.y += 24
    if picture.before:
        sketch.y -= 6
        y = sketch.y
        pieces = [
            rect(LEFT + 6, y, RIGHT - LEFT - 12, 40, "box"),
            rect(LEFT + 3, y + 4, RIGHT - LEFT - 6, 40, "box"),
        ]
        pieces += [
            rect(LEFT, y + 8, RIGHT - LEFT, 40, "box"),
            text((LEFT + RIGHT) / 2, y + 33, LABELS[picture.before], "middle"),
        ]
        sketch.pieces.append(group(pieces, f"part {sketch.kind('blocks')}", "blocks"))
        sketch.y += 48 + 18
    if picture.kept:
        lit_from = y = sketch.y
        sketch.pieces.append(
            group(
                [
                    rect(LEFT - 12, y, RIGHT - LEFT + 24, 34, "plain", 17),
                    text((LEFT + RIGHT) / 2, y + 22, LABELS["kept"], "middle strong"),
                ],
                "",
                "kept",
            )
        )
        sketch.y += 34 + 18
    block(sketch)
    sketch.y += 16
    sketch.part("final_norm", 28)
    sketch.y += 12
    sketch.part("head", 32)
    sketch.y += 16
    end = sketch.y
    output(sketch)
    lanes = []
    for i, x in enumerate(LANES):
        lit = " lit" if picture.lane and i == len(LANES) - 1 else ""
        stop = end if picture.goes_on(i) else sketch.centres["att"] - 12  # the dots from which keys are read
        if lit and picture.kept:
            lanes.append(path(f"M{x} {start:g} V{lit_from:g}"))
        lanes.append(arrow(x, lit_from if lit else start, stop, f"line{lit}"))
    if picture.loss:
        loss(sketch)
    if picture.back:
        gradient(sketch)
    pieces = [sketch.panel, *lanes, *sketch.pieces]
    return drawing(name, pieces, sketch.y + 14)


def loss(sketch):
    """Below the last row."""
    lit = "line lit" if sketch.picture.lane else "line"
    top, sketch.y = sketch.y - 28, sketch.y + 16
    sketch.pieces.append(arrow(LANES[-1], top, sketch.y - 1, lit))
    sketch.part("loss", 34)


def gradient(sketch):
    """The way back, at the side."""
    top, bottom = sketch.centres["norm1"], sketch.centres["loss"]
    sketch.pieces.append(path(f"M{LEFT} {bottom:g} H36 q-8 0 -8 -8 V{top + 8:g} q0 -8 8 -8", "line lit"))
    sketch.pieces.append(tip(LEFT - 1, top, "tip lit", "right"))
    for part in ("att", "norm2", "ff", "final_norm", "head"):
        y = sketch.centres[part]
        sketch.pieces.append(path(f"M28 {y:g} H34", "line lit"))
        sketch.pieces.append(tip(LEFT - 1, y, "tip lit", "right"))


def main():
    for name in PICTURES:
        (FOLDER / f"{name}.svg").write_text(draw(name), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
