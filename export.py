"""Hand a classifier on: a folder that Transformers opens, or one for ONNX Runtime.

Where they read. A classifier of your own texts reads the first ``<|endoftext|>``, one token behind the text
(``reading.py``). The exported tokenizer appends that token to each text, and fills the shorter texts of a
batch with a token of its own, ``<|pad|>``. ``GPT2ForSequenceClassification`` reads the last token that is
no ``<|pad|>``: the same position, for a text alone and in any batch, with the defaults of a pipeline. In
ONNX the search for the first ``<|endoftext|>`` is part of the model, so any filling behind it is right.

A spam classifier of notebook 08 reads the last of a fixed number of positions, filling included. Nothing
in Transformers does that unless each call asks for it, so it goes to ONNX only.

Transformers' head has no bias; that of ``own_training.py`` stays 0. Nothing here needs a network. The
packages are imported when they are needed, and named where they are missing.
"""

import html
import importlib
import json
import logging
import os
import warnings

import numpy as np
import torch
import torch.nn as nn
from tqdm import tqdm

from classification import END_OF_TEXT
from edition import ASSETS, EMBEDDED, PAD_TOKEN_ID
from fast_paths import logits_at
from reading import Reader

TOLERANCE = 1e-4  # between our logits and theirs
PROBES = (  # texts that are read here and there: short, long, empty, and what a tokenizer may treat otherwise
    "See you at eight",
    "Prices rise again as the harvest fails in the north " * 4,
    "",
    "Grüße, 好 😀!  two spaces\tand a tab\n",
    "<|endoftext|> <|pad|> are words here",
)


def needed(*names):
    """Import packages, or say how to install them."""
    try:
        return [importlib.import_module(name) for name in names]
    except ImportError as error:
        packages = " ".join(name.split(".")[0] for name in names)
        raise ValueError(
            f"This export needs {packages} ({error}): .venv/bin/pip install -c constraints.txt {packages}"
        ) from error


def make_tokenizer(tokenizers, at_end):
    """GPT-2's tokenizer for the library tokenizers; ``<|endoftext|>`` in a text is text, as in the book."""
    folder = ASSETS / EMBEDDED.size
    model = tokenizers.models.BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe"))
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    if at_end:
        end = "<|endoftext|>"
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"$A {end}", special_tokens=[(end, PAD_TOKEN_ID)]
        )
    return tokenizer


def require_agreement(logits, model, settings, where):
    """The largest difference to our logits, of the probes alone, then in a batch; ``ValueError`` if large."""
    expected = Reader(model, settings, torch.device("cpu")).logits(PROBES).numpy()
    difference = float(np.abs(logits - np.concatenate([expected, expected])).max())
    if not difference <= TOLERANCE:
        raise ValueError(f"The logits in {where} differ by {difference:.1e}, more than {TOLERANCE}.")
    return difference


# ---------------------------------------------------------------------------------
# Transformers
# ---------------------------------------------------------------------------------


def hugging_face_weights(model, max_length):
    """The parameters of a classifier by the names of ``GPT2ForSequenceClassification``: {name: tensor}.

    Its linear layers hold their weights as (in, out). The embedding gets a row for ``<|pad|>``, and the
    positions end with ``max_length``: a text that was not cut is refused, not read otherwise.
    """
    pad = torch.zeros(1, model.tok_emb.embedding_dim)
    weights = {
        "transformer.wte.weight": torch.cat([model.tok_emb.weight, pad]),
        "transformer.wpe.weight": model.pos_emb.weight[:max_length],
        "transformer.ln_f.weight": model.final_norm.scale,
        "transformer.ln_f.bias": model.final_norm.shift,
        "score.weight": model.out_head.weight,
    }
    for i, block in enumerate(model.trf_blocks):
        attention, (first, _, second) = block.att, block.ff.layers
        threefold = (attention.W_query, attention.W_key, attention.W_value)
        layers = {
            "ln_1": (block.norm1.scale, block.norm1.shift),
            "attn.c_attn": (
                torch.cat([layer.weight.T for layer in threefold], dim=1),  # 3 x (in, out) -> (in, 3 out)
                torch.cat([layer.bias for layer in threefold]),
            ),
            "attn.c_proj": (attention.out_proj.weight.T, attention.out_proj.bias),
            "ln_2": (block.norm2.scale, block.norm2.shift),
            "mlp.c_fc": (first.weight.T, first.bias),
            "mlp.c_proj": (second.weight.T, second.bias),
        }
        for name, (weight, bias) in layers.items():
            weights[f"transformer.h.{i}.{name}.weight"] = weight
            weights[f"transformer.h.{i}.{name}.bias"] = bias
    return {name: value.detach().contiguous() for name, value in weights.items()}


