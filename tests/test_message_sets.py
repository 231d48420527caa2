"""Which messages a row learns from and answers: loaders, sets, disguises."""

import hashlib

import pytest
import torch

import message_sets
import spam_data
from downloads import DownloadError
from edition import PAD_TOKEN_ID
from message_sets import (
    choose_subset,
    create_loaders,
    disguise,
    loader_of_texts,
    pad,
    read_disguised,
    read_left_over_ham,
    read_other_sets,
    read_sets,
)
from spam_data import SAMPLE_FILE

LEFT_OVER_UCI = "c56a8b1c7a290fe6"  # begin of the SHA-256 of the texts
IDS = torch.tensor([[5, 6, 7, 8, PAD_TOKEN_ID, PAD_TOKEN_ID], [PAD_TOKEN_ID] * 6])

# ---------------------------------------------------------------------------------
# Loaders
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "padding, expected",
    [
        ("longest message", IDS[0].tolist()),
        ("none", [5, 6, 7, 8]),
        ("full context", [5, 6, 7, 8] + 6 * [PAD_TOKEN_ID]),
    ],
)
def test_message_is_padded(padding, expected):
    assert pad(IDS[0], padding, context_length=10).tolist() == expected


def test_empty_message_without_padding_is_one_token():
    assert pad(IDS[1], "none", 10).tolist() == [PAD_TOKEN_ID]


def test_loaders_give_the_batches_of_notebook_01(tokenizer, sample_loaders):
    for ours, theirs in zip(create_loaders(SAMPLE_FILE), sample_loaders):
        for loader in (ours, theirs):
            torch.manual_seed(5)
            loader.batches = [(ids.tolist(), labels.tolist()) for ids, labels in loader]
        assert ours.batches == theirs.batches


def test_subset_is_part_of_the_larger_ones_and_of_no_other_seed():
    small, large, other = choose_subset(1000, 32, 0), choose_subset(1000, 64, 0), choose_subset(1000, 32, 1)
    assert small == large[:32] and len(set(large)) == 64
    assert set(small) != set(other)


def test_row_learns_from_a_part_of_the_training_messages(sample_loaders):
    loaders = create_loaders(SAMPLE_FILE, subset=(32, 0))
    whole = [loader.dataset for loader in sample_loaders]
    assert [len(loader.dataset) for loader in loaders] == [32, len(whole[1]), len(whole[2])]
    for (ids, label), i in zip(loaders[0].dataset, choose_subset(len(whole[0]), 32, 0)):
        assert torch.equal(ids, whole[0][i][0]) and label == whole[0][i][1]


def test_other_texts_are_cut_and_padded_as_the_training_messages(tokenizer, sample_loaders):
    training, _, test = (loader.dataset for loader in sample_loaders)
    texts, labels = test.data["Text"].tolist(), test.data["Label"].tolist()
    for (ids, _), (expected, _) in zip(loader_of_texts(texts, labels, sample_loaders[0]).dataset, test):
        assert torch.equal(ids, expected)
    (long, _), (empty, _) = loader_of_texts(["word " * 500, ""], [0, 0], sample_loaders[0]).dataset
    assert long.shape == empty.shape == (training.max_length,)
    assert set(empty.tolist()) == {PAD_TOKEN_ID}
    (short, _), (empty, _) = loader_of_texts(["ok", ""], [0, 0], sample_loaders[0], padding="none").dataset
    assert short.tolist() == tokenizer.encode("ok") and empty.tolist() == [PAD_TOKEN_ID]


# ---------------------------------------------------------------------------------
# Sets of messages
# ---------------------------------------------------------------------------------


def test_left_over_ham_is_what_the_balanced_sets_lack(uci_file):
    texts, labels = read_left_over_ham(uci_file)
    assert len(texts) == 4825 - 747 and set(labels) == {0}
    in_sets = sum(len(labels) for _, labels in read_sets(uci_file).values())
    assert in_sets + len(texts) == 5572
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    assert digest.startswith(LEFT_OVER_UCI)  # a fixed list


def test_other_sets_are_of_the_other_collection_and_of_no_training_message(monkeypatch, tmp_path):
    other = tmp_path / "other.tsv"
    other.write_text("ham\tNA\nspam\twin\nham\tsee you\n")
    files = {"sample": SAMPLE_FILE, "uci": other}
    monkeypatch.setattr(message_sets, "find_spam_file", files.__getitem__)
    monkeypatch.setattr(message_sets, "DISGUISED_FILE", tmp_path / "none.tsv")
    sets = read_other_sets("sample")
    assert sets["other collection"] == (["NA", "win", "see you"], [0, 1, 0])
    test_texts, test_labels = read_sets(SAMPLE_FILE)["test"]
    for variant in ("look-alikes", "spaces"):
        assert sets[variant][1] == [1] * sum(test_labels)
    seen = {text for texts, _ in read_sets(SAMPLE_FILE).values() for text in texts}
    assert seen.isdisjoint(sets["left-over ham"][0])


def test_other_collection_that_cannot_be_fetched_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(spam_data, "UCI_FOLDER", tmp_path)
    monkeypatch.setattr(spam_data, "UCI_URL", str(tmp_path / "none.zip"))
    monkeypatch.setattr(spam_data, "BACKUP_URL", str(tmp_path / "none.zip"))
    with pytest.raises(DownloadError, match="none.zip") as error:
        read_other_sets("sample")
    assert "choose another row, such as head-only" in str(error.value)
    assert "use the sample" not in str(error.value)


def test_disguise_is_the_same_each_time_and_leaves_the_rest():
    text = "URGENT! Claim your free prize: call 09061701461 now"
    spaced = disguise(text, "spaces")
    assert spaced == disguise(text, "spaces") != text
    assert spaced.replace(" ", "").replace(".", "") == text.replace(" ", "")
    alike = disguise(text, "look-alikes")
    assert alike == disguise(text, "look-alikes") != text
    assert len(alike) == len(text) and "09061701461" in alike
    changed = [(old, new) for old, new in zip(text, alike) if old != new]
    assert all(new in message_sets.LOOK_ALIKES[old.lower()] for old, new in changed)


@pytest.mark.parametrize(
    "content, words",
    [
        ("index\ttext\n0\thi\n", "columns"),
        ("index\tvariant\ttext\n7\tpolite\thi\n", "index is not between 0 and 6"),
    ],
)
def test_file_of_disguises_is_checked(tmp_path, content, words):
    (tmp_path / "disguised.tsv").write_text(content)
    with pytest.raises(ValueError, match=f"disguised.tsv.*{words}"):
        read_disguised(7, tmp_path / "disguised.tsv")


def test_hand_written_disguises_are_read_as_they_are(tmp_path):
    (tmp_path / "disguised.tsv").write_text('index\tvariant\ttext\n1\tpolite\t"Dear" you\n0\tpolite\tNA\n')
    assert read_disguised(2, tmp_path / "disguised.tsv") == {"polite": ['"Dear" you', "NA"]}
    assert read_disguised(2, tmp_path / "none.tsv") == {}
