"""spam_data.py: the messages are fetched, verified, read, balanced, split, tokenised and batched."""

import io
import itertools
import re
import tracemalloc
import zipfile

import pandas as pd
import pytest
import torch
from web_server import Answer

import downloads
import spam_data
from downloads import DownloadError
from edition import PAD_TOKEN_ID
from message_sets import read_left_over_ham
from spam_data import (
    ARCHIVE_NAME,
    SAMPLE_FILE,
    SpamDataset,
    create_balanced_dataset,
    create_spam_loaders,
    download_and_unzip_spam_data,
    find_spam_file,
    random_split,
    read_messages,
)

MESSAGES = "ham\tsee you at six\nspam\twin a prize\n"


# ---------------------------------------------------------------------------------
# The sample that ships with the book
# ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample_texts():
    """The messages, read without any help of a CSV reader; test_sms_sample.py checks what they are like."""
    return [line.split("\t")[1] for line in SAMPLE_FILE.read_text(encoding="utf-8").splitlines()]


def test_loaders_of_the_sample_have_its_length_and_share_no_message(sample_loaders, sample_texts, tokenizer):
    assert sample_loaders[0].dataset.max_length <= max(len(tokenizer.encode(text)) for text in sample_texts)
    texts = [set(loader.dataset.data["Text"]) for loader in sample_loaders]
    left_over = set(read_left_over_ham(SAMPLE_FILE)[0])
    assert all(a.isdisjoint(b) for a, b in itertools.combinations([*texts, left_over], 2))
    assert set().union(*texts, left_over) == set(sample_texts)


# ---------------------------------------------------------------------------------
# The UCI SMS Spam Collection, where SPAM_MIRROR has it
# ---------------------------------------------------------------------------------


def test_uci_has_4825_ham_and_747_spam_in_5572_rows(uci_file):
    df = read_messages(uci_file)
    assert df["Label"].value_counts().to_dict() == {"ham": 4825, "spam": 747}
    balanced = create_balanced_dataset(df)
    assert balanced["Label"].value_counts().to_dict() == {"ham": 747, "spam": 747}
    assert balanced.index[:5].tolist() == [4307, 4138, 4831, 4461, 5440]
    assert [len(part) for part in random_split(balanced, 0.7, 0.1)] == [1045, 149, 300]
    assert (len(read_left_over_ham(uci_file)[0]), len(df)) == (4078, 5572)


def test_uci_batches_have_the_length_of_the_training_set_120_tokens(uci_file, tokenizer):
    loaders = create_spam_loaders(tokenizer, uci_file)
    assert loaders[0].dataset.max_length == 120
    assert [len(loader) for loader in loaders] == [130, 19, 38]
    assert {tuple(ids.shape) for loader in loaders for ids, _ in loader} == {(8, 120), (5, 120), (4, 120)}


# ---------------------------------------------------------------------------------
# Fetch and verify
# ---------------------------------------------------------------------------------


