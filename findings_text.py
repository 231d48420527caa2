"""The findings of the experiments in words: what is clear, not decided, or published otherwise."""

import numpy as np

from reference_results import published


def published_difference(row, other, keys):
    """Published difference of two rows in test accuracy, and twice its standard error, or None."""
    if row not in keys or other not in keys:
        return None
    p, q = (published(f"experiments_test_accuracy_percent.{keys[r]}") / 100 for r in (row, other))
    return p - q, 2 * np.sqrt((p * (1 - p) + q * (1 - q)) / 300)  # 300 messages, one run each


def differs_from_published(line, keys):
    """What to say where two differences, ours and the published one, lie further apart than luck puts them.

    That is twice the standard error of their difference; half of our 95 % interval counts as twice ours.
    """
    found = published_difference(line["row"], line["against"], keys)
    if found is None:
        return None
    (theirs, two_errors), (ours, low, high) = found, line["difference"]
    if abs(ours - theirs) <= np.hypot(two_errors, (high - low) / 2):
        return None
    return f"published {100 * theirs:+.1f} points, give or take {100 * two_errors:.1f}"


def as_text(triple, scale=100, digits=1):
    """A value with its interval, as percent where nothing else is said."""
    value, low, high = (scale * number for number in triple)
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def print_accuracies(accuracies, notes):
    """Print a line for each row: its accuracy, and what a reader must know about it."""
    print("\nTest accuracy in percent (95 % interval over messages and seeds)")
    for row, found in accuracies.items():
        remarks = [f"seeds {found['did not converge']} DID NOT CONVERGE"] if found["did not converge"] else []
        if found["rate at the end of the ladder"]:
            remarks.append("chosen rate is the lowest or highest tried")
        remarks += [notes[row]] if row in notes else []
        print("; ".join([f"  {row:21} {as_text(found['test'])}", *remarks]))


def sort_comparisons(lines, keys):
    """The comparisons, sorted by what they can carry: {title: lines}. A line may stand in two groups."""
    return {
        "Clear": [line for line in lines if line["verdict"] != "not decided"],
        "Not decided": [line for line in lines if line["verdict"] == "not decided"],
        "Different from the published run": [line for line in lines if differs_from_published(line, keys)],
    }


def print_comparisons(lines, keys):
    """Print the comparisons, sorted by what they can carry."""
    for title, group in sort_comparisons(lines, keys).items():
        print(f"\n{title}{'' if group else ': none'}")
        for line in group:
            word = {"better": "above", "worse": "below"}.get(line["verdict"], "against")
            points = f"{as_text(line['difference'])} points, p {line['adjusted p']:.4f}"
            remark = f"; {differs_from_published(line, keys)}" if title.startswith("Different") else ""
            print(f"  {line['row']:21} {word:7} {line['against']:16} {points}{remark}")


def print_use(found):
    """Print how the rows in use do on the other collection, at the real share, and on disguised spam."""
    for row, other in found["other collection"].items():
        real = found["real share"][row]
        area, precision = (as_text(other[k], 1, 3) for k in ("area under the ROC curve", "average precision"))
        print(f"\n{row}\n  other collection: area under the ROC curve {area}, average precision {precision}")
        for name in [key for key in other if isinstance(other[key], dict)]:
            flagged, spam = as_text(other[name]["share flagged"]), 100 * other["share of spam"]
            print(f"  flagged there, {name}: {flagged} % (spam is {spam:.1f} %)")
        nothing = 1000 * real["share of spam"]
        print(f"  cost of 1,000 at the real share, where flagging nothing costs {nothing:.1f}")
        for name in ("threshold 0.5", "cheapest on validation", "calibrated, threshold 10/11"):
            print(f"    {name}: {as_text(real[name]['cost of 1,000'], 1)}")
        recalls = (f"{variant} {as_text(recall)}" for variant, recall in found["disguised spam"][row].items())
        print(f"  spam found, in percent: {', '.join(recalls)}")


def print_findings(found, keys, notes):
    """Print the findings of one model and data set."""
    print_accuracies(found["accuracies"], notes)
    print("\nDifferences in test accuracy, 95 % interval, p with Holm's correction over each table")
    curves = found["learning curves"]
    print_comparisons(found["comparisons"] + curves["comparisons"] + curves["pretraining"], keys)
    print_use(found)
