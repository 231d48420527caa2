"""How fast is the book's model, beside a textbook's formulation and beside transformers?

    python benchmarks/speed.py                                  # writes results/benchmark.json
    python benchmarks/speed.py --device cuda --dtype bfloat16   # writes results/benchmark-cuda-bfloat16.json
    python benchmarks/speed.py --quick                          # the small model, few repeats, no file

Three sides with the same weights solve the same task on the same input: the formulas spelled
out (``plain_gpt.py``), transformers with its fused attention, and the book
(``previous_chapters.py`` with ``fast_paths.py``). The sides take turns, in alternating order;
times are medians. Their outputs are compared: where they differ, the exit status is 1. A
ratio below its target is printed as missed.

The weights are random values in OpenAI's file format, at the size of GPT-2 124M: speed does
not depend on the values. ``--quick`` uses the embedded checkpoint. In float32 on a CPU, ``peers.py``
measures beside ONNX Runtime and OpenVINO, too.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

import edition  # noqa: E402, F401 - it sets what PyTorch reads when it starts

# isort: split
import torch  # noqa: E402
import transformers  # noqa: E402
from measurements import (  # noqa: E402
    TOLERANCE,
    difference,
    outputs_agree,
    print_measurement,
    result_of,
    take_turns,
)
from peers import measure_peers  # noqa: E402
from plain_gpt import PlainGPT  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402
from transformers import (  # noqa: E402
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
)

from classification import (  # noqa: E402
    add_classification_head,
    fine_tuning_settings,
    freeze_all_layers,
    load_pretrained_model,
    unfreeze_last_block,
)
from devices import cpu_name, finish_work  # noqa: E402
from edition import PAD_TOKEN_ID, find_model  # noqa: E402
from fast_paths import (  # noqa: E402
    TokenClassifier,
    can_pack,
    generate_text_cached,
    last_token_logits,
    packed_for_inference,
)
from files import write_json  # noqa: E402
from gpt_download import MAPPED_FILE, download_and_load_gpt2  # noqa: E402
from previous_chapters import generate_text_simple, load_weights_into_gpt, model_config  # noqa: E402
from tools.checkpoints import SETTINGS_124M, random_values, write_openai_folder  # noqa: E402

SIDES = ("plain", "transformers", "book")
FULL = {
    "model": "gpt2-small (124M)",
    "batch_size": 8,
    "num_tokens": 120,
    "evaluation_repeats": 21,
    "prompt_tokens": 4,
    "new_tokens": 200,
    "generation_repeats": 3,
    "examples": 80,
    "epochs": 5,
    "loading_repeats": 5,
    "peer_repeats": 9,
    "warm_up": 1,  # fresh processes whose time does not count: files come from disk
    "large_batch": 64,  # messages
    "messages": 64,
    "messages_of_the_classifier": 448,
    "compiler": "inductor",  # of torch.compile
}
QUICK = {
    **FULL,
    "model": "gpt2-mini (10M)",
    "evaluation_repeats": 2,
    "new_tokens": 20,
    "generation_repeats": 1,
    "examples": 16,
    "epochs": 2,
    "loading_repeats": 1,
    "peer_repeats": 1,
    "warm_up": 0,
    "large_batch": 16,
    "messages": 32,
    "messages_of_the_classifier": 96,
    "compiler": "eager",  # traces the model, and leaves C++ out
}
SETTINGS = fine_tuning_settings("gpt2-small (124M)")
KEY_BIAS = "att.W_key.bias"  # made of rounding errors, and no output depends on it


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--dtype", choices=list(TOLERANCE), default="float32")
    parser.add_argument("--quick", action="store_true", help="small model and few repeats, to try the script")
    parser.add_argument("--no-peers", action="store_true", help="leave out ONNX Runtime and OpenVINO")
    parser.add_argument("--output", type=Path, help="default: a file in results/; none with --quick")
    args = parser.parse_args()
    setting = QUICK if args.quick else FULL
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    peers, versions = [], {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(setting, Path(folder), args.device, args.dtype)
        measurements = [bench.generation(), bench.evaluation(), bench.fine_tuning()]
        if args.device.type == "cpu" and args.dtype == "float32":
            measurements += [bench.start_of_classify(), bench.later_load(), bench.first_load()]
            if not args.no_peers:
                peers, versions = measure_peers(bench, Path(folder))
    about = machine(args.device, args.dtype) | {"peers": versions}
    result = {"machine": about, "setting": setting, "measurements": measurements, "peers": peers}
    output = args.output or (None if args.quick else default_output(args.device, args.dtype))
    if output is not None:
        write_json(output, result)  # first: they took half an hour
    for measurement in measurements + peers:
        print_measurement(measurement)
    if output is not None:
        print(f"Written: {output}")
    sys.exit(0 if all(map(outputs_agree, measurements + peers)) else 1)


def default_output(device, dtype):
    special = "" if (device.type, dtype) == ("cpu", "float32") else f"-{device.type}-{dtype}"
    return ROOT / "results" / f"benchmark{special}.json"


def machine(device, dtype):
    """What the numbers depend on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    return {
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "device": name,
        "dtype": dtype,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


# ---------------------------------------------------------------------------------
# Measurements
# ---------------------------------------------------------------------------------


class Bench:
    """The three sides with the same weights, and the measurements.

    Args:
        setting (dict): ``FULL`` or ``QUICK``.
        folder (Path): an empty folder for checkpoints, 1.5 GB at 124M.
        device (torch.device): where to compute.
        dtype (str): ``"float32"`` or ``"bfloat16"``.
    """

    def __init__(self, setting, folder, device, dtype):
        self.setting, self.device, self.dtype = setting, device, getattr(torch, dtype)
        self.tolerance = TOLERANCE[dtype]
        self.folder, self.models_dir, self.transformers_dir = folder, folder / "gpt2", folder / "transformers"
        self.size = find_model(setting["model"]).size
        self.config = model_config(setting["model"])
        if self.size == "124M":
            write_openai_folder(self.models_dir / self.size, SETTINGS_124M, random_values(SETTINGS_124M))
            os.environ["GPT2_VERIFY"] = "0"  # random values are not the published ones
        _, self.params = download_and_load_gpt2(self.size, self.models_dir)
        save_for_transformers(self.config, self.params, self.transformers_dir)

    def place(self, model):
        return model.to(self.device, self.dtype).eval()

    def plain_model(self):
        model = PlainGPT(self.config)
        load_weights_into_gpt(model, self.params)
        return self.place(model)

    def book_model(self):
        return self.place(load_pretrained_model(self.setting["model"], self.models_dir))

    def random_ids(self, *shape):
        """Token IDs without the padding token, which transformers' classifier looks for."""
        return torch.randint(PAD_TOKEN_ID, shape, generator=torch.Generator().manual_seed(123))

    def take_turns(self, jobs, repeats):
        """See :func:`measurements.take_turns`."""
        return take_turns(jobs, repeats, lambda: finish_work(self.device))

    # -----------------------------------------------------------------------------

    def generation(self):
        num_tokens, new_tokens = self.setting["prompt_tokens"], self.setting["new_tokens"]
        ids = self.random_ids(1, num_tokens).to(self.device)
        context_size = self.config["context_length"]
        plain, book = self.plain_model(), self.book_model()
        other = self.place(GPT2LMHeadModel.from_pretrained(self.transformers_dir, attn_implementation="sdpa"))
        other.generation_config.eos_token_id = None  # nothing ends the text early
        other.generation_config.pad_token_id = PAD_TOKEN_ID

        def transformers_tokens():
            mask = torch.ones_like(ids)
            return other.generate(ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False)

        packs = packs_to_generate(book)

        def book_tokens(count=new_tokens):
            model = packed_for_inference(book) if packs else book  # packing is part of the time
            return generate_text_cached(model, ids, count, context_size)

        jobs = {
            "plain": lambda: generate_text_simple(plain, ids, new_tokens, context_size),
            "transformers": transformers_tokens,
            "book": book_tokens,
        }
        other.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, do_sample=False)  # warm up
        book_tokens(2)
        seconds, tokens = self.take_turns(jobs, self.setting["generation_repeats"])
        # Rounding to bfloat16 may decide between two tokens: then texts differ from there on
        limit = 0 if self.dtype == torch.float32 else new_tokens
        differences = [
            {
                "what": f"tokens that differ, book against {side}",
                "value": (tokens["book"] != tokens[side]).sum().item(),
                "limit": limit,
            }
            for side in ("plain", "transformers")
        ]
        return result_of(
            "Generation",
            f"{new_tokens} tokens, greedily, after a prompt of {num_tokens}; "
            f"the book's layers {'are packed first' if packs else 'as they are'}",
            seconds,
            {"plain": 6, "transformers": 1},
            differences,
        )

    def classifiers(self):
        """The three sides as classifiers with the same head, last block trainable."""
        plain, book = self.plain_model(), self.book_model()
        for model in (plain, book):
            freeze_all_layers(model)
            add_classification_head(model)
            unfreeze_last_block(model)
        other = GPT2ForSequenceClassification.from_pretrained(
            self.transformers_dir, attn_implementation="sdpa", pad_token_id=PAD_TOKEN_ID
        )
        other.requires_grad_(False)
        other.transformer.h[-1].requires_grad_(True)
        other.transformer.ln_f.requires_grad_(True)
        other.score = torch.nn.Linear(self.config["emb_dim"], 2)  # its own has no bias
        other.score.load_state_dict(book.out_head.state_dict())
        return {side: self.place(model) for side, model in zip(SIDES, (plain, other, book))}

    def evaluation(self):
        B, T = self.setting["batch_size"], self.setting["num_tokens"]
        ids = self.random_ids(B, T).to(self.device)
        models = self.classifiers()
        start = time.perf_counter()
        packed = packed_for_inference(models["book"])
        packing = time.perf_counter() - start
        jobs = {
            "plain": lambda: models["plain"](ids)[:, -1, :],
            "transformers": lambda: models["transformers"](ids, use_cache=False).logits,
            "book": lambda: last_token_logits(packed, ids),
        }
        with torch.inference_mode():
            self.take_turns(jobs, 1)  # warm up
            seconds, logits = self.take_turns(jobs, self.setting["evaluation_repeats"])
        differences = [
            difference(f"logits, book against {side}", logits["book"], logits[side], self.tolerance)
            for side in ("plain", "transformers")
        ]
        return result_of(
            "Evaluation",
            f"logits of the last token for a batch of {B} x {T} tokens, two classes",
            seconds,
            {"plain": 1.3, "transformers": 1.4},
            differences,
            seconds_to_prepare={"book": round(packing, 4)},
        )

    def fine_tuning(self):
        """The sides take turns epoch by epoch; a side's time is the sum over its epochs."""
        B, T = self.setting["batch_size"], self.setting["num_tokens"]
        epochs, num_examples = self.setting["epochs"], self.setting["examples"]
        labels = torch.arange(num_examples) % 2
        dataset = TensorDataset(self.random_ids(num_examples, T), labels)
        models = self.classifiers()
        trainings = {side: Training(side, models[side], dataset, B, self.device) for side in SIDES}
        jobs = {side: training.run_epoch for side, training in trainings.items()}
        seconds, _ = self.take_turns(jobs, epochs)

        weights = {side: last_block_weights(side, models[side]) for side in SIDES}
        (key_bias,) = (name for name in weights["book"] if name.endswith(KEY_BIAS))
        differences, key_bias_differences = [], {}
        for side in ("plain", "transformers"):
            parts = {
                name: (weights["book"][name].float() - weights[side][name].float()).abs().max().item()
                for name in weights["book"]
            }
            key_bias_differences[side] = parts.pop(key_bias)
            differences.append(
                {
                    "what": f"weights, book against {side}",
                    "value": max(parts.values()),
                    "limit": self.tolerance,
                }
            )
        ids = dataset.tensors[0][:B].to(self.device)
        with torch.inference_mode():
            logits = {side: trainings[side].logits(models[side], ids) for side in ("plain", "transformers")}
            book_logits = last_token_logits(models["book"], ids)
        differences += [
            difference(
                f"logits after training, book against {side}", book_logits, logits[side], self.tolerance
            )
            for side, other in logits.items()
        ]
        return result_of(
            "Fine-tuning",
            f"{epochs} epochs of {num_examples // B} steps with batches of {B} x {T} tokens, last block, "
            "final norm and head trainable, AdamW in one pass; for the book including the cache of the "
            "frozen blocks",
            {side: [sum(values)] for side, values in seconds.items()},
            {"plain": 5, "transformers": 5},
            differences,
            # its gradient is 0 but for rounding, and no output depends on it
            key_bias_differences=key_bias_differences,
        )

    # -----------------------------------------------------------------------------

    def later_load(self):
        """Fresh processes in turns, from the start of Python to the loaded model."""
        commands = {
            "transformers": [LOAD_TRANSFORMERS, self.transformers_dir],
            "book": [LOAD_BOOK, self.setting["model"], self.models_dir],
        }
        runs = {side: [] for side in commands}
        warm_up = self.setting["warm_up"]
        for repeat in range(self.setting["loading_repeats"] + warm_up):
            for side in list(commands)[:: -1 if repeat % 2 else 1]:
                runs[side].append(run_fresh(commands[side]))
        for side in runs:
            del runs[side][:warm_up]
        ours, theirs = (torch.tensor(runs[side][-1]["logits"]) for side in ("book", "transformers"))
        return result_of(
            "Loading again",
            "fresh process to loaded language model, imports included",
            {side: [run["loaded"] for run in values] for side, values in runs.items()},
            {"transformers": 2},
            [difference("logits, book against transformers", ours, theirs, self.tolerance)],
            # both map their files: the first use of the model reads the values
            seconds_to_first_logits={
                side: round(statistics.median(run["used"] for run in values), 4)
                for side, values in runs.items()
            },
            peak_memory_gb={side: values[-1]["peak_gb"] for side, values in runs.items()},
        )

    def start_of_classify(self):
        """The command on one message, and ``import torch`` alone, in turns, in a folder of their own."""
        commands = {
            "import torch": ["-c", "import torch"],
            "book": [ROOT / "text_classifier.py", "classify", "hello"],
        }
        jobs = {
            name: lambda arguments=arguments: subprocess.run(
                [sys.executable, *arguments], cwd=self.folder, check=True, capture_output=True
            )
            for name, arguments in commands.items()
        }
        self.take_turns(jobs, self.setting["warm_up"])  # also fetches the embedded checkpoint
        seconds, _ = self.take_turns(jobs, self.setting["peer_repeats"])
        torch_alone = statistics.median(seconds.pop("import torch"))
        above = statistics.median(seconds["book"]) - torch_alone
        return result_of(
            "Start of classify",
            "text_classifier.py classify, from the start of its process to the end, one message",
            seconds,
            {},
            [],
            seconds_above_import_torch={"value": round(above, 4), "limit": 0.4},
        )

    def first_load(self):
        """A fresh process that finds the TensorFlow checkpoint and no mapped copy."""
        (self.models_dir / self.size / MAPPED_FILE).unlink()
        run = run_fresh([LOAD_BOOK, self.setting["model"], self.models_dir])
        with torch.inference_mode():
            expected = self.book_model()(torch.tensor([[1, 2, 3]]))[0, -1, :100]
        logits = torch.tensor(run["logits"])
        return result_of(
            "First load",
            "fresh process to loaded language model, through TensorFlow, imports included",
            {"book": [run["loaded"]]},
            {},
            [difference("logits, first load against a later one", logits, expected, 1e-6)],
            peak_memory_gb={"book": run["peak_gb"]},
            peak_memory_limit_gb={"book": 1.2},
        )


