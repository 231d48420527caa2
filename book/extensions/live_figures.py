"""The live figures: their scripts, the model's weights and the stored examples, put into the build.

``book/live/`` holds the scripts. The build adds what can be computed from ``assets/``, so that
nothing is kept twice: ``weights.gz``, the checkpoint and the classifier in a form that a page
loads when its reader types (``weights.js``, a script, where the book lies on a disk), and for each
figure its example, computed here by PyTorch.
"""

import base64
import gzip
import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import tiktoken
import torch
from docutils import nodes
from docutils.parsers.rst import directives
from safetensors import safe_open
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from classification import (  # noqa: E402
    add_classification_head,
    encode_message,
    load_classifier,
    load_pretrained_model,
    read_settings,
)
from edition import EMBEDDED, PAD_TOKEN_ID  # noqa: E402
from fast_paths import last_token_logits  # noqa: E402
from figures import Figure  # noqa: E402
from findings_plot import BOOK, NAMES  # noqa: E402
from message_sets import read_left_over_ham  # noqa: E402
from previous_chapters import MODEL_CONFIGS, model_config  # noqa: E402
from saved_classifiers import SHIPPED  # noqa: E402
from spam_data import SAMPLE_FILE, create_spam_loaders  # noqa: E402

LIVE = ROOT / "book" / "live"
CHECKPOINT = EMBEDDED.name  # the only one that is small enough for a page
CLASSIFIER = SHIPPED
CHECKPOINT_FOLDER = EMBEDDED.size
VOCABULARY = ROOT / "assets" / CHECKPOINT_FOLDER / "vocab.bpe"
FILM = ROOT / "results" / "training_film.json"  # written by benchmarks/training_film.py
ENGINE = ["tokenizer.js", "simd.js", "gpt2.js", "worker.js"]  # what runs in the worker, in this order
LINE = 3 * 2**14  # bytes in a line of base64, which turns 3 bytes into 4 characters


# ---------------------------------------------------------------------------------
# The model
# ---------------------------------------------------------------------------------


def read_classifier():
    """The tensors that fine-tuning changed, as {name: array}, and the settings of the classifier."""
    with safe_open(CLASSIFIER, framework="pt") as file:
        settings = read_settings(file.metadata())
        return {name: file.get_tensor(name).numpy() for name in file.keys()}, settings


def language_model():
    return load_pretrained_model(CHECKPOINT, ROOT / "gpt2")


def untrained_classifier():
    """The classifier before fine-tuning, as notebook 05 makes it: pretrained weights and a new head."""
    model = language_model()
    add_classification_head(model)
    return model.eval()


def finetuned_classifier():
    """The classifier after fine-tuning: the same, and what the file holds in its place."""
    return load_classifier(CLASSIFIER, ROOT / "gpt2")[0]


# ---------------------------------------------------------------------------------
# Weights for the page
# ---------------------------------------------------------------------------------


def by_rows(matrix):
    """Round a matrix to 8 bits with one scale a row: ``(values, scales)``, int8 and float32."""
    scales = np.maximum(np.abs(matrix).max(axis=1), 1e-12).astype(np.float32) / 127
    return np.round(matrix / scales[:, None]).astype(np.int8), scales


