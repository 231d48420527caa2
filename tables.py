"""Read a table of texts and labels: CSV, TSV, JSON Lines or Parquet.

The first three are read line by line, so that an error names its line and a file of any size fits; Parquet
is read by pandas. A table is a DataFrame with the columns ``text`` and ``label``, both str, and the line of
the file (Parquet: the row) as its index. pandas is imported where it is needed: classify does without.
"""

import csv
import json
from itertools import chain
from pathlib import Path

import edition  # noqa: F401 - tiktoken needs no network

LONGEST_FIELD = 1 << 24  # characters
SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
JSON_LINES, PARQUET = (".jsonl", ".ndjson"), (".parquet", ".pq")
FORMATS = (*SEPARATORS, *JSON_LINES, *PARQUET)
TEXT_NAMES = "text message headline title sentence content body question request review comment".split()
LABEL_NAMES = "label class category topic target intent sentiment".split()

# ---------------------------------------------------------------------------------
# Records
# ---------------------------------------------------------------------------------


def decode(line, number, where):
    """A line of bytes as text, without a byte-order mark, or ``ValueError``."""
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where} is not a text in UTF-8: line {number} cannot be decoded. Where the encoding is "
            "another one, convert the file first: iconv -f LATIN1 -t UTF-8 OLD > NEW"
        ) from error
    if "\0" in text:
        raise ValueError(f"{where} is not a text in UTF-8: line {number} holds NULs, perhaps of UTF-16.")
    return text


def decoded_lines(path):
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            yield decode(line, number, path)


def csv_rows(path, separator):
    """Yield the line where a row begins and its fields, the header first; blank lines are skipped."""
    lines = decoded_lines(path)
    first = next(lines, "")
    if separator == "," and ";" in first and "," not in first:  # as spreadsheets write it in many countries
        separator = ";"
    reader, start = csv.reader(chain([first], lines), delimiter=separator, strict=True), 1
    former = csv.field_size_limit(LONGEST_FIELD)  # holds for all readers of this process
    try:
        for row in reader:
            if row:
                yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {start}: {error}. A text that contains a quotation mark, the separator or a line "
            'end stands in quotation marks, and its own are doubled: "say ""hi"", please"'
        ) from error
    finally:
        csv.field_size_limit(former)


def csv_records(path, separator):
    """Yield (line, {column: field}) of a CSV or TSV file; each row must have as many fields as the header."""
    rows = csv_rows(path, separator)
    _, header = next(rows, (0, []))
    names = [name.strip() for name in header]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path} has more than one column {twice[0]!r}. Rename all but one.")
    for line, row in rows:
        if len(row) != len(names):
            raise ValueError(
                f"{path}, line {line} has {len(row)} fields, the header {len(names)}. A text that contains "
                f"the separator {separator!r} stands in quotation marks."
            )
        yield line, dict(zip(names, row))


def json_records(path):
    """Yield (line, {column: value}) of a JSON Lines file; blank lines are skipped."""

    def without_duplicates(pairs):
        record = dict(pairs)
        if len(record) < len(pairs):
            raise ValueError("a name stands twice")
        return record

    for number, line in enumerate(decoded_lines(path), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=without_duplicates)
            if not isinstance(record, dict):
                raise ValueError("it is no object")
        except ValueError as error:
            raise ValueError(
                f'{path}, line {number}: {error}. Expected in each line: {{"text": "…", "label": "…"}}'
            ) from error
        yield number, record


def parquet_records(path):
    """Yield (row, {column: value}) of a Parquet file."""
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except ImportError as error:
        raise ValueError("To read Parquet, pandas needs pyarrow: .venv/bin/pip install pyarrow") from error
    except Exception as error:  # pyarrow has its own kinds
        raise ValueError(f"{path} is damaged or no Parquet file: {error}") from error
    yield from enumerate(frame.to_dict("records"), start=1)


def records_in(path):
    """Yield (line, record) of a table of any format, as they are read. ``ValueError`` names file and line."""
    suffix = Path(path).suffix.lower()
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if Path(path).stat().st_size == 0:
        raise ValueError(f"{path} is empty.")
    if suffix in SEPARATORS:
        return csv_records(path, SEPARATORS[suffix])
    if suffix in JSON_LINES:
        return json_records(path)
    if suffix in PARQUET:
        return parquet_records(path)
    raise ValueError(f"{path}: the end of the name does not tell the format. Known: {' '.join(FORMATS)}")


# ---------------------------------------------------------------------------------
# Texts and labels
# ---------------------------------------------------------------------------------


def as_text(value):
    """What stands in a field, as a str: a missing value is empty, a number its digits."""
    if value is None or value != value:  # NaN
        return ""
    return str(value)


def read_table(path, text_column=None, label_column=None, say=print):
    """Read texts and labels.

    Args:
        path (str or Path): the file.
        text_column, label_column (str): names of columns; guessed where the table has two.
        say (callable): told what was guessed.

    Returns:
        pandas.DataFrame: ``text`` and ``label``, both str, by the line of the file.

    Raises:
        FileNotFoundError, ValueError: if there is no such table or column; with file and line.
    """
    import pandas as pd

    lines, records = [], []
    for line, record in records_in(path):
        lines.append(line)
        records.append(record)
    if not records:
        raise ValueError(f"{path} has no rows below its header. Expected: a line of names, then data.")
    columns = list(dict.fromkeys(name for record in records for name in record))
    if text_column is None or label_column is None:
        text_column, label_column = guess_columns(path, columns, records, text_column, label_column, say)
    for name in (text_column, label_column):
        if name not in columns:
            raise ValueError(f"{path} has no column {name!r}. It has: {', '.join(map(repr, columns))}.")
    if text_column == label_column:
        raise ValueError(f"{text_column!r} cannot be both, text and label.")
    texts = [as_text(record.get(text_column)) for record in records]
    labels = [as_text(record.get(label_column)) for record in records]
    table = pd.DataFrame({"text": texts, "label": labels}, index=lines, dtype=object)
    table.attrs = {"names": (text_column, label_column)}
    return table


def guess_columns(path, columns, records, text_column, label_column, say):
    """The names of the two columns: by usual names, else the label is what repeats itself more."""
    if len(columns) != 2:
        raise ValueError(
            f"{path} has {len(columns)} columns: {', '.join(map(repr, columns))}. Say which holds what: "
            "--text-column NAME --label-column NAME"
        )
    given = text_column or label_column
    if given is not None and given not in columns:
        return given, given  # named as missing by the caller

    def looks_like_text(name):
        values = [as_text(record.get(name)) for record in records]
        usual = (name.lower() in TEXT_NAMES) - (name.lower() in LABEL_NAMES)
        return usual, len(set(values)), sum(map(len, values))

    if given is None:
        text_column = max(columns, key=looks_like_text)
    text_column = text_column or next(name for name in columns if name != label_column)
    label_column = label_column or next(name for name in columns if name != text_column)
    say(f"Columns: the texts are in {text_column!r}, the labels in {label_column!r} (guessed).")
    return text_column, label_column