def to_hugging_face(folder, model, settings):
    """Write what ``transformers.pipeline("text-classification", model=FOLDER)`` opens; compare the logits.

    The model must be on the CPU.

    Returns:
        float: the largest difference of the logits, texts alone and in a batch.

    Raises:
        ValueError: if a package is missing, the classifier reads another position, or the logits differ.
    """
    if settings.get("reads") != END_OF_TEXT or model.out_head.bias.any():
        raise ValueError(
            f"This classifier reads the last of {settings['max_length']} positions, filling included, which "
            "Transformers does not. Fine-tune on a file of your own (finetune --data FILE): such classifiers "
            "read the end of the text. Or export this one with --to onnx."
        )
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers, tokenizers = needed("transformers", "tokenizers")
    transformers.utils.logging.disable_progress_bar()
    names, max_length = settings["class_names"], settings["max_length"]
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer(tokenizers, at_end=True),
        pad_token="<|pad|>",  # becomes token 50257
        split_special_tokens=True,  # in a text, "<|pad|>" is text
        model_max_length=max_length,
        padding_side="right",
    )
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=max_length,
        n_embd=model.tok_emb.embedding_dim,
        n_layer=len(model.trf_blocks),
        n_head=model.trf_blocks[0].att.num_heads,
        bos_token_id=PAD_TOKEN_ID,
        eos_token_id=PAD_TOKEN_ID,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        problem_type="single_label_classification",
    )
    theirs = transformers.GPT2ForSequenceClassification(config)
    theirs.load_state_dict(hugging_face_weights(model, max_length))
    theirs.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(model_card(settings), encoding="utf-8")

    pipeline = transformers.pipeline("text-classification", model=str(folder), device="cpu")
    options = {"truncation": True, "top_k": None, "function_to_apply": "none"}
    alone = [pipeline([text], **options)[0] for text in PROBES]
    together = pipeline(list(PROBES), batch_size=len(PROBES), **options)
    scores = [{answer["label"]: answer["score"] for answer in text} for text in alone + together]
    logits = np.array([[row[name] for name in names] for row in scores])
    return require_agreement(logits, model, settings, "Transformers")


# ---------------------------------------------------------------------------------
# ONNX Runtime
# ---------------------------------------------------------------------------------


class ExportedClassifier(nn.Module):
    """Token IDs (B, T) -> logits (B, K), read at the first ``<|endoftext|>`` or at the last position."""

    def __init__(self, model, at_end):
        super().__init__()
        self.model, self.at_end = model, at_end

    def forward(self, input_ids):
        if self.at_end:
            position = (input_ids == PAD_TOKEN_ID).int().argmax(dim=1)  # (B,)
        else:
            position = torch.full_like(input_ids[:, 0], input_ids.shape[1] - 1)
        return logits_at(self.model, input_ids, position)


def to_onnx(folder, model, settings, int8=False):
    """Write ``model.onnx``, ``tokenizer.json``, ``labels.json`` for ONNX Runtime; compare the logits.

    The model must be on the CPU. The tokenizer cuts and fills as the model needs it. With ``int8`` also
    ``model_int8.onnx``, with weights of 8 bits. Returns the largest difference of the logits of
    ``model.onnx``; ``ValueError`` if it is large.
    """
    *_, tokenizers = needed("onnx", "onnxscript", "onnxruntime", "tokenizers")
    at_end, max_length = settings.get("reads") == END_OF_TEXT, settings["max_length"]
    exported = ExportedClassifier(model, at_end).eval()
    example = torch.full((2, max_length if not at_end else min(4, max_length)), PAD_TOKEN_ID)
    shapes = {0: torch.export.Dim.AUTO}
    if at_end:
        shapes[1] = torch.export.Dim.AUTO
    quiet = logging.getLogger("torch.onnx"), logging.getLogger("onnxscript"), logging.getLogger("onnx_ir")
    for logger in quiet:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            exported,
            (example,),
            str(folder / "model.onnx"),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["input_ids"],
            output_names=["logits"],
            dynamic_shapes=(shapes,),
        )
    tokenizer = make_tokenizer(tokenizers, at_end)
    tokenizer.enable_truncation(max_length)
    tokenizer.enable_padding(
        pad_id=PAD_TOKEN_ID, pad_token="<|endoftext|>", length=None if at_end else max_length
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "labels.json").write_text(json.dumps(settings["class_names"], ensure_ascii=False), "utf-8")
    if int8:
        quantize(folder)
    reader = OnnxReader(folder)
    logits = np.concatenate([*(reader.logits([text]) for text in PROBES), reader.logits(PROBES)])
    return require_agreement(logits, model, settings, "ONNX Runtime")


