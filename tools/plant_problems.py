"""Make a table as real ones are: ``assets/headlines.csv`` with problems planted in it.

    python tools/plant_problems.py

writes ``assets/headlines_export.csv``, which lesson 12 puts through the checks of
``text_classifier.py``, and ``assets/headlines_planted.csv``, which says what was planted where:
the line of the export (the header is line 1), the problem, and the label that is right.
"""

import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from files import atomic_file  # noqa: E402

ASSETS = ROOT / "assets"
SEED = 12
COPIES = {"duplicate": 14, "duplicate but for case": 6, "two labels": 8}
CHANGES = {"wrong label": 40, "label written otherwise": 30, "empty text": 5}


def other_label(label):
    """A wrong label: the next one in the alphabet, the first after the last."""
    labels = ["politics", "sports", "technology"]
    return labels[(labels.index(label) + 1) % len(labels)]


def plant(clean, seed=SEED):
    """Plant the problems: a clean table (label, text) -> the export, and what was planted where.

    Each row gets one problem at most. Copies stand anywhere in the export, so a split by row
    puts some of them on both sides.
    """
    order = clean.sample(frac=1, random_state=seed)
    counts = COPIES | CHANGES
    ends = pd.Series(counts).cumsum()
    rows = {name: order.iloc[ends[name] - n : ends[name]].copy() for name, n in counts.items()}
    for name, part in rows.items():
        part["problem"], part["right_label"] = name, part["label"]

    rows["duplicate but for case"]["text"] = rows["duplicate but for case"]["text"].str.upper()
    rows["two labels"]["label"] = rows["two labels"]["label"].map(other_label)
    rows["wrong label"]["label"] = rows["wrong label"]["label"].map(other_label)
    rows["label written otherwise"]["label"] = rows["label written otherwise"]["label"].str.title() + " "
    rows["empty text"]["text"] = ""

    changed = pd.concat([rows[name] for name in CHANGES])
    kept = clean.drop(changed.index)  # of a copied row, the original stays
    export = pd.concat([kept, changed, *(rows[name] for name in COPIES)])
    export = export.sample(frac=1, random_state=seed).reset_index(drop=True)
    planted = export[export["problem"].notna()][["problem", "right_label"]]
    planted.insert(0, "line", planted.index + 2)
    return export[["label", "text"]], planted


def main(folder=ASSETS):
    """Write both files."""
    export, planted = plant(pd.read_csv(folder / "headlines.csv"))
    for name, table in (("headlines_export.csv", export), ("headlines_planted.csv", planted)):
        with atomic_file(folder / name) as partial:
            table.to_csv(partial, index=False, lineterminator="\n")
    print(f"{len(export)} rows, {len(planted)} with a problem")


if __name__ == "__main__":
    sys.exit(main())
