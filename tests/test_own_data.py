"""tables.py, own_data.py: what is read, what is found wrong in it, and how it is split."""

import json

import pandas as pd
import pytest

import own_data
from own_data import (
    baseline_accuracies,
    check_leak,
    check_table,
    class_names,
    class_weights,
    even_out,
    prepare,
    stratified_split,
    table_to_measure,
)
from tables import read_table


def rows_of(**counts):
    """Rows of text and label: ``rows_of(a=3)`` has three different texts of the class a."""
    return [(f"{name} says number {i}", name) for name, count in counts.items() for i in range(count)]


def table_of(rows):
    table = pd.DataFrame(rows, columns=["text", "label"], index=range(2, len(rows) + 2), dtype=object)
    table.attrs = {"names": ("text", "label")}
    return table


def quiet(text):
    """Told what was guessed."""


def found(checks, what):
    """The number and the remark of a row of the checks."""
    (row,) = [row[1:] for row in checks.rows if row[0] == what]
    return row


# ---------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------

TEXTS = ["plain", 'with "marks"', "a, comma", "a\ttab", "two\nlines", "Grüße, 好 😀", "NA", "2026"]
LABELS = ["a", "b", "null", "0", "01", "1.0", "True", "a b"]


def write_as(kind, path):
    frame = pd.DataFrame({"text": TEXTS, "label": LABELS})
    if kind in ("csv", "tsv"):
        frame.to_csv(path, index=False, sep={"csv": ",", "tsv": "\t"}[kind])
    elif kind == "jsonl":
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        pytest.importorskip("pyarrow", reason="pandas needs it for Parquet")
        frame.to_parquet(path)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_formats_give_the_same_texts_and_labels(tmp_path, kind):
    path = tmp_path / f"my.{kind}"
    write_as(kind, path)
    table = read_table(path, "text", "label")
    assert table["text"].tolist() == TEXTS and table["label"].tolist() == LABELS


def test_byte_order_mark_windows_line_ends_and_semicolons_are_no_trouble(tmp_path):
    (tmp_path / "my.csv").write_bytes("\ufefftext;label\r\none, two;a\r\n\r\nthree;b\r\n".encode())
    table = read_table(tmp_path / "my.csv", "text", "label")
    assert table.values.tolist() == [["one, two", "a"], ["three", "b"]]


def test_index_is_the_line_of_the_file(tmp_path):
    (tmp_path / "my.csv").write_text('text,label\n"two\nlines",a\n\nnext,b\n')
    assert read_table(tmp_path / "my.csv", "text", "label").index.tolist() == [2, 5]


@pytest.mark.parametrize(
    "header, rows, text",
    [
        (("topic", "headline"), [("a", "x"), ("b", "y")], "headline"),
        (("c1", "c2"), [("first", "a"), ("second", "a"), ("third", "b")], "c1"),
        (("c1", "c2"), [("a", "first"), ("a", "second"), ("b", "third")], "c2"),
        (("Label", "c2"), [("first", "a"), ("second", "a"), ("third", "b")], "c2"),
    ],
)
def test_columns_are_guessed_and_said(write_table, header, rows, text):
    said = []
    table = read_table(write_table(rows, header=header), say=said.append)
    assert table.attrs["names"][0] == text
    assert len(said) == 1 and f"texts are in {text!r}" in said[0] and "guessed" in said[0]


def test_one_named_column_gives_the_other(write_table):
    path = write_table([("first", "a"), ("second", "b")], header=("c1", "c2"))
    assert read_table(path, label_column="c1", say=quiet).attrs["names"] == ("c2", "c1")


BAD = {
    "empty": (b"", "is empty"),
    "header only": (b"text,label\n", "has no rows"),
    "binary": (b"\x89PNG\r\n\x1a\n\0\0\0", "line 1 cannot be decoded"),
    "Latin-1": (b"text,label\ncaf\xe9,a\n", "line 2 cannot be decoded.*iconv"),
    "UTF-16": ("text,label\n".encode("utf-16-le"), "line 1 holds NULs"),
    "NULs": (b"text,label\none,a\nt\0wo,b\n", "line 3 holds NULs"),
    "columns twice": (b"text,label,text\none,a,two\n", "more than one column 'text'"),
    "too few fields": (b"text,label\none,a\ntwo\n", "line 3 has 1 fields, the header 2"),
    "too many fields": (b"text,label\none, two,a\n", "line 2 has 3 fields"),
    "open mark": (b'text,label\none,a\n"two,b\n', "line 3: unexpected end.*doubled"),
    "three columns": (b"id,text,label\n1,one,a\n", "3 columns: 'id', 'text', 'label'.*--text-column"),
}


@pytest.mark.parametrize("content, message", BAD.values(), ids=BAD)
def test_unusable_file_is_named_with_its_line(tmp_path, content, message):
    (tmp_path / "my.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"my.csv.*{message}"):
        read_table(tmp_path / "my.csv", say=quiet)


@pytest.mark.parametrize(
    "line, message",
    [
        ("{'text': 1}", "line 2: Expecting property name"),
        ("[1, 2]", "line 2: it is no object"),
        ('{"text": "a", "text": "b", "label": "c"}', "line 2: a name stands twice"),
    ],
)
def test_line_that_is_no_record_is_named(tmp_path, line, message):
    (tmp_path / "my.jsonl").write_text(json.dumps({"text": "a", "label": "b"}) + "\n" + line)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "my.jsonl", say=quiet)