def pack_weights(rounded=True):
    """All that the page needs, in one row of bytes.

    Matrices that were pretrained have 8 bits and a scale a row, what fine-tuning changed the
    float16 of its file, the rest float32. ``rounded=False`` keeps the pretrained matrices in
    float32, so that a test can tell a mistake from rounding.

    Returns:
        tuple: ``(header, data)``: where each tensor stands, and the bytes.
    """
    model = untrained_classifier()
    cfg = {
        "vocab_size": model.tok_emb.num_embeddings,
        "context_length": model.pos_emb.num_embeddings,
        "emb_dim": model.tok_emb.embedding_dim,
        "n_heads": model.trf_blocks[0].att.num_heads,
        "n_layers": len(model.trf_blocks),
    }
    changed, settings = read_classifier()
    arrays = {
        f"untrained.{name}" if name.startswith("out_head") else name: parameter.detach().numpy()
        for name, parameter in model.named_parameters()
    }
    arrays |= {f"classifier.{name}": value for name, value in changed.items()}

    header = {"config": cfg, "settings": settings, "tensors": {}}
    parts, end = [], 0

    def place(array):
        nonlocal end
        start = -(-end // 4) * 4  # floats begin at a multiple of four bytes
        parts.extend([bytes(start - end), np.ascontiguousarray(array).tobytes()])
        end = start + array.nbytes
        return start

    for name, array in arrays.items():
        entry = header["tensors"][name] = {"shape": list(array.shape)}
        if rounded and array.ndim == 2 and not name.startswith(("classifier.", "untrained.")):
            array, scales = by_rows(array)
            entry["scales"] = place(scales)
        entry |= {"dtype": array.dtype.name, "offset": place(array)}
    vocabulary = np.frombuffer(VOCABULARY.read_bytes(), np.uint8)
    header["vocab"] = {"offset": place(vocabulary), "length": vocabulary.nbytes}
    return header, b"".join(parts)


def engine_source():
    return "\n".join((LIVE / name).read_text("utf-8") for name in ENGINE)


def weights_files(header, data):
    """What a page loads: ``engine.json`` and ``weights.gz`` over http, the same as a script from a disk."""
    engine = {"engine": engine_source(), "header": header}
    lines = [base64.b64encode(data[i : i + LINE]).decode() for i in range(0, len(data), LINE)]
    script = f"Live.receive({json.dumps(engine | {'data': lines}, indent=0)});\n"
    return {
        "engine.json": json.dumps(engine).encode(),
        "weights.gz": gzip.compress(data, mtime=0),
        "weights.js": script.encode(),
    }


# ---------------------------------------------------------------------------------
# Examples: what a figure shows before the model is loaded, computed by PyTorch
# ---------------------------------------------------------------------------------

MESSAGES = [
    "Congratulations! You have won a 500 pound voucher. To claim, call 0909 879 0123 now, code P41",
    "Running late, the bus broke down again. Start without me, I'll bring the cake at eight",
    "Your bank card ends today. Confirm your details at http://card-check.example to keep using it",
]


MOST_HAM = 400  # messages that are not spam in the figure on thresholds


def gpt2_tokenizer():
    return tiktoken.get_encoding("gpt2")


def named(ids, tokenizer):
    """Token IDs with the text of each token, as the page has them."""
    return [{"id": token_id, "text": tokenizer.decode([token_id])} for token_id in ids]


def short(numbers, digits=4):
    """Numbers of a tensor for a page, in a few digits."""
    return json.loads(json.dumps(numbers.tolist()), parse_float=lambda text: round(float(text), digits))


@torch.no_grad()
def example_classifier(models):
    tokenizer, settings = models["tokenizer"], models["settings"]
    max_length = settings["max_length"]

    def logits(model, rows):
        rows = [ids[:max_length] + [PAD_TOKEN_ID] * (max_length - len(ids)) for ids in rows]
        return model(torch.tensor(rows))[:, -1, :]  # (B, 2)

    messages = []
    for text in MESSAGES:
        ids = tokenizer.encode(text, disallowed_special=())
        without = [ids[:i] + ids[i + 1 :] for i in range(len(ids))]
        before = logits(models["untrained"], [ids])
        after = logits(models["finetuned"], [ids, *without])
        odds = after[:, 1] - after[:, 0]
        messages.append(
            {
                "text": text,
                "tokens": named(ids, tokenizer),
                "total": len(ids),
                "spamBefore": short(before.softmax(-1)[0, 1], 6),
                "spam": short(after.softmax(-1)[0, 1], 6),
                "effects": short(odds[0] - odds[1:]),
            }
        )
    return {"messages": messages}


@torch.no_grad()
def look_into(model, ids):
    """What the attention figure shows: weights, queries and keys of each block; logits of each row."""
    x = model.embed(torch.tensor([ids]))  # (1, T, C)
    blocks = []
    for block in model.trf_blocks:
        normed = block.norm1(x)
        queries, keys = block.att.W_query(normed), block.att.W_key(normed)  # (1, T, C)
        scores = block.att.split_heads(queries) @ block.att.split_heads(keys).transpose(2, 3)  # (1, H, T, T)
        future = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)
        weights = (scores / block.att.head_dim**0.5).masked_fill(future, -torch.inf).softmax(-1)
        blocks.append({"weights": weights, "queries": queries, "keys": keys})
        x = block(x)
    return blocks, model.out_head(model.final_norm(x))[0]  # (T, 2)


