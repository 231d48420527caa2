"""Messages in and results out, as they come: what is classified does not stay in memory."""

import contextlib
import csv
import io
import json
import os
import re
import stat
import sys
from itertools import islice

from tqdm import tqdm

from tables import as_text, decode, records_in

BATCH_SIZE = 32  # messages that are classified at once
READ_SIZE, MAX_LINE = 1 << 16, 1 << 20  # bytes of a file of messages: read at once, and of one message


def in_batches(texts):
    texts = iter(texts)
    while batch := list(islice(texts, BATCH_SIZE)):
        yield batch


def read_messages(file_name, text_column=None):
    """Open a file (``"-"``: the standard input), a table or a message a line; yields lists of messages."""
    if file_name == "-":
        return messages_in(sys.stdin.buffer, "The standard input")
    if text_column is not None:
        return with_bar(in_batches(texts_of_table(file_name, text_column)))
    file = open(file_name, "rb")
    return with_bar(messages_in(file, file_name), file)


def with_bar(batches, file=None):
    """Pass lists of messages on, with a progress bar: of the bytes of an open file, else of the messages."""
    if file and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file = None  # a pipe: nobody knows how many bytes it has, nor the place in it
    size = os.fstat(file.fileno()).st_size if file else None
    hidden = sys.stdout.isatty() or not sys.stderr.isatty()  # or it would stand among the results
    unit = {"unit": "B", "unit_scale": True} if file else {"unit": " texts"}
    with tqdm(total=size, desc="Classify", leave=False, disable=hidden, **unit) as bar:
        for batch in batches:
            yield batch
            bar.update(file.tell() - bar.n if file else len(batch))


def texts_of_table(path, text_column):
    """Yield the texts of one column of a table, line by line."""
    line = None
    for line, record in records_in(path):
        if text_column not in record:
            raise ValueError(f"{path}, line {line} has no {text_column!r}, only {', '.join(record)}.")
        yield as_text(record[text_column])
    if line is None:
        raise ValueError(f"{path} has no rows.")


def messages_in(file, where):
    """Yield lists of messages, one a line in UTF-8, as they arrive; blank lines are skipped."""
    number, rest, found, chunk = 0, b"", False, None
    while chunk != b"":
        chunk = file.read1(READ_SIZE)  # waits for some bytes, not for so many
        *lines, rest = (rest + chunk).split(b"\n")
        if chunk == b"":
            lines = [rest]
        elif len(rest) > MAX_LINE:
            raise ValueError(f"{where}: line {number + len(lines) + 1} is longer than {MAX_LINE:,} bytes.")
        texts = []
        for line in lines:
            number += 1
            text = decode(line, number, where).removesuffix("\r")
            if text.strip():
                texts.append(text)
        found = found or bool(texts)
        yield from in_batches(texts)
    if not found:
        raise ValueError(f"{where} has no messages.")


FORMATS = ("tsv", "jsonl", "csv")


def result_line(label, probability, text, format=None):
    """One result as a line: label, probability, text.

    Without a format it is for reading: a tab between the three, and the lines of a text joined. The formats
    give the text back exactly, TSV and CSV to ``csv`` and pandas.
    """
    if format == "jsonl":
        result = {"label": label, "probability": round(probability, 4), "text": text}
        return json.dumps(result, ensure_ascii=False)
    if format is None:
        line = " ".join(text.splitlines())
        return f"{label}\t{probability:.4f}\t{harmless(line) if sys.stdout.isatty() else line}"
    line = io.StringIO()
    writer = csv.writer(line, delimiter={"tsv": "\t", "csv": ","}[format])
    writer.writerow([label, f"{probability:.4f}", text])
    return line.getvalue().removesuffix("\r\n")


def begin_results(format):
    """Let the standard output take any text in UTF-8 as it is; a CSV file begins with its header."""
    if format is None:
        return
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    if format == "csv":
        print("label,probability,text")


CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def harmless(text):
    """Control characters by their codes, so that a message cannot steer the terminal."""
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def note(text):
    print(harmless(text), file=sys.stderr)


def prepare_streams():
    """Let no character stop the output, and open what is closed: its number must not go to another file."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a replacement for the stream, as in tests
            stream.reconfigure(errors="backslashreplace")