def write_zip(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """The archive in the folder of SPAM_MIRROR; it is not there at first."""
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("SPAM_MIRROR", str(tmp_path / "mirror"))
    return tmp_path / "mirror" / ARCHIVE_NAME


@pytest.fixture
def unverified(monkeypatch):
    """Messages of our own are accepted."""
    monkeypatch.setenv("SPAM_VERIFY", "0")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def fetch(folder, monkeypatch, web_server):
    """A function that fetches the data file; the public addresses are on this machine and empty."""
    monkeypatch.setattr(spam_data, "BACKUP_URL", f"{web_server.url}/backup.zip")
    monkeypatch.setattr(downloads, "BACKOFF", 0.01)
    monkeypatch.setattr(downloads, "CHUNK", 1024)

    def run():
        path = folder / "SMSSpamCollection.tsv"
        download_and_unzip_spam_data(f"{web_server.url}/uci.zip", folder / "archive.zip", folder, path)
        return path

    return run


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_data_file_alone_is_unpacked_from_a_folder_once(fetch, mirror, unverified, folder, capsys):
    write_zip(mirror, {"SMSSpamCollection": MESSAGES, "readme": "about"})
    path = fetch()
    assert path.read_text() == MESSAGES
    assert names_in(folder) == ["SMSSpamCollection.tsv", "archive.zip"]
    fetch()
    assert capsys.readouterr().out.splitlines() == [
        f"File downloaded and saved as {path}",
        f"{path} already exists. Skipping download and extraction.",
    ]


def test_data_file_comes_from_a_web_address_and_a_cut_download_is_continued(
    fetch, mirror, unverified, web_server, monkeypatch
):
    many = "".join(f"ham\tmessage {i * i}\n" for i in range(2000))
    address = f"/base/{ARCHIVE_NAME}"
    web_server.files[address] = write_zip(mirror, {"SMSSpamCollection": many}).read_bytes()
    web_server.script[address] = [Answer(cut_after=5000)]
    monkeypatch.setenv("SPAM_MIRROR", f"{web_server.url}/base/")
    assert fetch().read_text() == many
    assert [status for _, status, _ in web_server.of(address)] == [200, 206]


def test_backup_address_is_asked_last(fetch, mirror, unverified, web_server, tmp_path):
    archive = write_zip(tmp_path / "other.zip", {"SMSSpamCollection": MESSAGES})
    web_server.files["/backup.zip"] = archive.read_bytes()
    assert fetch().read_text() == MESSAGES
    assert [path for path, *_ in web_server.requests] == ["/uci.zip", "/backup.zip"]


def test_archive_that_is_there_is_used(fetch, folder, unverified, web_server, capsys):
    archive = write_zip(folder / "archive.zip", {"SMSSpamCollection": MESSAGES})
    path = fetch()
    assert path.read_text() == MESSAGES
    assert not web_server.requests
    assert capsys.readouterr().out == f"{archive} already exists. Its data file is saved as {path}\n"


def test_wrong_archive_that_is_there_survives_until_a_source_has_a_right_one(
    fetch, mirror, folder, unverified
):
    (folder / "archive.zip").write_bytes(b"your own file")
    with pytest.raises(DownloadError):
        fetch()
    assert (folder / "archive.zip").read_bytes() == b"your own file"
    write_zip(mirror, {"SMSSpamCollection": MESSAGES})
    assert fetch().read_text() == MESSAGES
    assert (folder / "archive.zip").read_bytes() == mirror.read_bytes()


@pytest.mark.parametrize(
    "name",
    ["../evil", "folder/../../evil", "/etc/evil", "C:\\evil", "C:/evil", "..\\evil", "\\\\host\\evil", "./"],
)
def test_nothing_is_unpacked_by_the_names_in_an_archive(fetch, mirror, unverified, tmp_path, folder, name):
    write_zip(mirror, {name: "evil", "SMSSpamCollection": MESSAGES})
    assert fetch().read_text() == MESSAGES
    assert names_in(folder) == ["SMSSpamCollection.tsv", "archive.zip"]
    assert not list(tmp_path.rglob("*evil*"))


def cut_zip(path):
    write_zip(path, {"SMSSpamCollection": MESSAGES})
    path.write_bytes(path.read_bytes()[:-30])


def changed_zip(path):
    write_zip(path, {"SMSSpamCollection": "".join(f"ham\tmessage {i}\n" for i in range(1000))})
    content = bytearray(path.read_bytes())
    content[60:80] = bytes(20)  # within the compressed messages
    path.write_bytes(content)


def encrypted_zip(path):
    write_zip(path, {"SMSSpamCollection": MESSAGES})
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flags in the header of the member and in the list at the end
    content[content.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


BAD_ARCHIVES = {
    "wrong content": (
        lambda path: write_zip(path, {"SMSSpamCollection": MESSAGES}),
        "SMSSpamCollection has SHA-256 .* expected 7d039a24",
    ),
    "no member": (lambda path: write_zip(path, {"readme": "about"}), "no item named 'SMSSpamCollection'"),
    "no zip": (lambda path: path.write_bytes(b"<html>Not found</html>"), "not the right zip archive"),
    "cut": (cut_zip, "not the right zip archive"),
    "changed": (changed_zip, "not the right zip archive"),
    "encrypted": (encrypted_zip, "encrypted"),
}


@pytest.mark.parametrize("kind", BAD_ARCHIVES)
def test_bad_archive_is_refused_with_its_reason_and_leaves_nothing_behind(
    fetch, mirror, web_server, folder, kind
):
    write, words = BAD_ARCHIVES[kind]
    write(mirror)
    with pytest.raises(DownloadError, match=words) as error:
        fetch()
    assert names_in(folder) == []
    for address in (mirror, f"{web_server.url}/uci.zip", f"{web_server.url}/backup.zip"):
        assert f"{address}\n" in str(error.value)
    assert "CHOOSE_DATA to 'sample'" in str(error.value)


@pytest.mark.parametrize("kind", ["honest", "declared small", "bzip2"])
def test_an_archive_that_unpacks_to_far_too_much_is_refused_before_it_is_unpacked(
    fetch, mirror, unverified, monkeypatch, folder, kind
):
    monkeypatch.setattr(spam_data, "MAX_BYTES", 100_000)
    write_zip(
        mirror,
        {"SMSSpamCollection": bytes(30_000_000)},
        zipfile.ZIP_BZIP2 if kind == "bzip2" else zipfile.ZIP_DEFLATED,
    )
    if kind == "declared small":
        size = (30_000_000).to_bytes(4, "little")
        mirror.write_bytes(mirror.read_bytes().replace(size, (1000).to_bytes(4, "little")))
    tracemalloc.start()
    with pytest.raises(DownloadError, match="more than 100,000 bytes|Bad CRC-32|than with 'deflate'"):
        fetch()
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    assert names_in(folder) == []


@pytest.mark.parametrize("finds", ["fetch", "find_spam_file"])
def test_wrong_file_that_is_there_is_named_and_kept(fetch, folder, monkeypatch, finds):
    monkeypatch.setattr(spam_data, "UCI_FOLDER", folder)
    path = folder / "SMSSpamCollection.tsv"
    path.write_text(MESSAGES)
    with pytest.raises(ValueError, match=f"{path} is damaged or not the published file. Delete it"):
        fetch() if finds == "fetch" else find_spam_file("uci")
    assert path.read_text() == MESSAGES


@pytest.mark.parametrize("name", [None, "uci", "sample"])
@pytest.mark.parametrize("by_variable", [True, False])
def test_choice_of_the_messages(monkeypatch, tmp_path, mirror, unverified, name, by_variable):
    monkeypatch.chdir(tmp_path)
    write_zip(mirror, {"SMSSpamCollection": MESSAGES})
    if name and by_variable:
        monkeypatch.setenv("CHOOSE_DATA", name)
    path = find_spam_file(None if by_variable else name)
    uci = tmp_path / "sms_spam_collection" / "SMSSpamCollection.tsv"
    assert path.absolute() == (SAMPLE_FILE if name == "sample" else uci)


def test_unknown_choice_is_named():
    with pytest.raises(ValueError, match="'mail'.*uci, sample"):
        find_spam_file("mail")


# ---------------------------------------------------------------------------------
# Read, balance and split
# ---------------------------------------------------------------------------------

AS_PANDAS_READS = [
    "ham\tNA\nspam\t2026\nham\tnull\nham\t\n",
    'ham\t"quoted"\nham\ta "word"\nham\t"a ""b"" c" d\n',
    'ham\t"from here\nspam\tto here" on\nham\tnext',
    "\n\r\nham\ta\r\n\nspam\tb\n\n",
    "\ufeffham\tmarked\nham\tnaïve 你好\n",
]


@pytest.mark.parametrize("content", [*AS_PANDAS_READS, SAMPLE_FILE.read_text(encoding="utf-8")])
def test_messages_are_read_as_pandas_reads_them_but_all_are_texts(tmp_path, content):
    path = tmp_path / "messages.tsv"
    path.write_text(content, encoding="utf-8", newline="")
    options = {"sep": "\t", "header": None, "names": ["Label", "Text"], "keep_default_na": False}
    pd.testing.assert_frame_equal(read_messages(path), pd.read_csv(path, dtype=str, **options))


def test_uci_is_read_as_pandas_reads_it(uci_file):
    names = ["Label", "Text"]
    assert read_messages(uci_file).equals(pd.read_csv(uci_file, sep="\t", header=None, names=names))


@pytest.mark.parametrize(
    "content, line, words",
    [
        (b"ham\ta\nspam b\n", 2, r"found \['spam b'\]"),
        (b"ham\ta\tb\nham\tc\n", 1, r"found \['ham', 'a', 'b'\]"),
        (b"\n\nLabel\tText\nham\ta\n", 3, r"found \['Label', 'Text'\]"),
        (b"ham\ta\nSpam\tb\n", 2, r"found \['Spam', 'b'\]"),
        (b'ham\t"a\nb"\n\nspam\n', 4, r"found \['spam'\]"),
        (b'ham\ta\nham\t"b\nspam\tc\n', 2, "the quotation mark before this message has no counterpart"),
        (b'ham\t"' + b"b" * 200_000, 1, "field larger than field limit"),
        (b"ham\ta\nham\t\xff\n", 2, "can't decode byte 0xff"),
        ("ham\ta\n".encode("utf-16"), 1, "can't decode byte"),
    ],
)
def test_what_is_no_message_is_named_by_file_and_line(tmp_path, content, line, words):
    path = tmp_path / "mine.tsv"
    path.write_bytes(content)
    expected = (
        f"{re.escape(str(path))}, line {line}: .*{words}.*Expected in each line: ham or spam, a tab and the"
    )
    with pytest.raises(ValueError, match=expected):
        read_messages(path)


@pytest.fixture
def unbalanced():
    labels = ["ham"] * 40 + ["spam"] * 10
    return pd.DataFrame({"Label": labels, "Text": [f"message {i}" for i in range(50)]})


def test_balanced_set_keeps_all_spam_and_as_much_ham_and_the_rest_is_left_over(unbalanced, tmp_path):
    before = unbalanced.copy()
    unbalanced.to_csv(tmp_path / "messages.tsv", sep="\t", header=False, index=False)
    balanced = create_balanced_dataset(unbalanced)
    left_over, labels = read_left_over_ham(tmp_path / "messages.tsv")
    assert balanced["Label"].value_counts().to_dict() == {"ham": 10, "spam": 10}
    assert balanced.index[10:].tolist() == list(range(40, 50))
    numbers = [int(text.removeprefix("message ")) for text in left_over]
    assert set(labels) == {0} and numbers == sorted(numbers)
    assert sorted([*balanced.index, *numbers]) == list(range(50))
    assert balanced.equals(create_balanced_dataset(unbalanced))  # repeatable
    assert unbalanced.equals(before)


def test_split_shuffles_and_has_the_shares_asked_for(unbalanced):
    parts = random_split(unbalanced, 0.7, 0.1)
    assert [len(part) for part in parts] == [35, 5, 10]
    assert sorted(pd.concat(parts)["Text"]) == sorted(unbalanced["Text"])  # no row is lost or repeated
    assert parts[0]["Text"].tolist() != unbalanced["Text"][:35].tolist()
    assert all(a.equals(b) for a, b in zip(parts, random_split(unbalanced, 0.7, 0.1)))


# ---------------------------------------------------------------------------------
# Token IDs
# ---------------------------------------------------------------------------------


def dataset_of(texts, tokenizer, **arguments):
    csv = pd.DataFrame({"Label": [0] * len(texts), "Text": texts}).to_csv(index=None)
    return SpamDataset(io.StringIO(csv), tokenizer, **arguments)


def test_item_is_the_padded_text_and_its_label_as_int64(tokenizer, tmp_path):
    (tmp_path / "train.csv").write_text("Label,Text\n1,Do you have time\n0,Do you have time for that\n")
    dataset = SpamDataset(tmp_path / "train.csv", tokenizer)
    ids, label = dataset[0]
    assert ids.tolist() == [5211, 345, 423, 640, PAD_TOKEN_ID, PAD_TOKEN_ID] and label.item() == 1
    assert (ids.dtype, label.dtype, label.shape) == (torch.int64, torch.int64, ())
    assert (len(dataset), dataset.max_length) == (2, 6)  # that of the longest


@pytest.mark.parametrize(
    "texts, arguments, expected",
    [
        (["Do you have time"], {"max_length": 3}, [5211, 345, 423]),
        (["Do you"], {"max_length": 4, "pad_token_id": 7}, [5211, 345, 7, 7]),
        (["", "Do you"], {}, [50256, 50256]),
    ],
)
def test_messages_are_cut_or_filled(tokenizer, texts, arguments, expected):
    assert dataset_of(texts, tokenizer, **arguments).encoded_texts[0] == expected


@pytest.mark.parametrize("text", ["NA", "null", "nan", "123", "True", "007", "a<|endoftext|>"])
def test_message_that_looks_like_a_value_or_a_special_token_is_a_text(tokenizer, text):
    (ids,) = dataset_of([text], tokenizer).encoded_texts
    assert PAD_TOKEN_ID not in ids
    assert tokenizer.decode(ids) == text


def test_file_without_rows_is_refused(tokenizer):
    with pytest.raises(ValueError, match="has no rows"):
        SpamDataset(io.StringIO("Label,Text\n"), tokenizer)


# ---------------------------------------------------------------------------------
# Loaders
# ---------------------------------------------------------------------------------


@pytest.fixture
def messages(tmp_path):
    """A file of 50 + 30 messages: balanced 42 for training, 6 for validation, 12 for testing."""
    return write_messages(tmp_path / "messages.tsv", [f"see you at {i}" for i in range(50)], 30)


def write_messages(path, ham, num_spam):
    spam = [f"spam\twin prize {i} now\n" for i in range(num_spam)]
    path.write_text("".join([*(f"ham\t{text}\n" for text in ham), *spam]))
    return path


def test_loaders_have_the_walk_throughs_batches(tokenizer, messages, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    loaders = create_spam_loaders(tokenizer, messages)
    assert names_in(tmp_path / "empty") == []  # no file is left
    assert [len(labels) for _, labels in loaders[0]] == [8] * 5  # drops its last incomplete batch
    assert [len(labels) for loader in loaders[1:] for _, labels in loader] == [6, 8, 4]
    assert {ids.shape[1] for loader in loaders for ids, _ in loader} == {loaders[0].dataset.max_length}
    for loader in loaders:
        data = loader.dataset.data
        assert (data["Label"] == data["Text"].str.startswith("win")).all()  # spam is 1 and ham 0
    assert [len(loader) for loader in create_spam_loaders(tokenizer, messages, batch_size=5)] == [8, 2, 3]


def test_training_loader_shuffles_and_test_loader_does_not(tokenizer, messages):
    loaders = create_spam_loaders(tokenizer, messages)
    first, second = (torch.cat([ids for ids, _ in loaders[0]]) for _ in range(2))
    assert not torch.equal(first, second)
    again = torch.cat([ids for ids, _ in create_spam_loaders(tokenizer, messages)[0]])
    assert torch.equal(first, again)  # new loaders give the same batches
    labels = torch.cat([labels for _, labels in loaders[2]])
    assert labels.tolist() == loaders[2].dataset.data["Label"].tolist()


def test_message_na_reaches_the_loaders(tokenizer, tmp_path):
    path = write_messages(tmp_path / "messages.tsv", ["NA"] * 30, 30)
    texts = [text for loader in create_spam_loaders(tokenizer, path) for text in loader.dataset.data["Text"]]
    assert texts.count("NA") == 30


@pytest.mark.parametrize("num_ham, num_spam", [(0, 0), (50, 0), (50, 4), (10, 11)])
def test_messages_that_cannot_be_balanced_are_named(tokenizer, tmp_path, num_ham, num_spam):
    path = write_messages(tmp_path / "mine.tsv", ["hello"] * num_ham, num_spam)
    with pytest.raises(ValueError, match=f"mine.tsv has {num_ham} ham, {num_spam} spam. Needed: 5 spam"):
        create_spam_loaders(tokenizer, path)


def test_ten_messages_are_enough(tokenizer, tmp_path):
    path = write_messages(tmp_path / "mine.tsv", ["hello"] * 5, 5)
    assert [len(loader.dataset) for loader in create_spam_loaders(tokenizer, path)] == [7, 1, 2]