def example_attention(models):
    text = "Do you have time"
    ids = models["tokenizer"].encode(text)
    result = {"text": text}
    for key, model in (("before", models["untrained"]), ("after", models["finetuned"])):
        blocks, logits = look_into(model, ids)
        result[key] = {
            "tokens": named(ids, models["tokenizer"]),
            "own": [{name: short(value.flatten(), 3) for name, value in block.items()} for block in blocks],
            "logits": short(logits.flatten()),
        }
    changed = [name for name in read_classifier()[0] if name.startswith("trf_blocks.")]
    shared = min((int(name.split(".")[1]) for name in changed), default=len(blocks))
    result["shared"] = result["before"]["own"][:shared]
    for key in ("before", "after"):
        del result[key]["own"][:shared]
    return result


@torch.no_grad()
def example_generation(models):
    text = "Every effort moves you"
    ids = models["tokenizer"].encode(text)
    probabilities = models["language"](torch.tensor([ids]))[0, -1].softmax(-1)  # (V,)
    best = probabilities.topk(10)
    bars = named(best.indices.tolist(), models["tokenizer"])
    for bar, probability in zip(bars, short(best.values, 6)):
        bar["probability"] = probability
    return {"text": text, "ids": ids, "bars": bars, "drawn": bars[0]["id"]}


@torch.no_grad()
def margins(model, texts, models):
    """Logit of spam minus logit of not spam for each text, (N,). Each is computed once."""
    tokenizer, max_length = models["tokenizer"], models["settings"]["max_length"]
    known = models["margins"].setdefault(model, {})
    new = [text for text in dict.fromkeys(texts) if text not in known]
    for batch in (new[i : i + 32] for i in range(0, len(new), 32)):
        rows = [encode_message(text, model, tokenizer, max_length) for text in batch]
        logits = last_token_logits(model, torch.tensor(rows))  # (B, 2)
        known |= zip(batch, logits[:, 1] - logits[:, 0])
    return torch.stack([known[text] for text in texts])


def test_messages(models):
    """Texts and labels of the test set of notebook 01."""
    _, _, test_loader = create_spam_loaders(models["tokenizer"], SAMPLE_FILE)
    data = test_loader.dataset.data
    return data["Text"].tolist(), data["Label"].tolist()


def example_loss(models):
    texts, labels = test_messages(models)
    return {
        "texts": texts,
        "labels": labels,
        "before": short(margins(models["untrained"], texts, models)),
        "after": short(margins(models["finetuned"], texts, models)),
    }


def example_threshold(models):
    """Probabilities of the test set's spam, and of ham that training never saw: what balancing put aside."""
    texts, labels = test_messages(models)
    spam = [text for text, label in zip(texts, labels) if label == 1]
    ham = [text for text, label in zip(texts, labels) if label == 0]
    ham += read_left_over_ham(SAMPLE_FILE)[0]
    ham = ham[:MOST_HAM]
    probabilities = margins(models["finetuned"], spam + ham, models).sigmoid()
    return {
        "texts": spam + ham,
        "spam": short(probabilities[: len(spam)]),
        "ham": short(probabilities[len(spam) :]),
    }


TEXTS = [
    MESSAGES[0],
    "Call 02079460958, or +44 20 7946 0958, or 020 7946 0958",
    "\u4f60\u597d\uff0c\u660e\u5929\u89c1\uff01",  # Hello, see you tomorrow!
    "See you at 8 \U0001f389\U0001f382 bring cake \U0001f60a",
]


def example_tokens(models):
    tokenizer = models["tokenizer"]
    texts = []
    for text in TEXTS:
        ids = tokenizer.encode(text, disallowed_special=())
        lengths = [len(tokenizer.decode_single_token_bytes(token_id)) for token_id in ids]
        texts.append({"text": text, "tokens": named(ids, tokenizer), "bytes": lengths})
    return {"texts": texts}


def example_prevalence(models):
    """How the classifier does on the test set, as the place where the sliders begin."""
    texts, labels = test_messages(models)
    probabilities = margins(models["finetuned"], texts, models).sigmoid()
    flagged, spam = probabilities >= models["settings"]["threshold"], torch.tensor(labels) == 1
    rates = {"recall": flagged[spam].float().mean(), "alarms": flagged[~spam].float().mean()}
    return {name: round(rate.item(), 2) for name, rate in rates.items()}


def example_anatomy(models):
    return {"models": {name: model_config(name) for name in MODEL_CONFIGS}}