def packs_to_generate(model):
    """Whether the book packs the layers first: where it can, and where a single row gains (fast_paths.py)."""
    return can_pack(model.out_head) and "Intel" not in cpu_name()


class Training:
    """Fine-tuning of one side, epoch by epoch, as the book does it; the book's side remembers."""

    def __init__(self, side, model, dataset, batch_size, device, settings=SETTINGS):
        self.side, self.device = side, device
        self.loader = DataLoader(
            dataset,
            batch_size=batch_size,
            shuffle=True,
            drop_last=True,
            generator=torch.Generator().manual_seed(123),  # each side sees the same batches
        )
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trainable, **settings)
        self.network = TokenClassifier(model) if side == "book" else model

    def logits(self, network, inputs):
        if self.side == "transformers":
            return network(inputs, use_cache=False).logits
        return network(inputs)[:, -1, :]

    def run_epoch(self):
        self.network.train()
        for inputs, labels in self.loader:
            self.optimizer.zero_grad()
            logits = self.logits(self.network, inputs.to(self.device))
            torch.nn.functional.cross_entropy(logits, labels.to(self.device)).backward()
            self.optimizer.step()
        self.network.eval()


# ---------------------------------------------------------------------------------
# The weights in transformers
# ---------------------------------------------------------------------------------


