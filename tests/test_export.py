"""export.py, reading.py: other programs read the exported classifiers and give the same logits."""

import json
import sys

import numpy as np
import pytest
import torch

import export
from classification import END_OF_TEXT, add_classification_head
from edition import PAD_TOKEN_ID
from own_training import build_own_classifier
from previous_chapters import GPTModel
from reading import EndOfTextClassifier, Reader, encode_texts, filled

CPU = torch.device("cpu")
TEXTS = (
    "See you at eight",
    "",
    "one",
    " two  spaces, a\ttab\nand lines\r\n",
    "Grüße, 好 😀 <|endoftext|> and <|pad|>",
    "a text of far more than sixteen tokens, which is why it is cut here and there alike, in the middle",
)


@pytest.fixture(scope="module")
def classifier():
    """A classifier of own texts with three classes, and its settings."""
    torch.manual_seed(1)
    config = {"vocab_size": 50257, "context_length": 16, "emb_dim": 8, "n_heads": 2, "n_layers": 3}
    model = GPTModel({**config, "drop_rate": 0.0, "qkv_bias": True})
    add_classification_head(model, num_classes=3)
    torch.nn.init.zeros_(model.out_head.bias)
    settings = {"model": "tiny", "data": "my.csv", "max_length": 16, "threshold": 0.5, "reads": END_OF_TEXT}
    return model.eval(), settings | {"class_names": ["politics", "sports & games", "好"]}


@pytest.fixture(scope="module")
def expected(classifier):
    return Reader(*classifier, CPU).logits(TEXTS).numpy()


# ---------------------------------------------------------------------------------
# Where it is read
# ---------------------------------------------------------------------------------


def test_reader_reads_behind_the_text(classifier, expected):
    model, _ = classifier
    for text, logits in zip(TEXTS, expected):
        (ids,) = encode_texts([text], 16)
        assert ids[-1] == PAD_TOKEN_ID and len(ids) <= 16 and ids.count(PAD_TOKEN_ID) == 1
        alone = model(torch.tensor([ids]))[0, -1].detach().numpy()
        np.testing.assert_allclose(logits, alone, atol=1e-5)


@pytest.mark.parametrize("layers", ["head", "last-block", "last-two", "all"])
def test_training_reads_the_same_position(tiny_pretrained, layers):
    model = build_own_classifier("tiny", 3, layers)
    ids, end = filled(encode_texts(TEXTS, 16), CPU)
    expected = model(ids)[torch.arange(len(ids)), end]
    network = EndOfTextClassifier(model)
    torch.testing.assert_close(network(ids, end), expected)
    network(ids, end).sum().backward()
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    blocks = {name for name, p in model.trf_blocks.named_parameters() if p.grad is not None}
    expected = {"head": set(), "last-block": {"2"}, "last-two": {"1", "2"}, "all": {"0", "1", "2"}}[layers]
    assert {name.split(".")[0] for name in blocks} == expected
    assert ("tok_emb" in trained) == (layers == "all") and "out_head" in trained


# ---------------------------------------------------------------------------------
# Transformers
# ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(classifier, tmp_path_factory):
    """The classifier for Transformers."""
    folder = tmp_path_factory.mktemp("transformers")
    difference = export.to_hugging_face(folder, *classifier)
    assert difference < 1e-4
    return folder


@pytest.fixture(scope="module")
def classify(folder):
    """What a user of Transformers opens the folder with."""
    from transformers import pipeline

    return pipeline("text-classification", model=str(folder), device="cpu")


def logits_of(classify, texts, names, **options):
    answers = classify(list(texts), top_k=None, function_to_apply="none", **options)
    return np.array(
        [[next(a["score"] for a in row if a["label"] == name) for name in names] for row in answers]
    )


@pytest.mark.parametrize("batch_size", [1, 2, len(TEXTS)])
def test_pipeline_gives_the_same_logits(classify, classifier, expected, batch_size):
    names = classifier[1]["class_names"]
    logits = logits_of(classify, TEXTS, names, truncation=True, batch_size=batch_size)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    defaults = logits_of(classify, TEXTS[:4], names, batch_size=batch_size)  # not cut: short enough
    np.testing.assert_allclose(defaults, expected[:4], atol=1e-4)


def test_pipeline_without_truncation_refuses_a_long_text(classify, classifier):
    with pytest.raises(IndexError):
        logits_of(classify, TEXTS[-1:], classifier[1]["class_names"])


def test_pipeline_names_the_classes(classify, classifier, expected):
    answers, names = classify(list(TEXTS), truncation=True), classifier[1]["class_names"]
    assert [answer["label"] for answer in answers] == [names[i] for i in expected.argmax(axis=1)]


