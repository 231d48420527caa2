"""The book beside ONNX Runtime, OpenVINO and transformers, each in every precision that it offers.

``speed.py`` runs this. All sides hold the classifier as ``text_classifier.py export`` writes it and do the
same: texts in, logits out, each with its own tokenizer and with as many threads as PyTorch. They take
turns in one process. A side that is not installed is left out, and that is said.

In int8, ONNX Runtime rounds the weights beforehand and what they are multiplied with at work; so does
OpenVINO, whose weights NNCF rounds. The book has no int8: its bfloat16 stands there.
Text generation is compared with transformers only, in ``speed.py``: the exported model keeps no keys and
values, and with ONNX Runtime or OpenVINO that is code of one's own or another package.
"""

import contextlib
import copy
import io
import logging
import sys
from importlib.metadata import PackageNotFoundError, version

import torch
import transformers
from measurements import TOLERANCE, difference, result_of

import export
from classification import CLASS_NAMES, END_OF_TEXT, load_classifier, load_messages
from own_training import build_own_classifier
from reading import Reader
from saved_classifiers import SHIPPED
from streams import in_batches

PACKAGES = {"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino", "NNCF": "nncf"}
PRECISIONS = ("float32", "bfloat16", "int8")
LIMITS = {"float32": TOLERANCE["float32"], "bfloat16": 0.2, "int8": 1.0}  # logits of up to about 4
LENGTH = 120  # tokens of a long text, with that of its end
sys.modules.setdefault("openvino_telemetry", None)  # without it, OpenVINO and NNCF report no use to anyone


def versions():
    """{name: version, None where it is not installed}."""
    found = {}
    for name, package in PACKAGES.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            found[name] = None
    return found


# ---------------------------------------------------------------------------------
# Sides
# ---------------------------------------------------------------------------------


class TransformersReader:
    """The folder of ``export --to hf`` in transformers."""

    def __init__(self, folder, precision):
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=getattr(torch, precision), attn_implementation="sdpa"
        ).eval()

    def logits(self, texts):
        ids = self.tokenizer(texts, truncation=True, padding=True, return_tensors="pt")["input_ids"]
        return self.model(ids, use_cache=False).logits