def save_for_transformers(config, params, folder):
    """Write the weights as ``save_pretrained`` does."""
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config["vocab_size"],
            n_positions=config["context_length"],
            n_embd=config["emb_dim"],
            n_layer=config["n_layers"],
            n_head=config["n_heads"],
            attn_pdrop=0.0,  # the book trains without dropout
            embd_pdrop=0.0,
            resid_pdrop=0.0,
        )
    )
    gpt2 = model.transformer
    pairs = [
        (gpt2.wte.weight, params["wte"]),
        (gpt2.wpe.weight, params["wpe"]),
        (gpt2.ln_f.weight, params["g"]),
        (gpt2.ln_f.bias, params["b"]),
    ]
    for layer, block in zip(gpt2.h, params["blocks"]):
        for norm in ("ln_1", "ln_2"):
            pairs += [(getattr(layer, norm).weight, block[norm]["g"])]
            pairs += [(getattr(layer, norm).bias, block[norm]["b"])]
        for part, name in (("attn", "c_attn"), ("attn", "c_proj"), ("mlp", "c_fc"), ("mlp", "c_proj")):
            linear = getattr(getattr(layer, part), name)
            pairs += [(linear.weight, block[part][name]["w"]), (linear.bias, block[part][name]["b"])]
    with torch.no_grad():
        for parameter, values in pairs:
            parameter.copy_(torch.tensor(values))
    model.save_pretrained(folder)