def test_tokenizer_gives_the_tokens_of_the_book(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(list(TEXTS), truncation=True)["input_ids"]
    assert encoded == encode_texts(TEXTS, 16)


def test_model_card_has_data_metrics_and_limits(classifier, folder):
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "Not measured" in card and "sports &amp; games" in card and "## Limits" in card
    scores = {"precision": 0.5, "recall": 0.25, "f1": 0.333}
    classes = [{"name": name, **scores} for name in classifier[1]["class_names"]]
    test = {"texts": 40, "accuracy": 0.75, "interval": [0.6, 0.86], "macro_f1": 0.7}
    facts = {
        "test": {**test, "calibration_error": 0.05, "classes": classes},
        "classes": {"politics": 12},
        "baselines": {"TF-IDF": 0.7},
        "checks": [("rows", "99", "")],
        "imbalance": "kept as it is",
        "layers": "head",
    }
    card = export.model_card(classifier[1] | {"training": facts})
    assert "| politics | 12 | 0.500 | 0.250 | 0.333 |" in card and "75.00%" in card
    assert "TF-IDF: 70.00%" in card and "| rows | 99 |" in card and "trained: head" in card


def test_classifier_that_reads_filling_goes_to_onnx_only(classifier, tmp_path):
    model, settings = classifier
    settings = {key: value for key, value in settings.items() if key != "reads"}
    with pytest.raises(ValueError, match="reads the last of 16 positions.*--data FILE.*--to onnx"):
        export.to_hugging_face(tmp_path, model, settings)


def test_difference_is_an_error(classifier, tmp_path, monkeypatch):
    weights = export.hugging_face_weights

    def wrong(*args):
        return {name: value * 1.01 for name, value in weights(*args).items()}

    monkeypatch.setattr(export, "hugging_face_weights", wrong)
    with pytest.raises(ValueError, match="logits in Transformers differ by"):
        export.to_hugging_face(tmp_path, *classifier)


@pytest.mark.parametrize("to, package", [("to_hugging_face", "transformers"), ("to_onnx", "onnxscript")])
def test_missing_package_is_named(classifier, tmp_path, monkeypatch, to, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"needs .*{package}.*pip install -c constraints.txt .*{package}"):
        getattr(export, to)(tmp_path, *classifier)


CLASSIFY = """
import sys, text_classifier
sys.argv[1:] = ["classify", "hello"]
text_classifier.main()
unneeded = "transformers", "onnx", "sklearn", "scipy", "pandas", "requests", "torch._dynamo"
print(set(unneeded) & sys.modules.keys())
"""


def test_classify_imports_nothing_that_it_does_not_need(run_python, embedded_load, tmp_path):
    """Each of these would take its time at every start, the compiler of PyTorch more than all others."""
    (tmp_path / "gpt2").symlink_to(embedded_load.models_dir)  # as after a first start
    assert run_python("-c", CLASSIFY).stdout.splitlines()[-1] == "set()"


# ---------------------------------------------------------------------------------
# ONNX Runtime
# ---------------------------------------------------------------------------------


def test_onnx_runtime_gives_the_same_logits(classifier, expected, tmp_path):
    assert export.to_onnx(tmp_path, *classifier, int8=True) < 1e-4
    reader = export.OnnxReader(tmp_path)
    np.testing.assert_allclose(reader.logits(TEXTS), expected, atol=1e-4)
    alone = np.concatenate([reader.logits([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, expected, atol=1e-4)
    assert json.loads((tmp_path / "labels.json").read_text("utf-8")) == classifier[1]["class_names"]
    small = export.OnnxReader(tmp_path, "model_int8.onnx").logits(TEXTS)
    assert small.shape == expected.shape and np.abs(small - expected).max() < 0.5
    sizes = [(tmp_path / name).stat().st_size for name in ("model_int8.onnx", "model.onnx")]
    assert sizes[0] < 0.5 * sizes[1]


def test_classifier_of_the_last_position_goes_to_onnx(model, tmp_path):
    """A spam classifier as notebook 08 makes it: filled to its length, read at the end."""
    add_classification_head(model)
    settings = {"max_length": 12, "class_names": ["not spam", "spam"], "threshold": 0.5}
    assert export.to_onnx(tmp_path, model, settings) < 1e-4
    expected = Reader(model, settings, CPU).logits(TEXTS).numpy()
    np.testing.assert_allclose(export.OnnxReader(tmp_path).logits(TEXTS), expected, atol=1e-4)