def read_result(kind):
    """What is stored for the embedded checkpoint: {data: rows}, or with "findings" {data: findings}."""
    return json.loads((ROOT / "results" / f"{kind}.json").read_text("utf-8")).get(CHECKPOINT, {})


def runs_of(entry):
    """Test accuracies of a row's runs, and which of them did not converge."""
    failed = [not run.get("converged", True) for run in entry["per_seed"]]
    return {"test": [round(run["test"], 4) for run in entry["per_seed"]], "failed": failed}


CHOICES = ("head-only", "first-block", "last-token", "last-two-blocks", "all-layers")


def example_trainable(models):
    """Of each choice of parts: accuracies, trained numbers, and the cost where it is measured."""
    results, runs = read_result("rows")["sample"], {}
    for name in CHOICES:
        if results.get(name, {}).get("per_seed"):
            entry, cost = results[name], results[name].get("cost", {})
            added = cost["megabytes"] - cost["megabytes_before"] if cost.get("megabytes") else None
            runs[entry["settings"]["layers"]] = {
                **runs_of(entry),
                "parameters": entry["trainable_parameters"],
                "operations": cost.get("operations"),
                "seconds": cost.get("seconds"),
                "megabytes": added,
            }
    return {"runs": runs}


def example_training(models):
    return json.loads(FILM.read_text("utf-8"))


QUESTIONS = {  # of the figure on the experiments: which rows answer it
    "baseline": [BOOK, "last-real-token", "all-layers", "majority", "tf-idf", "tf-idf-best"]
    + ["frozen-states", "zero-shot", "zero-shot-calibrated"],
    "token": [BOOK, "first-token", "last-real-token", "mean-token", "no-causal-mask"],
    "layers": [BOOK, "head-only", "first-block", "last-two-blocks", "lora", "lora-wide", "all-layers"],
    "padding": [BOOK, "no-padding", "full-context", "last-real-token"],
    "start": [BOOK, "random-last-block", "all-layers", "random-values", "frozen-states", "frozen-random"],
}


def example_experiments(models):
    """Of each data set: the rows with their runs and interval, and the verdict against the book's row."""
    rows_of, data_sets = read_result("rows"), {}
    for data, found in read_result("findings").items():
        verdicts = {line["row"]: line for line in found["comparisons"] if line["against"] == BOOK}
        rows = {}
        for name, accuracy in found["accuracies"].items():
            entry = rows_of[data][name]
            rows[name] = {
                **runs_of(entry),
                "interval": [round(value, 4) for value in accuracy["test"][1:]],
                "parameters": entry["trainable_parameters"],
            }
            if name in verdicts:
                line = verdicts[name]
                rows[name]["difference"] = [round(value, 4) for value in line["difference"]]
                rows[name]["clear"] = line["verdict"] != "not decided"
        data_sets[data] = {"rows": rows, "messages": rows_of[data][BOOK]["messages"][2]}
    return {"data": data_sets, "questions": QUESTIONS, "names": NAMES, "book": BOOK}


EXAMPLES = {
    "trainable": example_trainable,
    "training": example_training,
    "experiments": example_experiments,
    "tokens": example_tokens,
    "prevalence": example_prevalence,
    "anatomy": example_anatomy,
    "threshold": example_threshold,
    "loss": example_loss,
    "classifier": example_classifier,
    "attention": example_attention,
    "generation": example_generation,
}


# ---------------------------------------------------------------------------------
# Files of the build
# ---------------------------------------------------------------------------------


