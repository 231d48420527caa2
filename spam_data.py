"""The SMS messages: fetch, verify, read, balance, split, tokenise and batch them.

Two data sets share one format (label, tab, message): the UCI SMS Spam Collection (Almeida, Gómez
Hidalgo and Yamakami 2011, DOI 10.24432/C5CC84, CC BY 4.0), and the sample written for this book,
``assets/sms_sample.tsv`` (CC0). The steps and names follow Raschka (2024), chapter 6.
"""

import csv
import hashlib
import io
import os
import zipfile
import zlib
from pathlib import Path

import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset

from downloads import fetch_file, on_mirror
from edition import ASSETS, PAD_TOKEN_ID, UCI_FOLDER, chosen_data
from files import atomic_file, sha256_of

UCI_URL = "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip"
BACKUP_URL = "https://f001.backblazeb2.com/file/LLMs-from-scratch/sms%2Bspam%2Bcollection.zip"
ARCHIVE_NAME = "sms+spam+collection.zip"  # as SPAM_MIRROR holds it
MEMBER = "SMSSpamCollection"  # the one file of the archive that the book reads: 477,907 bytes
MEMBER_SHA256 = "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d"
MAX_BYTES = 50_000_000  # so much of another one is unpacked, and no more

SAMPLE_FILE = ASSETS / "sms_sample.tsv"
LABELS = {"ham": 0, "spam": 1}

WAY_ON = (
    "To go on without a network, use the sample that ships with the book: set CHOOSE_DATA to 'sample' "
    f"(make CHECKPOINT=mini). To use an archive that you have, set SPAM_MIRROR to its folder; it must "
    f"be named {ARCHIVE_NAME}."
)


def download_and_unzip_spam_data(url, zip_path, extracted_path, data_file_path):
    """Fetch the archive of the SMS Spam Collection and take its data file out.

    Sources: an archive at ``zip_path``; ``SPAM_MIRROR`` (an http(s) base or a folder that holds the zip);
    ``url``; the book author's mirror. The archive is kept as ``zip_path``, the data file, verified unless
    ``SPAM_VERIFY`` is 0, as ``data_file_path``, usually in the folder ``extracted_path``.

    Raises:
        DownloadError: if no source gives the right archive.
        ValueError: if ``data_file_path`` exists but is not the published file.
    """
    data_file_path = Path(data_file_path)
    if data_file_path.exists():
        verify_data_file(data_file_path)
        print(f"{data_file_path} already exists. Skipping download and extraction.")
        return

    try:
        read_member(zip_path)
        done = f"{zip_path} already exists. Its data file is saved as {data_file_path}"
    except (OSError, ValueError):
        sources = [*on_mirror("SPAM_MIRROR", ARCHIVE_NAME), url, BACKUP_URL]
        fetch_file(zip_path, sources, verify=read_member, way_on=WAY_ON)
        done = f"File downloaded and saved as {data_file_path}"

    Path(extracted_path).mkdir(parents=True, exist_ok=True)
    data_file_path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(data_file_path) as partial:
        partial.write_bytes(read_member(zip_path))
    print(done)


def read_member(zip_path):
    """The verified content of the data file in the archive; ``ValueError`` if that is not to be had.

    Nothing else is read, nothing is unpacked by the archive's own names, and never more than ``MAX_BYTES``.
    """
    try:
        with zipfile.ZipFile(zip_path) as archive, archive.open(MEMBER) as file:
            if archive.getinfo(MEMBER).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{MEMBER} is compressed in another way than with 'deflate'")  # has no limit
            content = file.read(MAX_BYTES + 1)  # whatever size is declared
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, KeyError) as error:
        raise ValueError(f"not the right zip archive ({error})") from error
    if len(content) > MAX_BYTES:
        raise ValueError(f"{MEMBER} has more than {MAX_BYTES:,} bytes when it is unpacked")
    found = hashlib.sha256(content).hexdigest()
    if found != MEMBER_SHA256 and os.environ.get("SPAM_VERIFY") != "0":
        raise ValueError(f"{MEMBER} has SHA-256 {found} ({len(content):,} bytes), expected {MEMBER_SHA256}")
    return content


def verify_data_file(path):
    if sha256_of(path) != MEMBER_SHA256 and os.environ.get("SPAM_VERIFY") != "0":
        raise ValueError(f"{path} is damaged or not the published file. Delete it, or set SPAM_VERIFY=0.")


def find_spam_file(choice=None):
    """The path of the messages, ``"uci"`` (fetched) or ``"sample"``; default: :func:`chosen_data`."""
    if chosen_data(choice) == "sample":
        return SAMPLE_FILE
    data_file_path = UCI_FOLDER / "SMSSpamCollection.tsv"
    if data_file_path.exists():
        verify_data_file(data_file_path)
    else:
        download_and_unzip_spam_data(UCI_URL, UCI_FOLDER / ARCHIVE_NAME, UCI_FOLDER, data_file_path)
    return data_file_path


