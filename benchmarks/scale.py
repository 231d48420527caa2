"""What each size of GPT-2 needs: memory and time, calculated for all, measured where asked for.

    python benchmarks/scale.py                          # the sizes that this machine has memory for
    python benchmarks/scale.py --models "gpt2-small (124M)" --threads 2

Writes results/scale.json, from which the page "What each size needs" makes its tables. What
is measured replaces the same measurement of an earlier run; the rest of the file stays,
unless it comes from another machine or other versions. ``--models`` without a name measures
nothing and only calculates anew.

Each measurement runs in a fresh process, with random values and one batch of 8 messages of
120 tokens. Memory is the peak of the resident set, less what the process held after its
imports. Linux only: it reads /proc. A time is kept only if the steps had the processor to
themselves: on a busy machine the memory is measured, and the time is not.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import edition  # noqa: E402, F401 - it sets what PyTorch reads when it starts

# isort: split
import torch  # noqa: E402

from classification import add_classification_head, freeze_all_layers, unfreeze_last_block  # noqa: E402
from devices import cpu_name  # noqa: E402
from edition import WEIGHT_DECAY  # noqa: E402
from files import write_json  # noqa: E402
from previous_chapters import MODEL_CONFIGS, GPTModel, model_config  # noqa: E402

RESULTS = ROOT / "results" / "scale.json"
B, T, CLASSES = 8, 120, 2  # messages in a batch, tokens in each, classes
JOBS = ("inference", "last block", "everything")
BYTES = 4  # of a float32
# Processor time over wall time and threads, from which on a time counts: below, others were running
UNDISTURBED = 0.75


# ---------------------------------------------------------------------------------
# Calculated
# ---------------------------------------------------------------------------------


def parameter_counts(cfg):
    """Numbers of parameters: (language model with tied output layer, classifier, trained in "last block")."""
    C, L = cfg["emb_dim"], cfg["n_layers"]
    embeddings = (cfg["vocab_size"] + cfg["context_length"]) * C
    block, norm, head = 12 * C * C + 13 * C, 2 * C, CLASSES * C + CLASSES
    language_model = embeddings + L * block + norm
    return language_model, language_model + head, block + norm + head


def activation_bytes(cfg, job):
    """Memory for activations of one batch: (B, T, C) float32 numbers, times how many of them are held.

    In training, a block keeps 16 for its backward pass: the inputs of its two layer norms (2)
    and their outputs (2), queries, keys and values (3), attention's result (1), the
    feed-forward layer before and after GELU (4 + 4). The final layer norm keeps 2.
    Without a backward pass only the block at work holds any, at most 10: the residual
    stream, its norm, and the feed-forward layer before and after GELU.
    """
    unit = B * T * cfg["emb_dim"] * BYTES
    return {"inference": 10, "last block": 16 + 2, "everything": 16 * cfg["n_layers"] + 2}[job] * unit


def operations(cfg, job):
    """Additions and multiplications in the matrix products of one step (2 for each weight and token)."""
    C, L = cfg["emb_dim"], cfg["n_layers"]
    linear = 2 * 12 * C * C * T  # the linear layers of one block, for one message
    attention = 2 * 2 * C * T * T  # queries x keys, attention weights x values
    forward = L * (linear + attention)
    blocks_passed = {"inference": 0, "last block": 1, "everything": L}[job]
    backward = blocks_passed * 2 * (linear + attention)  # gradients of inputs, and of weights or values
    return B * (forward + backward)


def calculated(name, job):
    """Everything that follows from the configuration, as a dict; bytes and operations are int."""
    cfg = model_config(name)
    _, classifier, last_block = parameter_counts(cfg)
    trained = {"inference": 0, "last block": last_block, "everything": classifier}[job]
    parts = {
        "weights": BYTES * classifier,
        "gradients": BYTES * trained,
        "adamw": 2 * BYTES * trained,  # running means of gradient and squared gradient
        "activations": activation_bytes(cfg, job),
    }
    return {
        "trained_parameters": trained,
        "bytes": parts,
        "total_bytes": sum(parts.values()),
        "operations": operations(cfg, job),
    }


# ---------------------------------------------------------------------------------
# Measured, in a process of its own
# ---------------------------------------------------------------------------------


def memory_now(key):
    """``VmRSS`` (resident now) or ``VmHWM`` (peak) of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no line {key}.")