def quantize(folder):
    """Write ``model_int8.onnx``: the matrices of ``model.onnx`` in 8 bits; sums stay in float32."""
    (quantization,) = needed("onnxruntime.quantization")
    logging.getLogger().setLevel(logging.ERROR)  # it advises on the root logger
    quantization.quantize_dynamic(folder / "model.onnx", folder / "model_int8.onnx")


class OnnxReader:
    """An exported folder in ONNX Runtime: what a program at work needs to do, too."""

    def __init__(self, folder, file_name="model.onnx"):
        onnxruntime, tokenizers = needed("onnxruntime", "tokenizers")
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.session = onnxruntime.InferenceSession(folder / file_name, providers=["CPUExecutionProvider"])

    def logits(self, texts):
        """Logits of a batch of N texts: float32, (N, K)."""
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        return self.session.run(["logits"], {"input_ids": np.array(ids, dtype=np.int64)})[0]

    def probabilities(self, texts, description=None):
        """Probabilities of N texts: float32, (N, K)."""
        starts = tqdm(range(0, len(texts), 32), description, unit=" batches", leave=False, disable=None)
        logits = [torch.from_numpy(self.logits(texts[start : start + 32])) for start in starts]
        return torch.softmax(torch.cat(logits), dim=-1)


# ---------------------------------------------------------------------------------
# Model card
# ---------------------------------------------------------------------------------


CARD = """---
library_name: transformers
pipeline_tag: text-classification
---

# {num_classes} classes, from {data}

GPT-2 ({model}), fine-tuned into a text classifier ({layers}).

```python
from transformers import pipeline

classify = pipeline("text-classification", model="FOLDER")
classify(["a text", "another one"], truncation=True)
```

`truncation=True` cuts what is longer than {max_length} tokens; without it such a text is an error.

## Classes

| class | training texts | precision | recall | F1 |
|---|---:|---:|---:|---:|
{classes}

## Measured

{measured}

## Data

{checks}

Classes of unequal size: {imbalance}.

## Limits

- It knows the classes above and gives every text one of them, also a text that belongs to none.
- It was measured on texts from the same table. Other sources, times and languages can be harder.
- It reads {max_length} tokens and nothing behind them.
- A probability is what the model says, not how often it is right; the distance above tells the difference.
"""


def model_card(settings):
    """The README of a folder for Transformers: use, data, metrics, limits."""
    facts = settings.get("training", {})
    test, baselines = facts.get("test"), facts.get("baselines", {})
    scores = {row["name"]: row for row in test["classes"]} if test else {}
    classes = []
    for name in settings["class_names"]:
        keys = ("precision", "recall", "f1")
        cells = [f"{scores[name][key]:.3f}" for key in keys] if test else [""] * len(keys)
        count = facts.get("classes", {}).get(name, "")
        classes.append(f"| {in_cell(name)} | {count} | {' | '.join(cells)} |")
    measured = ["Not measured: `finetune` was interrupted before."]
    if test:
        low, high = test["interval"]
        measured = [
            f"- Accuracy on {test['texts']:,} texts that it did not learn from: {test['accuracy']:.2%} "
            f"(95 % interval {low:.2%} to {high:.2%})",
            *(f"- The same of {name}: {accuracy:.2%}" for name, accuracy in baselines.items()),
            f"- Mean F1 of the classes: {test['macro_f1']:.3f}",
            f"- Mean distance of probability and accuracy: {test['calibration_error']:.1%}",
        ]
    checks = [f"| {in_cell(what)} | {found} |" for what, found, _ in facts.get("checks", [])]
    return CARD.format(
        num_classes=len(settings["class_names"]),
        data=settings["data"],
        model=settings["model"],
        layers=f"trained: {facts.get('layers', 'last-block')}",
        max_length=settings["max_length"],
        classes="\n".join(classes),
        measured="\n".join(measured),
        checks="\n".join(["| check | found |", "|---|---:|", *checks]),
        imbalance=facts.get("imbalance", "kept as it is"),
    )


def in_cell(text):
    """A text for a cell of a Markdown table."""
    return html.escape(text, quote=False).replace("|", "\\|")