def last_block_weights(side, model):
    """{the book's name of a trained parameter: its values}."""
    if side != "transformers":
        return {name: value for name, value in model.named_parameters() if value.requires_grad}
    gpt2, layer = model.transformer, model.transformer.h[-1]
    block = f"trf_blocks.{len(gpt2.h) - 1}"
    weights = {
        "final_norm.scale": gpt2.ln_f.weight,
        "final_norm.shift": gpt2.ln_f.bias,
        "out_head.weight": model.score.weight,
        "out_head.bias": model.score.bias,
        f"{block}.norm1.scale": layer.ln_1.weight,
        f"{block}.norm1.shift": layer.ln_1.bias,
        f"{block}.norm2.scale": layer.ln_2.weight,
        f"{block}.norm2.shift": layer.ln_2.bias,
    }
    for name, linear in (
        ("att.out_proj", layer.attn.c_proj),
        ("ff.layers.0", layer.mlp.c_fc),
        ("ff.layers.2", layer.mlp.c_proj),
    ):
        weights[f"{block}.{name}.weight"] = linear.weight.T  # (in, out) -> (out, in)
        weights[f"{block}.{name}.bias"] = linear.bias
    names = ("W_query", "W_key", "W_value")
    for name, weight in zip(names, layer.attn.c_attn.weight.T.chunk(3)):
        weights[f"{block}.att.{name}.weight"] = weight
    for name, bias in zip(names, layer.attn.c_attn.bias.chunk(3)):
        weights[f"{block}.att.{name}.bias"] = bias
    return weights


