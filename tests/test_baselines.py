"""The baselines, the sets of messages, and the disguises."""

import hashlib

import numpy as np
import pytest
import torch

import baselines
import message_sets
from baselines import run_frozen_states, run_majority, run_tf_idf, run_zero_shot, spam_margin
from message_sets import disguise, read_disguised, read_left_over_ham, read_other_sets, read_sets
from previous_chapters import GPTModel
from spam_data import SAMPLE_FILE

LEFT_OVER_UCI = "c56a8b1c7a290fe6"  # begin of the SHA-256 of the texts
CPU = torch.device("cpu")
EMBEDDED = "gpt2-mini (10M)"
SETS = {
    "training": (
        10 * ["win a prize", "win money now", "see you soon", "lunch at one", "see you"],
        10 * [1, 1, 0, 0, 0],
    ),
    "validation": (["win money", "see you at lunch"], [1, 0]),
    "test": (["a prize", "money", "soon", "win"], [1, 1, 0, 1]),
}


def accuracies(z):
    return {name: np.mean((z[name] > 0) == np.array(labels)) for name, (_, labels) in SETS.items()}


def test_majority_class_is_that_of_the_training_set():
    _, z = run_majority(SETS)
    assert accuracies(z) == {"training": 0.6, "validation": 0.5, "test": 0.25}
    assert z["test"][0] == pytest.approx(np.log(0.4 / 0.6))
    one_class = {**SETS, "training": (["a"], [1])}
    assert (run_majority(one_class)[1]["test"] > 0).all()


def test_tf_idf_learns_words():
    choice, z = run_tf_idf(SETS)
    assert (accuracies(z)["training"], accuracies(z)["validation"]) == (1, 1)
    words = {word for text in SETS["training"][0] for word in text.split() if len(word) > 1}
    assert choice["trainable_parameters"] == len(words) + 1


def test_strong_tf_idf_knows_a_word_by_its_letters():
    sets = {**SETS, "test": (["prizes", "lunchtime"], [1, 0])}  # neither word was seen
    choice, z = run_tf_idf(sets, strong=True)
    assert (z["test"] > 0).tolist() == [True, False]
    assert choice["features"] in ("words and char", "words and char_wb")
    _, z = run_tf_idf(sets)
    assert z["test"][0] == z["test"][1]  # single words say nothing about either


def test_choice_is_made_on_the_validation_set():
    """What separates the training messages does not hold on validation: the other kind of features wins."""
    labels = np.arange(20) % 2
    memorised = {"training": np.eye(20), "validation": np.zeros((20, 20))}
    general = {name: labels[:, None] + 0.1 * np.arange(20)[:, None] % 0.3 for name in memorised}
    sets = {name: ([""] * 20, labels.tolist()) for name in memorised}
    choice, _ = baselines.choose_regression({"memorised": memorised, "general": general}, sets)
    assert choice["features"] == "general"


@pytest.mark.parametrize("values", ["pretrained", "random"])
def test_frozen_states_are_read_and_not_trained(embedded_load, values):
    states = []
    for seed in (1, 1, 2):
        choice, z = run_frozen_states(SETS, values, seed, EMBEDDED, CPU, embedded_load.models_dir)
        states.append(z["test"])
    assert choice["trainable_parameters"] == 161
    assert np.allclose(states[0], states[1])
    assert np.allclose(states[0], states[2]) == (values == "pretrained")
    assert accuracies(z)["training"] > 0.6


def test_margin_is_the_difference_of_two_log_probabilities(tokenizer):
    torch.manual_seed(1)
    config = dict(
        vocab_size=50257, context_length=64, emb_dim=8, n_heads=2, n_layers=3, drop_rate=0.0, qkv_bias=True
    )
    model = GPTModel(config).eval()
    ids = torch.tensor([tokenizer.encode(baselines.PROMPT.format(text="win"))])
    with torch.no_grad():
        log_probabilities = torch.log_softmax(model(ids)[0, -1], dim=-1)
    expected = log_probabilities[18084] - log_probabilities[8891]  # " spam", " ham"
    assert spam_margin("win", model, CPU) == pytest.approx(expected.item(), abs=1e-5)


def test_calibrated_prompt_is_measured_from_a_message_that_says_nothing(embedded_load):
    sets = {"test": (["win", baselines.CONTENT_FREE], [1, 0])}
    arguments = (EMBEDDED, CPU, embedded_load.models_dir)
    (_, plain), (choice, calibrated) = (run_zero_shot(sets, c, *arguments) for c in (False, True))
    assert np.allclose(plain["test"] - choice["threshold"], calibrated["test"])
    assert calibrated["test"][1] == pytest.approx(0, abs=1e-5)


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
