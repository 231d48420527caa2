"""The drawings beside the model: the causal mask, the way from scores to label and loss, the map of the book.

python book/figures/draw_others.py
"""

import math

from drawing import FOLDER, LABELS, REFERENCE, WIDTH, WORDS, arrow, drawing, group, number, path, rect, text

TOKENS = ["Do", "you", "have", "time"]
MIDDLE = WIDTH / 2
MAPS = {  # name: the lessons in the light
    "three_stages": [],
    "three_stages_training": ["08"],
}


def causal_mask():
    """One row for each token that reads, one column for each that is read."""
    left, top, side = 118, 78, 58
    pieces = [
        text(left + 2 * side, 34, LABELS["mask_columns"], "middle muted small"),
        text(left - 16, 60, LABELS["mask_rows"], "end muted small"),
    ]
    for i, row in enumerate(TOKENS):
        y = top + i * side
        last = i == len(TOKENS) - 1
        cells = [text(left - 16, y + 33, row, "end")]
        for j, _ in enumerate(TOKENS):
            x, seen = left + j * side, j <= i
            cells.append(rect(x + 2, y + 2, side - 4, side - 4, "box" if seen else "plain thin", 6))
            if seen:
                cells.append(f'<circle class="mark" cx="{x + side / 2}" cy="{y + side / 2}" r="7"/>')
            else:
                a, b = x + side / 2 - 5, y + side / 2 - 5
                cells.append(path(f"M{a} {b} l10 10 m0 -10 l-10 10", "line thin"))
        pieces.append(group(cells, "lit" if last else "", f"row-{i}"))
    pieces += [text(left + (j + 0.5) * side, 60, word, "middle") for j, word in enumerate(TOKENS)]
    end = top + 4 * side
    pieces.append(f'<circle class="mark" cx="78" cy="{end + 28}" r="6"/>')
    pieces.append(text(92, end + 33, LABELS["mask_seen"], "small"))
    pieces.append(path(f"M206 {end + 23} l10 10 m0 -10 l-10 10", "line"))
    pieces.append(text(224, end + 33, LABELS["mask_hidden"], "small"))
    return drawing("causal_mask", pieces, end + 54)


def pair(y, values, words, lit=None):
    """Two boxes beside each other, one for each class."""
    pieces = []
    for k, (value, word) in enumerate(zip(values, words)):
        x = MIDDLE - 150 + 155 * k
        box = [rect(x, y, 145, 50, "box"), text(x + 72, y + 20, word, "middle small")]
        box.append(text(x + 72, y + 40, value, "middle strong"))
        pieces.append(group(box, "lit" if k == lit else "", f"class-{k}"))
    return pieces


def scores_to_label():
    """Scores, softmax, probabilities; the larger one is the label, the right one gives the loss."""
    scores = REFERENCE["head"]["outputs"][-1]
    chance = 1 / (1 + math.exp(scores[0] - scores[1]))
    classes = LABELS["two_classes"]
    label = int(scores[1] > scores[0])
    assert label == REFERENCE["head"]["class_label_of_last_token"]
    right, centres = ["0", "1"], (MIDDLE - 78, MIDDLE + 77)
    pieces = [text(MIDDLE, 30, LABELS["last_scores"], "middle muted small")]
    pieces += pair(42, [number(score, 4) for score in scores], classes)
    pieces += [arrow(x, 92, 110) for x in centres]
    pieces += [rect(50, 111, 300, 34, "plain", 17), text(MIDDLE, 133, LABELS["softmax"], "middle strong")]
    pieces += [arrow(x, 145, 163) for x in centres]
    pieces += pair(164, [number(1 - chance, 4), number(chance, 4)], classes, lit=label)
    pieces.append(text(MIDDLE, 234, LABELS["probabilities"], "middle muted small"))
    pieces.append(text(50, 274, LABELS["argmax"]))
    pieces.append(group([text(350, 274, f"{right[label]}, {classes[label]}", "end strong")], "lit"))
    for k, p in enumerate([1 - chance, chance]):
        y = 304 + 28 * k
        pieces.append(text(50, y, LABELS["loss_if"].format(name=classes[k])))
        pieces.append(text(350, y, number(-math.log(p), 4), "end strong"))
    pieces += [path(f"M50 {y} H350", "line thin") for y in (252, 284)]
    return drawing("scores_to_label", pieces, 354)


def book_map(name):
    """The lessons in their order, in three stages."""
    pieces, y = [], 16
    for stage in WORDS["stages"]:
        height = 40 + 36 * len(stage["lessons"]) + 6
        pieces.append(rect(16, y, 368, height, "panel", 12))
        pieces.append(text(32, y + 27, stage["title"], "strong"))
        for i, (lesson, title) in enumerate(stage["lessons"].items()):
            top = y + 40 + 36 * i
            lit = "lit" if lesson in MAPS[name] else "dim" if MAPS[name] else ""
            row = [
                rect(28, top, 344, 30, "box"),
                text(42, top + 20, lesson, "code"),
                text(74, top + 20, title),
            ]
            pieces.append(group(row, lit, f"lesson-{lesson}"))
        y += height
        if stage is not WORDS["stages"][-1]:
            pieces.append(arrow(MIDDLE, y, y + 18))
            y += 18
    return drawing(name, pieces, y + 16)


def main():
    drawings = {"causal_mask": causal_mask(), "scores_to_label": scores_to_label()}
    for name, svg in (drawings | {name: book_map(name) for name in MAPS}).items():
        (FOLDER / f"{name}.svg").write_text(svg, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