def version_of_inputs():
    """A hash of all that the generated files are made from."""
    digest = hashlib.sha256()
    paths = [CLASSIFIER, SAMPLE_FILE, Path(__file__)]
    paths += sorted((ROOT / "assets" / CHECKPOINT_FOLDER).iterdir())
    paths += sorted(LIVE.iterdir()) + sorted(ROOT.glob("*.py")) + sorted((ROOT / "results").glob("*.json"))
    for path in paths:
        if path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def write_live_files(folder):
    """Write scripts, weights and examples into a folder, unless they are there and current."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stamp, version = folder / "version.txt", version_of_inputs()
    if stamp.is_file() and stamp.read_text() == version:
        return
    stamp.unlink(missing_ok=True)
    for path in [*LIVE.glob("*.js"), *LIVE.glob("*.css")]:
        if path.name not in ENGINE:
            shutil.copyfile(path, folder / path.name)
    header, data = pack_weights()
    files = weights_files(header, data)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    models = {
        "tokenizer": gpt2_tokenizer(),
        "settings": header["settings"],
        "language": language_model(),
        "untrained": untrained_classifier(),
        "finetuned": finetuned_classifier(),
        "margins": {},
    }
    build = {
        "version": hashlib.sha256(files["weights.js"]).hexdigest()[:16],
        "bytes": len(files["weights.gz"]),
        "model": CHECKPOINT,
        "config": header["config"],
        "settings": header["settings"],
    }
    (folder / "build.js").write_text(f"Live.build({json.dumps(build)});\n", "utf-8")
    for name, make in EXAMPLES.items():
        content = json.dumps(make(models), ensure_ascii=False, separators=(",", ":"))
        (folder / f"example_{name}.js").write_text(f'Live.example("{name}", {content});\n', "utf-8")
    stamp.write_text(version)


# ---------------------------------------------------------------------------------
# Figures on the pages
# ---------------------------------------------------------------------------------

SHOWN = re.compile(r"^(show_live|show_figure)\(\s*[\"'](\w+)[\"']\s*\)\s*;?\s*$", re.MULTILINE)


METADATA = "live_figures"  # noted for each page that has one


class live_node(nodes.General, nodes.Element):
    """The root of a live figure; inside it, until its script has run, a picture of it."""


def visit_live(self, node):
    self.body.append(f'<div class="live-figure" data-live="{node["name"]}">')


def depart_live(self, node):
    self.body.append("</div>\n")


def figure_node(document, name, live, label=None):
    """A numbered figure with its caption; references find it by its label."""
    figure = Figure(name, live)
    env = document.settings.env
    source = Path(env.doc2path(env.docname))
    if live:
        env.metadata[env.docname][METADATA] = True
    image = nodes.image("", uri=Path(os.path.relpath(figure.path, source.parent)).as_posix(), alt=figure.alt)
    result = nodes.figure("", live_node("", image, name=name) if live else image)
    result += nodes.caption("", figure.caption)
    if label:
        result["names"].append(label)
        document.note_explicit_target(result, result)
    else:
        result["ids"].append(f"figure-{name}")
    return result


class LiveFigure(SphinxDirective):
    """``{live-figure} NAME`` in a page of prose; with ``:name:``, references find it."""

    required_arguments = 1
    option_spec = {"name": directives.unchanged}

    def run(self):
        try:
            return [figure_node(self.state.document, self.arguments[0], True, self.options.get("name"))]
        except ValueError as error:
            raise self.error(str(error)) from error


class FiguresOfCells(SphinxTransform):
    """A cell that ends with ``show_live("NAME")`` or ``show_figure("NAME")`` becomes the figure itself."""

    default_priority = 400  # before Sphinx numbers figures and collects images

    def apply(self, **kwargs):
        for cell in list(self.document.findall(nodes.container)):
            if cell.get("nb_element") != "cell_code":
                continue
            code = next((block.astext() for block in cell.findall(nodes.literal_block)), "")
            if shown := SHOWN.search(code):
                name, live = shown[2], shown[1] == "show_live"
                # the same drawing may stand in several lessons
                lesson = self.env.docname.split("/")[-1][:2]
                label = f"fig-live-{name}" if live else f"fig-{name.replace('_', '-')}-{lesson}"
                cell.replace_self(figure_node(self.document, name, live, label))


def write_files(app, env):
    """After all pages are read: the files that live figures need, if there is one in the book."""
    if app.builder.format == "html" and any(METADATA in env.metadata[name] for name in env.found_docs):
        write_live_files(Path(app.outdir) / "_static" / "live")


def add_scripts(app, pagename, templatename, context, doctree):
    """A page with live figures loads their scripts; other pages load nothing."""
    found = [] if doctree is None else [node["name"] for node in doctree.findall(live_node)]
    if found:
        app.add_css_file("live/live.css")
        scripts = ["live", "plot", f"words_{app.config.language}", "build"]
        for name in dict.fromkeys(found):
            scripts += [name, f"example_{name}"]
        for script in scripts:
            app.add_js_file(f"live/{script}.js", loading_method="defer")


def setup(app):
    app.add_node(live_node, html=(visit_live, depart_live))
    app.add_directive("live-figure", LiveFigure)
    app.add_transform(FiguresOfCells)
    app.connect("env-check-consistency", write_files)
    app.connect("html-page-context", add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