def read_messages(path):
    """Read a file of messages as ``pandas.read_csv`` does, with which the published numbers were made.

    So a quotation mark before a text goes on to the next one, also over lines (UCI: 5,574 lines, 5,572
    rows). But "NA" and "2026" are texts. Returns a DataFrame with the columns ``Label`` and ``Text``.
    Raises ``ValueError``, with file and line, if a line is not label, tab, message.
    """
    content, rows, line = Path(path).read_bytes(), [], 1
    try:
        lines = [*io.StringIO(content.decode("utf-8-sig"), newline=""), "\n"]
        for row in (reader := csv.reader(lines, delimiter="\t")):
            if row and reader.line_num == len(lines):  # it has swallowed the empty line added above
                raise ValueError("the quotation mark before this message has no counterpart")
            if row and (len(row) != 2 or row[0] not in LABELS):
                raise ValueError(f"found {row!r:.70}")
            rows += [row] if row else []  # an empty line is none
            line = reader.line_num + 1
    except (ValueError, csv.Error) as error:
        if isinstance(error, UnicodeDecodeError):
            line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}: {error}. Expected in each line: ham or spam, a tab and the message."
        ) from error
    return pd.DataFrame(rows, columns=["Label", "Text"])


def create_balanced_dataset(df):
    """Keep all spam and as many randomly chosen ham messages (seed 123).

    ``df`` has the columns ``Label`` ("ham" or "spam") and ``Text``. Returns the chosen ham rows, then
    all spam rows, with their old index.
    """
    num_spam = df[df["Label"] == "spam"].shape[0]
    ham_subset = df[df["Label"] == "ham"].sample(num_spam, random_state=123)
    return pd.concat([ham_subset, df[df["Label"] == "spam"]])


def random_split(df, train_frac, validation_frac):
    """Shuffle the rows (seed 123) and cut them into three parts: training, validation, test.

    ``train_frac`` and ``validation_frac`` are shares from 0 to 1; the rest is for testing.
    """
    df = df.sample(frac=1, random_state=123).reset_index(drop=True)
    train_end = int(len(df) * train_frac)
    validation_end = train_end + int(len(df) * validation_frac)
    return df[:train_end], df[train_end:validation_end], df[validation_end:]


class SpamDataset(Dataset):
    """Messages as token IDs of one common length T, with their labels.

    ``csv_file`` (path or file object) has the columns ``Label`` (0 or 1) and ``Text``. Messages longer
    than ``max_length`` tokens are cut, shorter ones filled with ``pad_token_id`` at their end; by default
    T is the length of the longest. An item is a pair of int64 tensors: token IDs (T,) and label ().
    Raises ``ValueError`` if there are no rows.
    """

    def __init__(self, csv_file, tokenizer, max_length=None, pad_token_id=PAD_TOKEN_ID):
        # a message "NA" or "2026" is a text
        self.data = pd.read_csv(csv_file, keep_default_na=False, dtype={"Text": str})
        if len(self.data) == 0:
            raise ValueError(f"{csv_file} has no rows.")
        # disallowed_special=(): a message that contains "<|endoftext|>" is ordinary text
        self.encoded_texts = [tokenizer.encode(text, disallowed_special=()) for text in self.data["Text"]]

        if max_length is None:
            self.max_length = self._longest_encoded_length()
        else:
            self.max_length = max_length
            self.encoded_texts = [encoded_text[:max_length] for encoded_text in self.encoded_texts]

        self.encoded_texts = [
            encoded_text + [pad_token_id] * (self.max_length - len(encoded_text))
            for encoded_text in self.encoded_texts
        ]

    def __getitem__(self, index):
        encoded = self.encoded_texts[index]
        label = self.data.iloc[index]["Label"]
        return torch.tensor(encoded, dtype=torch.long), torch.tensor(label, dtype=torch.long)

    def __len__(self):
        return len(self.data)

    def _longest_encoded_length(self):
        return max(len(encoded_text) for encoded_text in self.encoded_texts)


def create_spam_loaders(tokenizer, data_file_path=None, batch_size=8):
    """Do what notebook 01 does, from the file of messages to the three data loaders.

    The messages come from :func:`find_spam_file`, or another ``data_file_path``.

    Returns:
        tuple of three DataLoader: training (shuffled, last incomplete batch dropped),
        validation, test. A batch is a pair of int64 tensors: token IDs (B, T), labels (B,).
    """
    data_file_path = data_file_path or find_spam_file()
    df = read_messages(data_file_path)
    ham, spam = ((df["Label"] == label).sum() for label in LABELS)
    if not 5 <= spam <= ham:
        raise ValueError(f"{data_file_path} has {ham} ham, {spam} spam. Needed: 5 spam, and as many ham.")
    balanced_df = create_balanced_dataset(df)
    balanced_df["Label"] = balanced_df["Label"].map(LABELS)
    parts = random_split(balanced_df, 0.7, 0.1)
    train_csv, *others = (io.StringIO(part.to_csv(index=None)) for part in parts)  # no file is left

    train_dataset = SpamDataset(train_csv, tokenizer)
    val_dataset, test_dataset = (SpamDataset(part, tokenizer, train_dataset.max_length) for part in others)

    torch.manual_seed(123)
    train_loader = DataLoader(train_dataset, batch_size, shuffle=True, drop_last=True)
    return train_loader, DataLoader(val_dataset, batch_size), DataLoader(test_dataset, batch_size)
