"""Where the time of a batch goes in float32 and in bfloat16, and what fused attention costs beside its steps.

    python benchmarks/attention.py           # writes results/attention.json, in about a minute
    python benchmarks/attention.py --quick   # small model, few repeats, writes nothing

Values are random at the size of GPT-2 124M. PyTorch's profiler says what the linear layers and what attention
take of a batch. Then attention alone is computed fused, as the book does, and step by step: product, softmax,
product. The two take turns; a time is a median. Outputs are compared.
"""

import argparse
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import edition  # noqa: E402, F401 - it sets what PyTorch reads when it starts

# isort: split
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from measurements import TOLERANCE, difference, outputs_agree, take_turns  # noqa: E402
from speed import machine  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402

from classification import add_classification_head  # noqa: E402
from edition import PAD_TOKEN_ID  # noqa: E402
from fast_paths import last_token_logits, packed_for_inference  # noqa: E402
from files import write_json  # noqa: E402
from previous_chapters import GPTModel, model_config  # noqa: E402

FULL = {"model": "gpt2-small (124M)", "batch_size": 8, "lengths": [120, 1024], "repeats": 21}
QUICK = {"model": "gpt2-mini (10M)", "batch_size": 2, "lengths": [16, 32], "repeats": 3}
PARTS = {"linear": "linear layers", "scaled_dot_product": "attention"}  # by what a name of PyTorch's contains


def step_by_step(queries, keys, values):
    """Causal attention, (B, H, T, D) each: what ``F.scaled_dot_product_attention`` computes in one call."""
    T, D = queries.shape[-2:]
    mask = torch.full((T, T), -torch.inf, dtype=queries.dtype).triu(1)  # 0 where a token is seen
    scores = queries @ keys.transpose(-2, -1) * D**-0.5 + mask  # (B, H, T, T)
    return torch.softmax(scores, dim=-1) @ values


def fused(queries, keys, values):
    return F.scaled_dot_product_attention(queries, keys, values, is_causal=True)


def medians(seconds):
    return {name: round(statistics.median(values), 5) for name, values in seconds.items()}


def parts_of(job, repeats):
    """Seconds of each part of a job, {part: median}, by PyTorch's profiler."""
    seconds = {part: [] for part in (*PARTS.values(), "all else")}
    for _ in range(repeats):
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            job()
        run = dict.fromkeys(seconds, 0.0)
        for event in profiler.key_averages():
            part = next((part for word, part in PARTS.items() if word in event.key), "all else")
            run[part] += event.self_cpu_time_total / 1e6  # microseconds
        for part, value in run.items():
            seconds[part].append(value)
    return medians(seconds)


def attention_alone(attention, dtype, batch_size, length, repeats):
    """Fused attention and its steps, for one layer: seconds, and how far the outputs differ."""
    shape = batch_size, length, attention.d_out
    inputs = [attention.split_heads(torch.randn(shape, dtype=getattr(torch, dtype))) for _ in range(3)]
    # queries, keys and values: (B, H, T, D) each
    jobs = {"fused": lambda: fused(*inputs), "step by step": lambda: step_by_step(*inputs)}
    take_turns(jobs, 1)  # warm up
    seconds, outputs = take_turns(jobs, repeats)
    differences = [difference("fused against step by step", *outputs.values(), TOLERANCE[dtype])]
    return {"tokens": length, "seconds": medians(seconds), "differences": differences}


@torch.inference_mode()
def measure(model, dtype, setting):
    """What a batch takes in one data type, its parts, and attention alone at each length."""
    B, lengths, repeats = setting["batch_size"], setting["lengths"], setting["repeats"]
    packed = packed_for_inference(model.to(getattr(torch, dtype)))
    ids = torch.randint(PAD_TOKEN_ID, (B, lengths[0]))
    jobs = {"batch": lambda: last_token_logits(packed, ids)}
    take_turns(jobs, 1)  # warm up
    seconds, _ = take_turns(jobs, repeats)
    return {
        "dtype": dtype,
        **medians(seconds),
        "parts": parts_of(jobs["batch"], min(repeats, 5)),
        "attention": [
            attention_alone(packed.trf_blocks[0].att, dtype, B, length, repeats) for length in lengths
        ],
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small model and few repeats, to try the script")
    parser.add_argument("--output", type=Path, help="default: results/attention.json; none with --quick")
    args = parser.parse_args()
    setting = QUICK if args.quick else FULL
    torch.manual_seed(123)
    model = GPTModel(model_config(setting["model"])).eval()
    add_classification_head(model)
    rows = [measure(model, dtype, setting) for dtype in TOLERANCE]
    for row in rows:
        print(row)
    # the last block attends from one position only
    setting = {**setting, "full_blocks": len(model.trf_blocks) - 1}
    output = args.output or (None if args.quick else ROOT / "results" / "attention.json")
    if output is not None:
        write_json(
            output, {"machine": machine(torch.device("cpu"), "both"), "setting": setting, "rows": rows}
        )
        print(f"Written: {output}")
    sys.exit(0 if all(outputs_agree(one) for row in rows for one in row["attention"]) else 1)


if __name__ == "__main__":
    main()