def test_missing_values_are_empty_texts(tmp_path):
    (tmp_path / "my.jsonl").write_text('{"text": null, "label": "b"}\n{"label": 1.5, "text": "NaN"}\n')
    table = read_table(tmp_path / "my.jsonl", "text", "label")
    assert table.values.tolist() == [["", "b"], ["NaN", "1.5"]]


@pytest.mark.parametrize(
    "columns, message",
    [(("body", "label"), "no column 'body'. It has: 'text', 'label'"), (("text", "text"), "cannot be both")],
)
def test_wrong_column_is_named(write_table, columns, message):
    with pytest.raises(ValueError, match=message):
        read_table(write_table(rows_of(a=1)), *columns)


@pytest.mark.parametrize("given", [{"text_column": "body"}, {"label_column": "body"}])
def test_missing_column_is_named_where_the_other_is_guessed(write_table, given):
    with pytest.raises(ValueError, match="no column 'body'"):
        read_table(write_table(rows_of(a=1)), **given)


def test_unknown_format_and_missing_file_are_named(tmp_path):
    (tmp_path / "my.xlsx").write_bytes(b"PK")
    with pytest.raises(ValueError, match="my.xlsx: .* Known: .csv .tsv"):
        read_table(tmp_path / "my.xlsx")
    with pytest.raises(FileNotFoundError, match="no file .*none.csv"):
        read_table(tmp_path / "none.csv")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    def missing(path):
        raise ImportError("no engine")

    monkeypatch.setattr(pd, "read_parquet", missing)
    (tmp_path / "my.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="pip install pyarrow"):
        read_table(tmp_path / "my.parquet")


# ---------------------------------------------------------------------------------
# Checks
# ---------------------------------------------------------------------------------


def test_nothing_is_wrong_with_a_good_table():
    table, checks = check_table(table_of(rows_of(a=5, b=6)), 16)
    assert len(table) == 11 and checks.problems == []
    assert found(checks, "rows")[0] == "11" and found(checks, "classes") == ("2", "b 6, a 5")


def test_empty_texts_duplicates_and_contradictions_are_found_and_left_out():
    rows = rows_of(a=40, b=40)
    rows += [(" ", "a"), ("A  SAYS number 3", "a"), ("b says number 7", "a"), ("new", "b")]
    table, checks = check_table(table_of(rows), 16)
    assert found(checks, "empty texts") == ("1", "left out: line 82")
    assert found(checks, "duplicates") == ("1", "the first of each stays: line 83")
    assert found(checks, "same text, two labels") == ("2", "left out: lines 49, 84")
    assert checks.problems == []
    assert len(table) == 80 and table.index.isin([82, 83, 49, 84]).sum() == 0


PROBLEMS = {
    "case": (rows_of(a=5) + [("x", "A"), ("y", "A")], "spaces only: \\['a', 'A'\\]; 'A' in lines 7, 8"),
    "spaces": (rows_of(a=5, b=3) + [("x", " a"), ("y", " a")], "differ in case or spaces only"),
    "one example": (rows_of(a=5, b=1), "1 of 2 classes have one example: line 7"),
    "no label": (rows_of(a=5, b=5) + [("one", " ")], "rows without a label: line 12"),
    "contradictions": (rows_of(a=5, b=5) + [("a says number 1", "b")], "another label: lines 3, 12"),
    "empty texts": (rows_of(a=3, b=3) + [("", "a")] * 3, "3 of 9 texts are empty: lines 8, 9, 10"),
}


@pytest.mark.parametrize("rows, message", PROBLEMS.values(), ids=PROBLEMS)
def test_problem_is_named_with_its_lines(rows, message):
    _, checks = check_table(table_of(rows), 16)
    assert len(checks.problems) == 1
    with pytest.raises(ValueError, match=message):
        raise ValueError(checks.problems[0])


def test_one_class_cannot_be_learned():
    with pytest.raises(ValueError, match="column 'label' holds 1 class. Needed: at least two"):
        check_table(table_of(rows_of(a=5)), 16)


def test_labels_that_are_texts_are_too_many():
    with pytest.raises(ValueError, match="1,001 different labels for 1,001 rows.*--label-column"):
        check_table(table_of([(f"text {i}", f"label {i}") for i in range(1001)]), 16)


def test_as_many_classes_as_examples_have_one_each():
    _, checks = check_table(table_of([(f"text {i}", f"label {i}") for i in range(12)]), 16)
    where = "lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more"
    assert checks.problems == [f"12 of 12 classes have one example: {where}"]


def test_label_with_a_tab_is_refused():
    with pytest.raises(ValueError, match="label 'a\\\\tb' holds a tab"):
        check_table(table_of([*rows_of(a=3), ("x", "a\tb"), ("y", "a\tb")]), 16)


def test_header_that_is_data_is_found(write_table):
    path = write_table(rows_of(spam=5, ham=5), header=("win now", "spam"))
    _, checks = prepare(path, say=quiet)
    assert "the first line, 'win now' and 'spam', looks like data" in checks.problems[0]


def test_share_of_cut_texts_is_said():
    rows = rows_of(a=5, b=4) + [("time " * 3000, "b")]
    _, checks = check_table(table_of(rows), 1024)
    assert found(checks, "cut at 1024 tokens") == ("10.0%", "half have up to 4 tokens, the longest 3,001")


def test_leak_is_found():
    checks = own_data.Checks()
    test = table_of([("new", "a"), ("A says  number 2", "a"), ("b says number 0", "b")])
    check_leak(table_of(rows_of(a=5, b=5)), test, checks)
    assert found(checks, "test texts in training too") == ("2", "lines 3, 4")
    assert checks.problems == ["texts of the test are in the training table too: lines 3, 4 of the test"]


def test_test_with_other_labels_is_refused():
    with pytest.raises(ValueError, match="does not know: 'c', line 2. It knows 'a', 'b'"):
        check_leak(table_of(rows_of(a=5, b=5)), table_of([("new", "c")]), own_data.Checks())


# ---------------------------------------------------------------------------------
# Splitting and balancing
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [{"a": 70, "b": 30}, {"a": 3, "b": 3, "c": 400}])
def test_split_has_the_shares_of_each_class(counts):
    table = table_of(rows_of(**counts))
    parts = stratified_split(table, (0.2, 0.1), seed=1)
    assert sorted(line for part in parts for line in part.index) == table.index.tolist()
    for name, count in counts.items():
        sizes = [(part["label"] == name).sum() for part in parts]
        assert sizes[1:] == [max(1, round(0.2 * count)), max(1, round(0.1 * count))] and min(sizes) >= 1


