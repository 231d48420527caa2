"""What does each way to save time give at the size of GPT-2 124M, and is the result the same?

    python benchmarks/ways.py            # writes results/ways.json, for notebook 11
    python benchmarks/ways.py --quick    # the small model, once each, no file

Each way is measured against the same model without it; of the first three, each stands on the ones before.
The sides take turns in one process, in alternating order; a time is the median of wall times, for one
message. Models, machine and turns are those of ``speed.py``. Outputs are compared: where they differ by
more than the rounding explains, the exit status is 1. Weights are random values: logits can be compared,
but answers say nothing. Notebook 11 counts answers, of a trained model.

What trains is the last block, final norm and head, without a cache: most of a step is the forward pass
of the frozen blocks. Only the optimizer is measured on the memory, where that pass falls away. A model
is compiled block by block, since all of them run the code of the first. Where ``torch.compile`` fails,
as without a C++ compiler, the reason is stored in place of a time.
"""

import argparse
import copy
import os
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

from measurements import TOLERANCE, difference, outputs_agree
from speed import FULL, KEY_BIAS, QUICK, ROOT, SETTINGS, Bench, Training, last_block_weights, machine

# isort: split
import torch
import torch.nn as nn
import torch.nn.functional as F
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import TensorDataset

from classification import load_messages
from edition import PAD_TOKEN_ID
from fast_paths import last_token_logits, logits_at, packed_for_inference, real_tokens, token_position
from files import write_json

LONG_TEXT = 1024  # tokens, as many as GPT-2 reads
LIMITS = {"up to rounding": TOLERANCE["float32"], "in bfloat16": TOLERANCE["bfloat16"], "other weights": None}