# ---------------------------------------------------------------------------------
# Fresh processes
# ---------------------------------------------------------------------------------

LOAD_BOOK = """
import sys
from classification import load_pretrained_model
model = logits_of = load_pretrained_model(*sys.argv[1:])
"""

LOAD_TRANSFORMERS = """
import sys
from transformers import GPT2LMHeadModel
model = GPT2LMHeadModel.from_pretrained(sys.argv[1]).eval()
logits_of = lambda ids: model(ids).logits
"""

# On Linux the peak is read from /proc: what getrusage gives includes the process that started this one.
REPORT = """
import json, pathlib, re, torch
print("loaded", flush=True)
status = pathlib.Path("/proc/self/status")
peak = 1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", status.read_text())[1]) if status.exists() else None
with torch.inference_mode():
    logits = logits_of(torch.tensor([[1, 2, 3]]))[0, -1, :100].tolist()
print("used", flush=True)
print(json.dumps({"peak_gb": peak and round(peak / 1e9, 3), "logits": logits}), flush=True)
"""


def run_fresh(command):
    """Run code that makes a model in a fresh Python.

    Returns:
        dict: ``loaded`` and ``used``: seconds from the start of the process to the loaded model
        and to its first logits; ``peak_gb``: peak of the resident memory when the model is
        loaded, None where the system does not tell it; ``logits``.
    """
    code, *arguments = command
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code + REPORT, *map(str, arguments)],
        cwd=ROOT,  # ``-c`` finds the modules in the working folder
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    times, report, messages = {}, {}, []
    for line in process.stdout:
        if line.strip() in ("loaded", "used"):
            times[line.strip()] = time.perf_counter() - start
        elif line.startswith("{"):
            report = json.loads(line)
        else:
            messages.append(line)
    if process.wait() != 0:
        raise RuntimeError("Loading failed in a fresh process:\n" + "".join(messages))
    return {**times, **report}


if __name__ == "__main__":
    main()