class OpenVinoSession:
    """What ``export.OnnxReader`` needs of a session, in OpenVINO."""

    def __init__(self, path, precision):
        import openvino

        model = openvino.Core().read_model(path)
        if precision == "int8":
            import nncf

            nncf.set_log_level(logging.ERROR)
            with contextlib.redirect_stdout(io.StringIO()):  # a progress bar
                model = nncf.compress_weights(model)
        settings = {
            "INFERENCE_PRECISION_HINT": "f32" if precision == "float32" else "bf16",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.model = openvino.Core().compile_model(model, "CPU", settings)

    def run(self, names, inputs):
        return [self.model(inputs)[0]]


def onnx_runtime_session(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def exported_sides(folder, installed):
    """The folder of ``export --to onnx --int8`` in what is installed: {(side, precision): function}."""
    whole, small = folder / "model.onnx", folder / "model_int8.onnx"
    sessions = {
        ("ONNX Runtime", "float32"): onnx_runtime_session(whole),
        ("ONNX Runtime", "int8"): onnx_runtime_session(small),
    }
    if installed["OpenVINO"]:
        for precision in PRECISIONS if installed["NNCF"] else PRECISIONS[:-1]:
            sessions["OpenVINO", precision] = OpenVinoSession(whole, precision)
    first, sides = export.OnnxReader(folder), {}
    for side, session in sessions.items():
        reader = copy.copy(first)
        reader.session = session
        sides[side] = lambda texts, reader=reader: torch.from_numpy(reader.logits(texts))
    return sides


def sides_of(model, settings, folder, installed):
    """{(side, precision): a function from a list of N texts to logits (N, K)}, for a classifier."""
    cpu = torch.device("cpu")
    sides = {
        ("book", "float32"): Reader(model, settings, cpu).logits,
        ("book", "bfloat16"): Reader(copy.deepcopy(model).bfloat16(), settings, cpu).logits,
    }
    if settings.get("reads") == END_OF_TEXT:  # transformers reads no other position
        export.to_hugging_face(folder, model, settings)
        for precision in PRECISIONS[:-1]:
            sides["transformers", precision] = TransformersReader(folder, precision).logits
    if installed["ONNX Runtime"]:  # the export needs it, too
        export.to_onnx(folder, model, settings, int8=True)
        sides |= exported_sides(folder, installed)
    return sides


# ---------------------------------------------------------------------------------
# Measurements
# ---------------------------------------------------------------------------------


def measure_peers(bench, folder):
    """Long texts and mixed ones with the benchmark's model; the classifier that ships with the book.

    Returns:
        tuple: a list of measurements, and the versions of what was measured beside.
    """
    installed = versions()
    for name, number in installed.items():
        if number is None:
            print(f"Skipped: {name} is not installed (benchmarks/requirements.txt).")
    name, repeats = bench.setting["model"], bench.setting["peer_repeats"]
    shipped, its_settings = load_classifier(SHIPPED, bench.models_dir)
    texts = load_messages(its_settings["model"], "sample")[2].dataset.data["Text"].tolist()
    long = [" ".join(texts[12 * i :][:12]) for i in range(bench.setting["batch_size"])]  # will be cut
    some = texts[: bench.setting["messages"]]

    model = build_own_classifier(name, len(CLASS_NAMES), models_dir=bench.models_dir).eval()
    settings = {"model": name, "data": "random values", "max_length": LENGTH, "reads": END_OF_TEXT}
    settings |= {"class_names": list(CLASS_NAMES), "threshold": 0.5}
    (folder / "random").mkdir()
    (folder / "shipped").mkdir()
    sides = sides_of(model.requires_grad_(False), settings, folder / "random", installed)
    about = f"{name} with random values"
    work = f"{about}, {len(long)} texts of {LENGTH} tokens"
    results = compare(bench, "Long texts", work, sides, long, repeats)
    work = f"{about}, {len(some)} messages of the sample"
    results += compare(bench, "Messages", work, sides, some, repeats)
    del sides, model
    sides = sides_of(shipped, its_settings, folder / "shipped", installed)
    texts = texts[: bench.setting["messages_of_the_classifier"]]
    work = f"{its_settings['model']}, fine-tuned, {len(texts)} messages of the sample, "
    work += f"all filled to {its_settings['max_length']} tokens"
    results += compare(bench, "The book's classifier", work, sides, texts, repeats)
    return results, installed


def compare(bench, name, work, sides, texts, repeats):
    """A measurement for each precision: the texts, 32 at once in their order, as ``classify`` reads them."""

    def read_all(side):
        return torch.cat([side(batch) for batch in in_batches(texts)]).float()

    jobs = {key: lambda side=side: read_all(side) for key, side in sides.items()}
    with torch.inference_mode():
        bench.take_turns(jobs, 1)  # warm up
        seconds, logits = bench.take_turns(jobs, repeats)
    return [
        one_precision(f"{name}, {precision}", work, precision, seconds, logits) for precision in PRECISIONS
    ]


def one_precision(name, work, precision, seconds, logits):
    """The sides in one precision; outputs are compared with those of the book in float32."""
    keys = [key for key in seconds if key[1] == precision]
    if precision == "int8":
        keys.insert(0, ("book", "bfloat16"))
        work += "; the book in bfloat16"
    expected = logits["book", "float32"]
    labels = expected.argmax(dim=1)
    differences = [
        difference(f"{' '.join(key)} against book float32", logits[key], expected, LIMITS[precision])
        for key in keys
        if key != ("book", "float32")
    ]
    return result_of(
        name,
        work,
        {side: seconds[side, kind] for side, kind in keys},
        {side: 1 for side, _ in keys if side != "book"},
        differences,
        texts=len(expected),
        same_labels={side: (logits[side, kind].argmax(dim=1) == labels).sum().item() for side, kind in keys},
    )
