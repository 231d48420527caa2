"""The SMS messages: fetch, verify, balance, split, tokenise and batch them.

Two data sets share one format (label, tab, message): the UCI SMS Spam Collection
(Almeida, Gómez Hidalgo and Yamakami 2011, DOI 10.24432/C5CC84, CC BY 4.0), and the
sample written for this book, ``assets/sms_sample.tsv`` (CC0).

The steps and names follow Raschka (2024), chapter 6.
"""

import hashlib
import io
import os
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset

from downloads import fetch_file, join_source
from edition import ASSETS, DATA_CHOICES, PAD_TOKEN_ID, UCI_FOLDER, chosen_data
from files import atomic_file, sha256_of

UCI_URL = "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip"
BACKUP_URL = "https://f001.backblazeb2.com/file/LLMs-from-scratch/sms%2Bspam%2Bcollection.zip"
ARCHIVE_NAME = "sms+spam+collection.zip"  # as SPAM_MIRROR holds it
MEMBER = "SMSSpamCollection"  # the one file of the archive that the book reads
MEMBER_SHA256 = "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d"

SAMPLE_FILE = ASSETS / "sms_sample.tsv"

WAY_ON = (
    "To go on without a network, use the sample that ships with the book: set CHOOSE_DATA to 'sample' "
    f"(make CHECKPOINT=mini). To use an archive that you have, set SPAM_MIRROR to its folder; it must "
    f"be named {ARCHIVE_NAME}."
)


# ---------------------------------------------------------------------------------
# Fetch and verify
# ---------------------------------------------------------------------------------


def download_and_unzip_spam_data(url, zip_path, extracted_path, data_file_path):
    """Fetch the archive of the SMS Spam Collection and take its data file out.

    Sources: an archive at ``zip_path``; ``SPAM_MIRROR`` (an http(s) base or a folder that holds
    the zip); ``url``; the book author's mirror. The data file is verified; ``SPAM_VERIFY=0`` turns that off.

    Args:
        url (str): address of the archive, for example ``UCI_URL``.
        zip_path (str or Path): where to keep the archive.
        extracted_path (str or Path): folder for the data file; created when missing.
        data_file_path (str or Path): name that the data file gets, usually in that folder.

    Raises:
        DownloadError: if no source gives the right archive.
        ValueError: if ``data_file_path`` exists but is not the published file.
    """
    data_file_path = Path(data_file_path)
    if data_file_path.exists():
        verify_data_file(data_file_path)
        print(f"{data_file_path} already exists. Skipping download and extraction.")
        return

    archive_is_there = is_right_archive(zip_path)
    if not archive_is_there:
        mirror = os.environ.get("SPAM_MIRROR")
        sources = [join_source(mirror, ARCHIVE_NAME)] if mirror else []
        fetch_file(zip_path, [*sources, url, BACKUP_URL], verify=read_member, way_on=WAY_ON)

    Path(extracted_path).mkdir(parents=True, exist_ok=True)
    data_file_path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(data_file_path) as partial:
        partial.write_bytes(read_member(zip_path))
    if archive_is_there:
        print(f"{zip_path} already exists. Its data file is saved as {data_file_path}")
    else:
        print(f"File downloaded and saved as {data_file_path}")


def is_right_archive(zip_path):
    """Whether there is an archive already that holds the right data file."""
    try:
        read_member(zip_path)
        return True
    except (OSError, ValueError):
        return False