class InBfloat16(nn.Module):
    """A model whose matrix products are computed in bfloat16; its weights stay in float32."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        with torch.autocast("cpu", dtype=torch.bfloat16):  # for one pass: it keeps the rounded weights
            return self.model(ids).float()


def compiled(model, backend):
    for block in model.trf_blocks:
        block.compile(backend=backend)
    return model


def compiler_problem(backend):
    """Why ``torch.compile`` does not work here, in a line; None where it works."""
    try:
        torch.compile(nn.GELU(), backend=backend)(torch.zeros(64))
    except Exception as error:  # of many kinds
        return (str(error).strip() or type(error).__name__).split("\n")[0]
    return None


def last_row(model):
    return lambda ids: model(ids)[:, -1, :]


def last_real_row(model):
    return lambda ids: logits_at(model, ids, token_position(ids, "last real"))


class Ways:
    """Measures one way after the other; ``rows`` are the results.

    Args:
        bench (speed.Bench): the models and their turns.
        repeats (int): for batches of 8 messages; a third of it for large ones.
    """

    def __init__(self, bench, repeats):
        self.bench, self.repeats, self.rows = bench, repeats, []
        self.B, self.T = bench.setting["batch_size"], bench.setting["num_tokens"]
        self.large_batch = bench.setting["large_batch"]

    def measure_all(self):
        models, ids = self.bench.classifiers(), self.bench.random_ids
        model, small, many = models["book"], [ids(self.B, self.T)], ids(self.large_batch, self.T)
        before, by_length = self.messages()

        def by_formula(ids):
            with sdpa_kernel(SDPBackend.MATH):
                return last_row(model)(ids)

        packed = packed_for_inference(model)
        self.answering_step_by_step(
            {
                "plain": last_row(models["plain"]),
                "fused functions": last_row(model),
                "one row": lambda ids: last_token_logits(model, ids),
                "packed layers": lambda ids: last_token_logits(packed, ids),
            },
            small,
        )
        self.answering("fused attention", by_formula, last_row(model), small)
        self.answering(
            f"fused attention, {LONG_TEXT} tokens", by_formula, last_row(model), [ids(1, LONG_TEXT)]
        )
        self.answering("bfloat16", last_row(model), last_row(InBfloat16(model)), small, result="in bfloat16")
        self.answering("large batches", *[last_row(model)] * 2, many.split(self.B), [many])
        self.answering("batches by length", *[last_real_row(model)] * 2, before, by_length, reads="last real")
        self.one_pass_of_adamw(model)
        self.training("bfloat16", model, InBfloat16, result="in bfloat16")
        self.training(
            "large batches", model, lambda model: model, batch_size=self.large_batch, result="other weights"
        )
        if problem := compiler_problem(self.bench.setting["compiler"]):
            for job in ("answering", "training"):
                self.keep({"way": "torch.compile", "job": job, "not_measured": problem})
        else:
            compile_blocks = partial(compiled, backend=self.bench.setting["compiler"])
            whole = compile_blocks(copy.deepcopy(model))
            self.answering("torch.compile", last_row(model), last_row(whole), small)
            self.training("torch.compile", model, compile_blocks)

    def answering_step_by_step(self, ways, batches):
        """Functions of token IDs, each with one way more than the one before: all take turns."""
        jobs = {
            way: lambda answer=answer: torch.cat([answer(ids) for ids in batches])
            for way, answer in ways.items()
        }
        messages, names = sum(map(len, batches)), list(ways)
        with torch.inference_mode():
            _, seconds, logits = self.take_turns(jobs, messages)
        for way, one, two in [*zip(names[1:], names, names[1:]), ("the three above", names[0], names[-1])]:
            pair = {"without": seconds[one], "with": seconds[two]}
            self.compare(way, "answering", messages, pair, [("logits", (logits[one], logits[two]))])

    def answering(self, way, without, with_way, batches, other_batches=None, **more):
        """Two functions of token IDs; ``other_batches`` are the same messages, cut differently."""
        jobs = {
            "without": lambda: torch.cat([without(ids) for ids in batches]),
            "with": lambda: torch.cat([with_way(ids) for ids in other_batches or batches]),
        }
        messages = sum(map(len, batches))
        with torch.inference_mode():
            first, seconds, logits = self.take_turns(jobs, messages)
        self.compare(way, "answering", messages, seconds, [("logits", logits.values())], first=first, **more)

    def training(self, way, model, with_way, batch_size=None, **more):
        """Steps with two copies of the model, one changed by ``with_way`` or in larger batches."""
        messages = batch_size or self.B
        models = {"without": copy.deepcopy(model), "with": with_way(copy.deepcopy(model))}
        dataset = self.dataset(messages)
        trainings = {
            side: Training("plain", models[side], dataset, size, self.bench.device)
            for side, size in zip(models, (self.B, messages))
        }
        self.compare_trainings(way, "training", models, trainings, **more)

    def one_pass_of_adamw(self, model):
        """Steps on the memory of the frozen blocks: AdamW in several operations on each tensor, or in one."""
        models = {"without": copy.deepcopy(model), "with": copy.deepcopy(model)}
        dataset = self.dataset(self.B)
        trainings = {
            side: Training(
                "book", models[side], dataset, self.B, self.bench.device, SETTINGS | {"fused": fused}
            )
            for side, fused in (("without", False), ("with", True))
        }
        self.compare_trainings("AdamW in one pass", "training on the memory", models, trainings)

    def dataset(self, messages):
        return TensorDataset(self.bench.random_ids(messages, self.T), torch.arange(messages) % 2)

    def compare_trainings(self, way, job, models, trainings, **more):
        """One epoch of each training a turn."""
        dataset = trainings["without"].loader.dataset
        messages = len(dataset)
        jobs = {side: training.run_epoch for side, training in trainings.items()}
        first, seconds, _ = self.take_turns(jobs, messages)
        with torch.inference_mode():
            outputs = [("logits", [last_row(one)(dataset.tensors[0][: self.B]) for one in models.values()])]
        one, two = (last_block_weights("plain", trained) for trained in models.values())
        pairs = zip(one.items(), two.values())
        outputs += [("weights", (p, q)) for (name, p), q in pairs if not name.endswith(KEY_BIAS)]
        passes = len(seconds["with"]) + 1
        steps = {side: passes * len(training.loader) for side, training in trainings.items()}
        self.compare(way, job, messages, seconds, outputs, first=first, steps=steps, **more)

    def take_turns(self, jobs, messages):
        """Seconds of the first turn, then what ``Bench.take_turns`` gives for the others."""
        first, _ = self.bench.take_turns(jobs, 1)  # warm up
        repeats = self.repeats if messages <= self.B else -(-self.repeats // 3)
        return (first, *self.bench.take_turns(jobs, repeats))

    def compare(self, way, job, messages, seconds, outputs, *, result="up to rounding", first=None, **more):
        """A row of the results: seconds are for one message, the first call was for all of them."""
        medians = {side: statistics.median(values) / messages for side, values in seconds.items()}
        largest = {}
        for what, pair in outputs:
            entry = difference(what, *pair, LIMITS[result])
            largest[what] = max(largest.get(what, entry), entry, key=lambda entry: entry["value"])
        row = {
            "way": way,
            "job": job,
            "reads": "last",
            "result": result,
            "ratio": round(medians["without"] / medians["with"], 3),
            "seconds": {side: round(value, 5) for side, value in medians.items()},
            "repeats": len(seconds["with"]),
            "differences": list(largest.values()),
        }
        if first:
            row["seconds_of_first_call"] = round(first["with"][0], 2)
        self.keep(row | more)

    def keep(self, row):
        self.rows.append(row)
        print(f"\n{row['way']}, {row['job']}: {row.get('ratio', 'not measured')}", flush=True)
        for key, value in list(row.items())[2:]:
            print(f"  {key}: {value}", flush=True)

    def messages(self):
        """Batches of the sample by length, padded to one length, and the same padded to that of the batch."""
        texts = load_messages("gpt2-mini (10M)", "sample")[0].dataset.encoded_texts
        ids = torch.tensor(texts[: self.large_batch])
        ids = F.pad(ids, (0, self.T - ids.shape[1]), value=PAD_TOKEN_ID)
        lengths = real_tokens(ids).sum(dim=1)
        order = lengths.argsort(stable=True).split(self.B)
        return [ids[part] for part in order], [ids[part, : lengths[part].max()] for part in order]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small model, one repeat, to try the script")
    parser.add_argument("--output", type=Path, help="default: results/ways.json; none with --quick")
    args = parser.parse_args()
    setting, cpu = QUICK if args.quick else FULL, torch.device("cpu")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(folder) / "compiled")  # empty: it compiles anew
        ways = Ways(Bench(setting, Path(folder), cpu, "float32"), repeats=1 if args.quick else 7)
        ways.measure_all()
    about = machine(cpu, "float32") | {"bfloat16_in_hardware": torch.ops.mkldnn._is_mkldnn_bf16_supported()}
    result = {
        "machine": about,
        "setting": {key: setting[key] for key in ("model", "batch_size", "num_tokens", "large_batch")}
        | {"long_text": LONG_TEXT},
        "ways": ways.rows,
    }
    output = args.output or (None if args.quick else ROOT / "results" / "ways.json")
    if output is not None:
        write_json(output, result)
        print(f"Written: {output}")
    bounded = [row for row in ways.rows if LIMITS.get(row.get("result")) is not None]
    sys.exit(0 if all(map(outputs_agree, bounded)) else 1)


if __name__ == "__main__":
    main()
