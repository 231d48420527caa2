"""What fine-tuning has to beat: that each baseline does what it says."""

import numpy as np
import pytest
import torch

import baselines
from baselines import run_frozen_states, run_majority, run_tf_idf, run_zero_shot, spam_margin
from previous_chapters import GPTModel

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
def test_frozen_states_are_read_and_not_trained(embedded_load, values, monkeypatch):
    monkeypatch.chdir(embedded_load.models_dir.parent)
    states = []
    for seed in (1, 1, 2):
        choice, z = run_frozen_states(SETS, values, seed, EMBEDDED, CPU)
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


def test_calibrated_prompt_is_measured_from_a_message_that_says_nothing(embedded_load, monkeypatch):
    monkeypatch.chdir(embedded_load.models_dir.parent)
    sets = {"test": (["win", baselines.CONTENT_FREE], [1, 0])}
    (_, plain), (choice, calibrated) = (run_zero_shot(sets, c, EMBEDDED, CPU) for c in (False, True))
    assert np.allclose(plain["test"] - choice["threshold"], calibrated["test"])
    assert calibrated["test"][1] == pytest.approx(0, abs=1e-5)