def random_classifier(name, job):
    """A classifier with random values, made without a language model's head or a second copy."""
    with torch.device("meta"):  # shapes only
        model = GPTModel(model_config(name))
    freeze_all_layers(model)
    model.out_head = torch.nn.Identity()
    model.to_empty(device="cpu")
    torch.manual_seed(123)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    add_classification_head(model, CLASSES)
    if job == "last block":
        unfreeze_last_block(model)
    if job == "everything":
        model.requires_grad_(True)
    return model


def saved_bytes(model, input_ids):
    """Memory that a forward pass keeps for its backward pass, parameters aside, in bytes."""
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = model(input_ids)  # alive until the end, so that no address is used twice
    total = sum(kept.values())
    del logits
    return total


def measure(name, job, steps):
    """Run one warm-up step and ``steps`` timed ones; return peak memory and seconds as a dict."""
    baseline = memory_now("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # start the peak anew
    model = random_classifier(name, job)
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(0, 50257, (B, T), generator=generator)
    labels = torch.randint(0, CLASSES, (B,), generator=generator)
    trained = [p for p in model.parameters() if p.requires_grad and job != "inference"]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, weight_decay=WEIGHT_DECAY) if trained else None

    def step():
        if optimizer is None:
            with torch.no_grad():
                return model(input_ids)[:, -1, :].argmax(dim=-1)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(input_ids)[:, -1, :], labels).backward()
        optimizer.step()

    step()  # warm up
    seconds = []
    processor_start = time.process_time()
    for _ in range(steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    processor_share = (time.process_time() - processor_start) / sum(seconds) / torch.get_num_threads()
    peak = memory_now("VmHWM") - baseline
    optimizer and optimizer.zero_grad()
    return {
        "peak_bytes": peak,
        "saved_bytes": saved_bytes(model, input_ids) if trained else 0,
        "seconds_per_step": statistics.median(seconds) if processor_share > UNDISTURBED else None,
        "processor_share": round(processor_share, 2),
        "steps": steps,
        "threads": torch.get_num_threads(),
    }


# ---------------------------------------------------------------------------------
# All sizes
# ---------------------------------------------------------------------------------


def machine():
    """What the measurements depend on."""
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "processor": cpu_name(),
        "cores": os.cpu_count(),
        "memory_bytes": memory_kb * 1024,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def available_memory():
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def measured_in_fresh_process(name, job, steps, threads):
    process = subprocess.run(
        [sys.executable, __file__, "--one", name, job, "--steps", str(steps)],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(process.stdout)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="*", choices=list(MODEL_CONFIGS), default=list(MODEL_CONFIGS))
    parser.add_argument("--jobs", nargs="*", choices=JOBS, default=list(JOBS))
    parser.add_argument("--steps", type=int, default=5, help="timed steps; the median counts")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "JOB"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one, args.steps)))
        return

    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    same_machine = not args.models or results.get("machine") == machine()
    old = results.get("models", {}) if same_machine else {}
    results = {
        "batch": {"messages": B, "tokens": T},
        "machine": results.get("machine") if same_machine else machine(),
        "models": {},
    }
    for name in MODEL_CONFIGS:
        language_model, classifier, _ = parameter_counts(model_config(name))
        jobs = {}
        for job in JOBS:
            jobs[job] = {
                "calculated": calculated(name, job),
                "measured": old.get(name, {}).get("jobs", {}).get(job, {}).get("measured"),
            }
        results["models"][name] = {
            "parameters": language_model,
            "classifier_parameters": classifier,
            "checkpoint_bytes": BYTES * language_model,
            "jobs": jobs,
        }
    for name in args.models:
        for job in args.jobs:
            entry = results["models"][name]["jobs"][job]
            needed = 1.2 * entry["calculated"]["total_bytes"]
            if needed > available_memory():
                print(f"{name}, {job}: not measured, it needs about {needed / 1e9:.1f} GB", flush=True)
                continue
            measured = measured_in_fresh_process(name, job, args.steps, args.threads)
            entry["measured"] = measured
            seconds = measured["seconds_per_step"]
            print(
                f"{name}, {job}: {measured['peak_bytes'] / 1e9:.2f} GB "
                f"(calculated {entry['calculated']['total_bytes'] / 1e9:.2f}), "
                + (f"{seconds:.2f} s a step" if seconds else "time not measured, the machine was busy"),
                flush=True,
            )
            write_json(RESULTS, results)
    write_json(RESULTS, results)


if __name__ == "__main__":
    main()
