"""The accuracies on the title page are those of the stored findings."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_title_page_names_the_measured_accuracies():
    findings = json.loads((ROOT / "results" / "findings.json").read_text(encoding="utf-8"))
    page = (ROOT / "book" / "intro.md").read_text(encoding="utf-8")
    for row in ("last-token", "tf-idf-best"):
        accuracy, low, high = findings["gpt2-mini (10M)"]["sample"]["accuracies"][row]["test"]
        assert f"{100 * accuracy:.1f} %" in page and f"{100 * low:.1f} to {100 * high:.1f})" in page