def read_member(zip_path):
    """Return the content of the data file in the archive, verified, as bytes.

    Nothing but this one member is ever read, and nothing is unpacked by the archive's own
    names. An archive with names that lead out of its folder is refused as a whole.

    Raises:
        ValueError: if the archive is damaged or unsafe, or its data file is missing or wrong.
    """
    try:
        with zipfile.ZipFile(zip_path) as archive:
            for name in archive.namelist():
                path = PurePosixPath(name.replace("\\", "/"))
                if path.is_absolute() or ".." in path.parts or ":" in name:
                    raise ValueError(f"the archive has an unsafe file name: {name!r}")
            content = archive.read(MEMBER)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        # RuntimeError: the archive is encrypted, or compressed in a way that zipfile does not know
        raise ValueError(f"not a valid zip archive ({error})") from error
    except KeyError as error:
        raise ValueError(f"the archive has no file {MEMBER!r}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != MEMBER_SHA256 and os.environ.get("SPAM_VERIFY") != "0":
        raise ValueError(f"{MEMBER} has SHA-256 {found} ({len(content):,} bytes), expected {MEMBER_SHA256}")
    return content


def verify_data_file(path):
    """Raise ``ValueError`` if a data file is not the published one. ``SPAM_VERIFY=0`` turns that off."""
    found = sha256_of(path)
    if found != MEMBER_SHA256 and os.environ.get("SPAM_VERIFY") != "0":
        raise ValueError(
            f"{path} is damaged or not the published file: its SHA-256 is {found}, expected "
            f"{MEMBER_SHA256}. Delete it and run again to fetch it anew; SPAM_VERIFY=0 turns this check off."
        )


def find_spam_file(choice=None):
    """Return the path of the messages; the UCI file is fetched when it is not there yet.

    Args:
        choice (str): ``"uci"`` or ``"sample"``; default: the environment variable
            ``CHOOSE_DATA``, else ``"uci"``.

    Raises:
        ValueError: for any other choice, or if the UCI file is there but damaged.
    """
    choice = choice or chosen_data()
    if choice not in DATA_CHOICES:
        raise ValueError(f"Unknown data set {choice!r}. Choose one of: {', '.join(DATA_CHOICES)}.")
    if choice == "sample":
        return SAMPLE_FILE
    data_file_path = UCI_FOLDER / "SMSSpamCollection.tsv"
    if data_file_path.exists():
        verify_data_file(data_file_path)
    else:
        download_and_unzip_spam_data(UCI_URL, UCI_FOLDER / ARCHIVE_NAME, UCI_FOLDER, data_file_path)
    return data_file_path


# ---------------------------------------------------------------------------------
# Balance and split
# ---------------------------------------------------------------------------------


def create_balanced_dataset(df):
    """Keep all spam and as many randomly chosen ham messages (seed 123).

    Args:
        df (pandas.DataFrame): columns ``Label`` ("ham" or "spam") and ``Text``.

    Returns:
        pandas.DataFrame: the chosen ham rows, then all spam rows, with their old index.
    """
    num_spam = df[df["Label"] == "spam"].shape[0]
    ham_subset = df[df["Label"] == "ham"].sample(num_spam, random_state=123)
    return pd.concat([ham_subset, df[df["Label"] == "spam"]])


def random_split(df, train_frac, validation_frac):
    """Shuffle the rows (seed 123) and cut them into three parts.

    Args:
        df (pandas.DataFrame): the rows.
        train_frac (float): share of the training part, 0 to 1.
        validation_frac (float): share of the validation part; the rest is for testing.

    Returns:
        tuple of three pandas.DataFrame: training, validation, test.
    """
    df = df.sample(frac=1, random_state=123).reset_index(drop=True)
    train_end = int(len(df) * train_frac)
    validation_end = train_end + int(len(df) * validation_frac)
    return df[:train_end], df[train_end:validation_end], df[validation_end:]


# ---------------------------------------------------------------------------------
# Tokenise and batch
# ---------------------------------------------------------------------------------


class SpamDataset(Dataset):
    """Messages as token IDs of one common length, with their labels.

    Args:
        csv_file (str, Path or file object): CSV with the columns ``Label`` (0 or 1) and ``Text``.
        tokenizer (tiktoken.Encoding): GPT-2's tokenizer.
        max_length (int): common length in tokens; longer messages are cut. Default: the
            longest message, then nothing is cut.
        pad_token_id (int): fills shorter messages at their end; 50256 is ``<|endoftext|>``.

    Attributes:
        max_length (int): the common length T.
        data (pandas.DataFrame): the rows of the file.
        encoded_texts (list of list of int): the padded token IDs.

    An item is a pair of int64 tensors: token IDs (T,) and label ().

    Raises:
        ValueError: if the file has no rows.
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


def create_spam_loaders(tokenizer, data_file_path=None, batch_size=8, num_workers=0):
    """Do what notebook 01 does, from the file of messages to the three data loaders.

    Args:
        tokenizer (tiktoken.Encoding): GPT-2's tokenizer.
        data_file_path (str or Path): the messages; default: :func:`find_spam_file`.
        batch_size (int): messages in a batch.
        num_workers (int): processes that prepare batches; 0 means the main process.

    Returns:
        tuple of three DataLoader: training (shuffled, last incomplete batch dropped),
        validation, test. A batch is a pair of int64 tensors: token IDs (B, T), labels (B,).
    """
    data_file_path = data_file_path or find_spam_file()
    df = pd.read_csv(data_file_path, sep="\t", header=None, names=["Label", "Text"], keep_default_na=False)
    balanced_df = create_balanced_dataset(df)
    balanced_df["Label"] = balanced_df["Label"].map({"ham": 0, "spam": 1})
    train_df, validation_df, test_df = random_split(balanced_df, 0.7, 0.1)

    train_dataset = SpamDataset(_as_csv(train_df), tokenizer)
    val_dataset = SpamDataset(_as_csv(validation_df), tokenizer, max_length=train_dataset.max_length)
    test_dataset = SpamDataset(_as_csv(test_df), tokenizer, max_length=train_dataset.max_length)

    torch.manual_seed(123)
    train_loader = DataLoader(
        train_dataset, batch_size=batch_size, shuffle=True, num_workers=num_workers, drop_last=True
    )
    val_loader = DataLoader(val_dataset, batch_size=batch_size, num_workers=num_workers, drop_last=False)
    test_loader = DataLoader(test_dataset, batch_size=batch_size, num_workers=num_workers, drop_last=False)
    return train_loader, val_loader, test_loader


def _as_csv(df):
    """The rows as a CSV file in memory, so that nothing is left on disk."""
    return io.StringIO(df.to_csv(index=None))
