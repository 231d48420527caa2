"""spam_data.py: the messages are fetched, verified, balanced, split, tokenised and batched."""

import io
import itertools
import re
import zipfile

import pandas as pd
import pytest
import torch

import spam_data
from downloads import DownloadError
from spam_data import (
    ARCHIVE_NAME,
    SAMPLE_FILE,
    SpamDataset,
    create_balanced_dataset,
    create_spam_loaders,
    download_and_unzip_spam_data,
    find_spam_file,
    random_split,
)

PADDING = 50256
MESSAGES = "ham\tsee you at six\nspam\twin a prize\n"


def read_messages(path):
    return pd.read_csv(path, sep="\t", header=None, names=["Label", "Text"])


# ---------------------------------------------------------------------------------
# The sample that ships with the book
# ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample_lines():
    """[label, message] of each line, read without any help of a CSV reader."""
    return [line.split("\t") for line in SAMPLE_FILE.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def sample_texts(sample_lines):
    return [text for _, text in sample_lines]


def test_sample_has_two_columns(sample_lines):
    assert {len(line) for line in sample_lines} == {2}


def test_sample_has_two_labels(sample_lines):
    assert {label for label, _ in sample_lines} == {"ham", "spam"}


def test_sample_has_1200_distinct_messages_or_more(sample_texts):
    assert len(set(sample_texts)) == len(sample_texts) >= 1200


def test_about_a_quarter_of_the_sample_is_spam(sample_lines):
    assert 0.2 <= sum(label == "spam" for label, _ in sample_lines) / len(sample_lines) <= 0.3


def test_sample_reads_the_same_with_pandas(sample_texts):
    assert read_messages(SAMPLE_FILE)["Text"].tolist() == sample_texts


def test_sample_has_no_double_quote(sample_texts):
    assert [text for text in sample_texts if '"' in text] == []


def test_sample_message_has_no_space_at_its_ends(sample_texts):
    assert [text for text in sample_texts if text != text.strip()] == []


def test_longest_sample_message_has_about_100_tokens(sample_texts, tokenizer):
    assert 80 <= max(len(tokenizer.encode(text)) for text in sample_texts) <= 105


def test_near_duplicates_in_the_sample_are_under_one_percent(sample_texts):
    # near duplicates share more than half of their 5-character sequences (Jaccard index)
    grams = [{text[i : i + 5] for i in range(max(1, len(text) - 4))} for text in map(str.lower, sample_texts)]
    near = set()
    for (i, a), (j, b) in itertools.combinations(enumerate(grams), 2):
        if not 0.5 < len(a) / len(b) < 2:
            continue  # so different in length that they cannot share more than half
        shared = len(a & b)
        if shared / (len(a) + len(b) - shared) > 0.5:
            near |= {i, j}
    assert len(near) < 0.01 * len(sample_texts), [sample_texts[i] for i in near]


# Ranges that the regulators of the UK (Ofcom) and North America (NANPA) keep for fiction
FICTIONAL_NUMBER = re.compile(
    r"""
      (0|\+44)7700900\d{3}
    | (0|\+44)(113|114|115|116|117|118|121|131|141|151|161)4960\d{3}
    | (0|\+44)2079460\d{3} | (0|\+44)1914980\d{3} | (0|\+44)2920180\d{3} | (0|\+44)1632960\d{3}
    | (\+?1)?(\d{3})?55501\d{2}
    """,
    re.VERBOSE,
)


def test_telephone_numbers_in_the_sample_are_from_ranges_for_fiction(sample_texts):
    candidates = re.findall(r"\+?\d[\d ()./-]{5,}\d", "\n".join(sample_texts))
    numbers = [re.sub(r"[^\d+]", "", candidate) for candidate in candidates]
    numbers = [number for number in numbers if len(number) >= 7]
    assert len(numbers) >= 50
    assert [number for number in numbers if not FICTIONAL_NUMBER.fullmatch(number)] == []


def test_links_in_the_sample_lead_nowhere(sample_texts):
    # a link is what has a point between two letters and no space after it
    links = re.findall(r"(?:https?://)?((?:[\w-]+\.)+[A-Za-z]{2,})\b", "\n".join(sample_texts))
    assert len(links) >= 50
    assert [link for link in links if not link.endswith((".example", ".test", ".invalid"))] == []


# ---------------------------------------------------------------------------------
# The UCI SMS Spam Collection, where SPAM_MIRROR has it
# ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uci_balanced(uci_file):
    return create_balanced_dataset(read_messages(uci_file))


@pytest.fixture(scope="module")
def uci_loaders(uci_file, tokenizer):
    return create_spam_loaders(tokenizer, uci_file)


def test_uci_has_4825_ham_and_747_spam_in_5572_rows(uci_file):
    df = read_messages(uci_file)
    assert len(df) == 5572
    assert df["Label"].value_counts().to_dict() == {"ham": 4825, "spam": 747}


def test_balanced_uci_has_747_of_each(uci_balanced):
    assert uci_balanced["Label"].value_counts().to_dict() == {"ham": 747, "spam": 747}


def test_first_balanced_uci_rows(uci_balanced):
    assert uci_balanced.index[:5].tolist() == [4307, 4138, 4831, 4461, 5440]


def test_uci_split(uci_balanced):
    assert [len(part) for part in random_split(uci_balanced, 0.7, 0.1)] == [1045, 149, 300]


def test_longest_uci_training_message_has_120_tokens(uci_loaders):
    assert uci_loaders[0].dataset.max_length == 120


def test_uci_batches(uci_loaders):
    assert [len(loader) for loader in uci_loaders] == [130, 19, 38]


def test_uci_batches_have_the_length_of_the_training_set(uci_loaders):
    assert {tuple(ids.shape) for loader in uci_loaders for ids, _ in loader} == {(8, 120), (5, 120), (4, 120)}


# ---------------------------------------------------------------------------------
# Fetch and verify
# ---------------------------------------------------------------------------------


def write_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A folder for SPAM_MIRROR; empty at first."""
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("SPAM_MIRROR", str(tmp_path / "mirror"))
    return tmp_path / "mirror"


@pytest.fixture
def unverified(monkeypatch):
    """Messages of our own are accepted."""
    monkeypatch.setenv("SPAM_VERIFY", "0")


@pytest.fixture
def fetch(tmp_path, monkeypatch, web_server):
    """A function that fetches the data file; the public addresses are on this machine and empty."""
    monkeypatch.setattr(spam_data, "BACKUP_URL", f"{web_server.url}/backup.zip")

    def run():
        folder = tmp_path / "data"
        download_and_unzip_spam_data(
            f"{web_server.url}/uci.zip", folder / "archive.zip", folder, folder / "SMSSpamCollection.tsv"
        )
        return folder / "SMSSpamCollection.tsv"

    return run


def names_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_data_file_comes_from_a_folder(fetch, mirror, unverified):
    write_zip(mirror / ARCHIVE_NAME, {"SMSSpamCollection": MESSAGES, "readme": "about"})
    assert fetch().read_text() == MESSAGES


def test_data_file_comes_from_a_web_address(fetch, mirror, unverified, web_server, monkeypatch):
    archive = write_zip(mirror / ARCHIVE_NAME, {"SMSSpamCollection": MESSAGES})
    web_server.files[f"/base/{ARCHIVE_NAME}"] = archive.read_bytes()
    monkeypatch.setenv("SPAM_MIRROR", f"{web_server.url}/base/")
    assert fetch().read_text() == MESSAGES


def test_backup_address_is_asked_last(fetch, mirror, unverified, web_server):
    archive = write_zip(mirror / "other.zip", {"SMSSpamCollection": MESSAGES})
    web_server.files["/backup.zip"] = archive.read_bytes()
    assert fetch().read_text() == MESSAGES
    assert list(web_server.requests) == ["/uci.zip", "/backup.zip"]


def test_only_the_data_file_is_unpacked(fetch, mirror, unverified):
    write_zip(mirror / ARCHIVE_NAME, {"SMSSpamCollection": MESSAGES, "readme": "about"})
    assert names_in(fetch().parent) == ["SMSSpamCollection.tsv", "archive.zip"]


def test_fetching_says_what_it_did(fetch, mirror, unverified, capsys):
    write_zip(mirror / ARCHIVE_NAME, {"SMSSpamCollection": MESSAGES})
    path = fetch()
    assert capsys.readouterr().out == f"File downloaded and saved as {path}\n"


def test_fetching_twice_skips_the_second_time(fetch, mirror, unverified, capsys):
    write_zip(mirror / ARCHIVE_NAME, {"SMSSpamCollection": MESSAGES})
    fetch()
    capsys.readouterr()
    path = fetch()
    assert capsys.readouterr().out == f"{path} already exists. Skipping download and extraction.\n"


def test_archive_that_is_there_is_used(fetch, tmp_path, unverified, web_server, capsys):
    (tmp_path / "data").mkdir()
    archive = write_zip(tmp_path / "data" / "archive.zip", {"SMSSpamCollection": MESSAGES})
    path = fetch()
    assert path.read_text() == MESSAGES
    assert not web_server.requests
    assert capsys.readouterr().out == f"{archive} already exists. Its data file is saved as {path}\n"


def test_wrong_archive_that_is_there_is_replaced_by_the_right_one(fetch, mirror, tmp_path, unverified):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "archive.zip").write_bytes(b"cut")
    archive = write_zip(mirror / ARCHIVE_NAME, {"SMSSpamCollection": MESSAGES})
    assert fetch().read_text() == MESSAGES
    assert (tmp_path / "data" / "archive.zip").read_bytes() == archive.read_bytes()


def test_wrong_archive_that_is_there_survives_where_no_source_has_a_right_one(fetch, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "archive.zip").write_bytes(b"your own file")
    with pytest.raises(DownloadError):
        fetch()
    assert (tmp_path / "data" / "archive.zip").read_bytes() == b"your own file"


@pytest.mark.parametrize(
    "name", ["../evil", "folder/../../evil", "/etc/evil", "C:\\evil", "C:/evil", "..\\evil", "\\\\host\\evil"]
)
def test_archive_with_a_path_trick_is_refused(fetch, mirror, unverified, tmp_path, name):
    write_zip(mirror / ARCHIVE_NAME, {name: "evil", "SMSSpamCollection": MESSAGES})
    with pytest.raises(DownloadError, match="the archive has an unsafe file name"):
        fetch()
    assert names_in(tmp_path / "data") == []
    assert not list(tmp_path.rglob("*evil*"))


def test_archive_with_an_entry_for_its_own_folder_is_read(fetch, mirror, unverified):
    write_zip(mirror / ARCHIVE_NAME, {"./": "", "SMSSpamCollection": MESSAGES})
    assert fetch().read_text() == MESSAGES


def wrong_content(path):
    write_zip(path, {"SMSSpamCollection": MESSAGES})


def no_member(path):
    write_zip(path, {"readme": "about"})


def no_zip(path):
    path.write_bytes(b"<html>Not found</html>")


def cut_zip(path):
    wrong_content(path)
    path.write_bytes(path.read_bytes()[:-30])


def changed_zip(path):
    write_zip(path, {"SMSSpamCollection": "".join(f"ham\tmessage {i}\n" for i in range(1000))})
    content = bytearray(path.read_bytes())
    content[60:80] = bytes(20)  # within the compressed messages
    path.write_bytes(content)


def encrypted_zip(path):
    wrong_content(path)
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flags in the header of the member and in the list at the end
    content[content.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


BAD_ARCHIVES = {
    wrong_content: "SMSSpamCollection has SHA-256 .* expected 7d039a24",
    no_member: "the archive has no file 'SMSSpamCollection'",
    no_zip: "not a valid zip archive",
    cut_zip: "not a valid zip archive",
    changed_zip: "not a valid zip archive",
    encrypted_zip: "encrypted",
}


@pytest.mark.parametrize("write", BAD_ARCHIVES, ids=lambda write: write.__name__)
def test_bad_archive_is_refused_with_its_reason(fetch, mirror, write):
    write(mirror / ARCHIVE_NAME)
    with pytest.raises(DownloadError, match=BAD_ARCHIVES[write]):
        fetch()


@pytest.mark.parametrize("write", BAD_ARCHIVES, ids=lambda write: write.__name__)
def test_bad_archive_leaves_nothing_behind(fetch, mirror, tmp_path, write):
    write(mirror / ARCHIVE_NAME)
    with pytest.raises(Exception):  # noqa: B017 - which one is the fact of another test
        fetch()
    assert names_in(tmp_path / "data") == []


def test_error_lists_each_address_and_the_way_on(fetch, mirror, web_server):
    with pytest.raises(DownloadError) as error:
        fetch()
    for address in (mirror / ARCHIVE_NAME, f"{web_server.url}/uci.zip", f"{web_server.url}/backup.zip"):
        assert f"{address}\n" in str(error.value)
    assert "CHOOSE_DATA to 'sample'" in str(error.value)


def test_wrong_file_that_is_there_is_named(fetch, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "SMSSpamCollection.tsv").write_text(MESSAGES)
    with pytest.raises(ValueError, match="SMSSpamCollection.tsv is damaged or not the published file"):
        fetch()


def test_wrong_file_that_is_there_is_kept(fetch, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "SMSSpamCollection.tsv").write_text(MESSAGES)
    with pytest.raises(ValueError):
        fetch()
    assert (tmp_path / "data" / "SMSSpamCollection.tsv").read_text() == MESSAGES


@pytest.mark.parametrize("name", ["sample", "uci"])
def test_choice_of_the_messages_can_be_a_variable(monkeypatch, tmp_path, uci_stand_in, name):
    monkeypatch.setenv("CHOOSE_DATA", name)
    expected = {"sample": SAMPLE_FILE, "uci": tmp_path / "sms_spam_collection" / "SMSSpamCollection.tsv"}
    assert find_spam_file().absolute() == expected[name]


@pytest.fixture
def uci_stand_in(mirror, unverified, monkeypatch, tmp_path):
    """Three messages of our own in place of the UCI archive; the working folder is empty."""
    monkeypatch.chdir(tmp_path)
    write_zip(mirror / ARCHIVE_NAME, {"SMSSpamCollection": MESSAGES})


def test_uci_is_the_default_choice(uci_stand_in):
    assert find_spam_file().read_text() == MESSAGES


def test_damaged_uci_file_that_is_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sms_spam_collection").mkdir()
    (tmp_path / "sms_spam_collection" / "SMSSpamCollection.tsv").write_text(MESSAGES)
    with pytest.raises(ValueError, match="SMSSpamCollection.tsv is damaged or not the published file"):
        find_spam_file("uci")


def test_unknown_choice_is_named():
    with pytest.raises(ValueError, match="'mail'.*uci, sample"):
        find_spam_file("mail")


# ---------------------------------------------------------------------------------
# Balance and split
# ---------------------------------------------------------------------------------


@pytest.fixture
def unbalanced():
    labels = ["ham"] * 40 + ["spam"] * 10
    return pd.DataFrame({"Label": labels, "Text": [f"message {i}" for i in range(50)]})


def test_balanced_set_has_as_much_ham_as_spam(unbalanced):
    balanced = create_balanced_dataset(unbalanced)
    assert balanced["Label"].value_counts().to_dict() == {"ham": 10, "spam": 10}


def test_balanced_set_keeps_all_spam(unbalanced):
    balanced = create_balanced_dataset(unbalanced)
    assert balanced.index[10:].tolist() == list(range(40, 50))


def test_balancing_is_repeatable(unbalanced):
    assert create_balanced_dataset(unbalanced).equals(create_balanced_dataset(unbalanced))


def test_balancing_changes_nothing_in_the_original(unbalanced):
    before = unbalanced.copy()
    create_balanced_dataset(unbalanced)
    assert unbalanced.equals(before)


def test_split_has_the_shares_asked_for(unbalanced):
    assert [len(part) for part in random_split(unbalanced, 0.7, 0.1)] == [35, 5, 10]


def test_split_loses_no_row_and_repeats_none(unbalanced):
    parts = random_split(unbalanced, 0.7, 0.1)
    assert sorted(pd.concat(parts)["Text"]) == sorted(unbalanced["Text"])


def test_split_shuffles(unbalanced):
    assert random_split(unbalanced, 0.7, 0.1)[0]["Text"].tolist() != unbalanced["Text"][:35].tolist()


def test_split_is_repeatable(unbalanced):
    first, second = random_split(unbalanced, 0.7, 0.1), random_split(unbalanced, 0.7, 0.1)
    assert all(a.equals(b) for a, b in zip(first, second))


# ---------------------------------------------------------------------------------
# Token IDs
# ---------------------------------------------------------------------------------


def dataset_of(texts, tokenizer, **arguments):
    csv = pd.DataFrame({"Label": [0] * len(texts), "Text": texts}).to_csv(index=None)
    return SpamDataset(io.StringIO(csv), tokenizer, **arguments)


def test_item_is_the_padded_text_and_its_label(tokenizer):
    csv = io.StringIO("Label,Text\n1,Do you have time\n0,Do you have time for that\n")
    ids, label = SpamDataset(csv, tokenizer)[0]
    assert ids.tolist() == [5211, 345, 423, 640, PADDING, PADDING]
    assert label.item() == 1


def test_item_is_a_pair_of_int64_tensors(tokenizer):
    ids, label = dataset_of(["Do you have time"], tokenizer)[0]
    assert (ids.dtype, label.dtype, ids.shape, label.shape) == (torch.int64, torch.int64, (4,), ())


def test_common_length_is_that_of_the_longest_message(tokenizer):
    assert dataset_of(["Do you", "Do you have time"], tokenizer).max_length == 4


def test_longer_messages_are_cut(tokenizer):
    assert dataset_of(["Do you have time"], tokenizer, max_length=3).encoded_texts == [[5211, 345, 423]]


def test_shorter_messages_are_filled(tokenizer):
    dataset = dataset_of(["Do you"], tokenizer, max_length=4, pad_token_id=7)
    assert dataset.encoded_texts == [[5211, 345, 7, 7]]


def test_end_of_text_in_a_message_is_ordinary_text(tokenizer):
    (ids,) = dataset_of(["a<|endoftext|>"], tokenizer).encoded_texts
    assert PADDING not in ids
    assert tokenizer.decode(ids) == "a<|endoftext|>"


@pytest.mark.parametrize("text", ["NA", "null", "nan", "123", "True", "007"])
def test_message_that_looks_like_a_value_is_a_text(tokenizer, text):
    (ids,) = dataset_of([text], tokenizer).encoded_texts
    assert tokenizer.decode(ids) == text


def test_empty_message_is_all_padding(tokenizer):
    assert dataset_of(["", "Do you"], tokenizer).encoded_texts[0] == [PADDING, PADDING]


def test_file_without_rows_is_refused(tokenizer):
    with pytest.raises(ValueError, match="has no rows"):
        SpamDataset(io.StringIO("Label,Text\n"), tokenizer)


def test_dataset_reads_a_file_by_its_path(tokenizer, tmp_path):
    (tmp_path / "train.csv").write_text("Label,Text\n0,Do you\n1,have time\n")
    assert len(SpamDataset(tmp_path / "train.csv", tokenizer)) == 2


# ---------------------------------------------------------------------------------
# Loaders
# ---------------------------------------------------------------------------------


def write_messages(path, num_ham, num_spam):
    ham = [f"ham\tsee you at {i}\n" for i in range(num_ham)]
    spam = [f"spam\twin prize {i} now\n" for i in range(num_spam)]
    path.write_text("".join(ham + spam))
    return path


@pytest.fixture
def loaders(tokenizer, tmp_path):
    # 30 + 30 balanced messages: 42 for training, 6 for validation, 12 for testing
    return create_spam_loaders(tokenizer, write_messages(tmp_path / "messages.tsv", 50, 30))


def test_loaders_have_the_walk_throughs_batches(loaders):
    assert [len(loader) for loader in loaders] == [5, 1, 2]


def test_training_loader_drops_its_last_incomplete_batch(loaders):
    assert [len(labels) for _, labels in loaders[0]] == [8, 8, 8, 8, 8]


def test_test_loader_keeps_its_last_incomplete_batch(loaders):
    assert [len(labels) for _, labels in loaders[2]] == [8, 4]


def test_batch_size_can_be_chosen(tokenizer, tmp_path):
    path = write_messages(tmp_path / "messages.tsv", 50, 30)
    assert [len(loader) for loader in create_spam_loaders(tokenizer, path, batch_size=5)] == [8, 2, 3]


def test_all_sets_have_the_length_of_the_training_set(loaders):
    length = loaders[0].dataset.max_length
    assert {ids.shape[1] for loader in loaders for ids, _ in loader} == {length}


def test_spam_is_labelled_1_and_ham_0(loaders):
    for loader in loaders:
        data = loader.dataset.data
        assert (data["Label"] == data["Text"].str.startswith("win")).all()


def test_training_loader_shuffles(loaders):
    first, second = ([labels.tolist() for _, labels in loaders[0]] for _ in range(2))
    assert first != second


def test_test_loader_keeps_its_order(loaders):
    labels = torch.cat([labels for _, labels in loaders[2]])
    assert labels.tolist() == loaders[2].dataset.data["Label"].tolist()


def test_new_loaders_give_the_same_batches_again(tokenizer, tmp_path):
    path = write_messages(tmp_path / "messages.tsv", 50, 30)
    first, second = (torch.cat([ids for ids, _ in create_spam_loaders(tokenizer, path)[0]]) for _ in range(2))
    assert torch.equal(first, second)


def test_loaders_leave_no_file(tokenizer, tmp_path, monkeypatch):
    path = write_messages(tmp_path / "messages.tsv", 50, 30)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    create_spam_loaders(tokenizer, path)
    assert names_in(tmp_path / "empty") == []


def test_message_na_reaches_the_loaders(tokenizer, tmp_path):
    path = write_messages(tmp_path / "messages.tsv", 0, 30)
    path.write_text("ham\tNA\n" * 30 + path.read_text())
    texts = [text for loader in create_spam_loaders(tokenizer, path) for text in loader.dataset.data["Text"]]
    assert texts.count("NA") == 30


def test_loaders_of_the_sample_have_its_length(sample_loaders, sample_texts, tokenizer):
    assert sample_loaders[0].dataset.max_length <= max(len(tokenizer.encode(text)) for text in sample_texts)


def test_loaders_of_the_sample_share_no_message(sample_loaders):
    texts = [set(loader.dataset.data["Text"]) for loader in sample_loaders]
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(texts, 2))
