"""assets/headlines.csv, the headlines written for lesson 12, and the export with planted problems."""

import re
from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest

from tools import plant_problems

ASSETS = plant_problems.ASSETS
LABELS = ["politics", "sports", "technology"]


@pytest.fixture(scope="module")
def df():
    return pd.read_csv(ASSETS / "headlines.csv")


def test_there_are_600_distinct_headlines_of_each_class(df):
    assert df.label.value_counts().to_dict() == dict.fromkeys(LABELS, 600)
    assert df.notna().all(axis=None) and df.text.str.lower().nunique() == len(df)
    assert [text for text in df.text if text != text.strip() or "\n" in text] == []


def test_no_two_headlines_are_near_duplicates(df):
    # near duplicates share more than half of their 5-character sequences (Jaccard index)
    texts = [re.sub(r"\W+", " ", text.lower()) for text in df.text]
    sequences = [{text[i : i + 5] for i in range(len(text) - 4)} for text in texts]
    headlines_with = defaultdict(list)
    for number, found in enumerate(sequences):
        shared = defaultdict(int)
        for sequence in found:
            for other in headlines_with[sequence]:
                shared[other] += 1
            headlines_with[sequence].append(number)
        for other, n in shared.items():
            assert 2 * n <= len(found | sequences[other]), (texts[number], texts[other])


def test_length_says_little_about_the_class(df):
    medians = df.text.str.len().groupby(df.label).median()
    assert medians.max() - medians.min() <= 6


def test_export_is_what_the_script_makes_of_the_clean_table(tmp_path, df):
    df.to_csv(tmp_path / "headlines.csv", index=False)
    plant_problems.main(tmp_path)
    for name in ("headlines_export.csv", "headlines_planted.csv"):
        assert (tmp_path / name).read_bytes() == (ASSETS / name).read_bytes()


def test_export_that_is_not_written_whole_stays_as_it_was(tmp_path, df, monkeypatch):
    def write_half(table, path, **options):
        Path(path).write_text("label,te")
        raise OSError("the disk is full")

    df.to_csv(tmp_path / "headlines.csv", index=False)
    (tmp_path / "headlines_export.csv").write_text("former")
    monkeypatch.setattr(pd.DataFrame, "to_csv", write_half)
    with pytest.raises(OSError, match="full"):
        plant_problems.main(tmp_path)
    assert (tmp_path / "headlines_export.csv").read_text() == "former"


def test_what_was_planted_is_in_the_export(df):
    lines = (ASSETS / "headlines_export.csv").read_text("utf-8").splitlines()
    export = pd.read_csv(ASSETS / "headlines_export.csv", keep_default_na=False)
    assert len(lines) == len(export) + 1  # no text has a line of its own: line numbers are row numbers
    planted = pd.read_csv(ASSETS / "headlines_planted.csv")
    assert planted.problem.value_counts().to_dict() == plant_problems.COPIES | plant_problems.CHANGES
    rows = export.loc[planted.line - 2].reset_index(drop=True)
    same = rows.label == planted.right_label
    wrong = planted.problem.isin(["wrong label", "two labels", "label written otherwise"])
    assert (same == ~wrong).all()
    assert (rows.label.str.strip().str.lower() == planted.right_label)[
        planted.problem == "label written otherwise"
    ].all()
    assert set(rows.text[planted.problem == "empty text"]) == {""}
    others = export.drop(planted.line - 2)
    assert set(zip(others.label, others.text)) <= set(zip(df.label, df.text))