def test_split_depends_on_the_seed_alone():
    table = table_of(rows_of(a=20, b=20))
    splits = [stratified_split(table, (0.2,), seed)[1].index.tolist() for seed in (1, 1, 2)]
    assert splits[0] == splits[1] != splits[2]


def test_own_split_has_no_text_in_two_sets(write_table):
    sets, _ = prepare(write_table(rows_of(a=20, b=20) * 2), say=quiet)
    texts = [set(part["text"]) for part in sets.values()]
    assert sum(map(len, texts)) == len(set.union(*texts)) == 40


def test_too_few_rows_for_three_sets(write_table):
    with pytest.raises(ValueError, match="too few rows for a validation set"):
        prepare(write_table(rows_of(a=2, b=2)), say=quiet)


def test_test_file_without_labels_is_named(write_table):
    test = write_table([("new", ""), (" ", "a")], "test.csv")
    with pytest.raises(ValueError, match="test.csv has no row with a text and a label"):
        prepare(write_table(rows_of(a=20, b=20)), test, say=quiet)


def test_imbalance_is_evened_out_and_said():
    table = table_of(rows_of(a=50, b=5))
    kept, sentence = even_out(table, "keep", 1)
    assert len(kept) == 55 and "largest class has 50 training texts, the smallest 5" in sentence
    balanced, sentence = even_out(table, "balance", 1)
    assert balanced["label"].value_counts().to_dict() == {"a": 5, "b": 5} and "leaving out" in sentence
    weighted, sentence = even_out(table, "weights", 1)
    assert len(weighted) == 55 and "weights in the loss" in sentence
    assert class_weights([0] * 50 + [1] * 5, 2).tolist() == pytest.approx([0.55, 5.5])


def test_classes_are_in_order_of_numbers_or_letters():
    assert class_names(table_of([("", "10"), ("", "9"), ("", "-1")])) == ["-1", "9", "10"]
    assert class_names(table_of([("", "b"), ("", "a"), ("", "10")])) == ["10", "a", "b"]


def test_baselines_are_the_largest_class_and_tf_idf():
    rows = rows_of(tea=30, milk=20)
    assert baseline_accuracies(table_of(rows), table_of(rows)) == {"largest class": 0.6, "TF-IDF": 1.0}
    assert baseline_accuracies(table_of([("!", "tea"), ("?", "milk")]), table_of(rows)).keys() == {
        "largest class"
    }


def test_trained_file_is_measured_on_its_test_set(write_table):
    path, said = write_table(rows_of(a=20, b=20)), []
    sets, _ = prepare(path, seed=7, say=quiet)
    facts = {"sha256": own_data.sha256_of(path), "seed": 7, "columns": ["text", "label"]}
    settings = {"max_length": 16, "data": "my.csv", "training": {**facts, "separate_test": False}}
    table, which = table_to_measure(str(path), (None, None), settings, said.append)
    assert table["text"].tolist() == sets["test"]["text"].tolist() and "test set of my.csv" in which
    settings["training"]["separate_test"] = True
    table, which = table_to_measure(str(path), (None, None), settings, said.append)
    assert len(table) == 40 and "was trained on my.csv" in said[1]
