"""Train gpt2-mini (10M), the small GPT-2 that ships with this book.

    python assets/train_gpt2_mini.py train  TEXTS RUN    # train; run it again to continue
    python assets/train_gpt2_mini.py export TEXTS RUN assets/10M

TEXTS is a folder of plain-text files (searched recursively), RUN a folder for the
cached tokens, the log and the saved states. Training writes its state at regular steps:
after an interruption the same command continues where the last saved state stands, and
every batch depends only on the seed and the step number, never on when the run began.

Rare tokens. Two thirds of GPT-2's 50,257 tokens hardly occur in a small corpus, and the
output layer over all of them would take most of the computing time. The most frequent
tokens keep an embedding row each; all others share one row. That is an ordinary GPT-2
with tied rows, and its softmax over the *whole* vocabulary is computed exactly: N tokens
with the same logit r contribute N * exp(r) = exp(r + log N), so that one column with
log N added stands for all of them. The reported losses are over the full vocabulary. The
export tells the rare tokens apart again (see ``rows_for_all_tokens``).
With ``--kept-tokens 50257`` every token has its own row (worth it on a GPU).

Optimisers: Muon for the weight matrices of the blocks (Jordan et al. 2024), AdamW for
embeddings, biases and layer norms. Learning rate: short warm-up, constant, then linear
decay to zero. Windows: 256 tokens, then 1,024 (the full context) towards the end, so that
every position embedding is trained. The defaults are those of the shipped checkpoint. To
train for longer, run it again with a larger ``--tokens``: it goes on from the state before
the decay.
"""

import argparse
import json
import math
import re
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from classification import load_pretrained_model  # noqa: E402
from edition import get_tokenizer  # noqa: E402
from files import sha256_of  # noqa: E402
from gpt_download import (  # noqa: E402
    DATA_FILE,
    FILES,
    SHA256_FILE,
    TENSORS_FILE,
    import_tensorflow,
)
from previous_chapters import GPTModel, model_config  # noqa: E402
from tools.checkpoints import write_tensorflow_checkpoint  # noqa: E402

CONFIG = model_config("gpt2-mini (10M)")
END_OF_TEXT = 50256
HELD_OUT_SHARE = 0.02  # of every source, taken from its middle
CHAPTER = re.compile(r"^(?=[ \t]*(?:chapter|book|part|letter|volume|stave)[ .]+[\divxlc]+\b)", re.I | re.M)


# ---------------------------------------------------------------------------------
# Text to tokens
# ---------------------------------------------------------------------------------


def clean(raw):
    """Decode one file and make its text plain: ASCII quotes and dashes, unwrapped lines."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    text = text.replace("\r\n", "\n").replace("\xa0", " ").replace("—", "--").replace("–", "-")
    text = re.sub("[“”„]", '"', text)
    text = re.sub("[‘’‚]", "'", text)
    text = re.sub(r"[ \t]+", " ", text)
    text = re.sub(r" ?\n ?", "\n", text)
    text = re.sub(r"(?<=[a-z,;])\n(?=\S)", " ", text)  # a line that breaks inside a sentence
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def read_sources(folder):
    """Return {name: token IDs}, one entry a file, with <|endoftext|> before every chapter."""
    tokenizer = get_tokenizer()
    sources = {}
    for path in tqdm(sorted(Path(folder).rglob("*.txt")), desc="tokenising", unit="file"):
        ids = []
        for chapter in CHAPTER.split(clean(path.read_bytes())):
            if chapter.strip():
                ids += [END_OF_TEXT, *tokenizer.encode_ordinary(chapter)]
        sources[path.stem] = np.array(ids, dtype=np.uint16)
    if not sources:
        raise FileNotFoundError(f"No .txt file under {folder}.")
    return sources


def split_source(ids):
    """Cut the held-out share out of the middle of one source: (training parts, held-out part)."""
    size = round(len(ids) * HELD_OUT_SHARE)
    start = (len(ids) - size) // 2
    return [ids[:start], ids[start + size :]], ids[start : start + size]


def prepare_data(folder, run):
    """Tokenise once and cache; return the training and held-out streams as uint16 arrays."""
    cache = run / "tokens.npz"
    if not cache.exists():
        train, held_out, counts = [], [], {}
        for name, ids in read_sources(folder).items():
            parts, middle = split_source(ids)
            train += parts
            held_out.append(middle)
            counts[name] = {"tokens": len(ids), "held_out": len(middle)}
        np.savez(cache, train=np.concatenate(train), held_out=np.concatenate(held_out))
        (run / "sources.json").write_text(json.dumps(counts, indent=1))
    arrays = np.load(cache)
    return arrays["train"], arrays["held_out"]


def choose_tokens(train, kept_tokens):
    """Return (kept, column): the IDs with a row of their own, and the row of every ID.

    The most frequent ``kept_tokens`` IDs keep a row; ``column`` maps all others to the
    last row, which they share.
    """
    counts = np.bincount(train, minlength=CONFIG["vocab_size"])
    counts[END_OF_TEXT] = max(counts[END_OF_TEXT], 1)
    kept = np.sort(np.argsort(-counts, kind="stable")[:kept_tokens])
    column = np.full(CONFIG["vocab_size"], len(kept), dtype=np.int64)
    column[kept] = np.arange(len(kept))
    return kept, torch.from_numpy(column)


# ---------------------------------------------------------------------------------
# Model and loss
# ---------------------------------------------------------------------------------


def make_model(num_rows):
    """GPT-2 with ``num_rows`` tied embedding rows, initialised as Radford et al. (2019) describe."""
    model = GPTModel({**CONFIG, "vocab_size": num_rows})
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or name.endswith("shift"):
            torch.nn.init.zeros_(parameter)
        elif parameter.ndim == 2:
            std = 0.01 if name.startswith("pos_emb") else 0.02
            if name.endswith(("out_proj.weight", "layers.2.weight")):  # writes into the residual stream
                std /= math.sqrt(2 * CONFIG["n_layers"])
            torch.nn.init.normal_(parameter, std=std)
    model.out_head.weight = model.tok_emb.weight
    return model


def token_losses(model, inputs, targets, num_rare):
    """Cross-entropy of every target over the full vocabulary, without the constant of rare targets."""
    logits = model(inputs).float()  # (B, T, rows)
    if num_rare > 1:
        shared = torch.zeros(logits.shape[-1], device=logits.device)
        shared[-1] = math.log(num_rare)  # the shared row stands for num_rare equal logits
        logits = logits + shared
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@torch.no_grad()
def held_out_loss(loss_fn, model, stream, column, num_rare, device, window, limit):
    """Mean loss in nats per token over the full vocabulary on (a sample of) the held-out stream."""
    num_windows = (len(stream) - 1) // window
    step = max(1, num_windows * window // limit)
    rows = column[torch.from_numpy(stream.astype(np.int64))]
    total, count = 0.0, 0
    for i in range(0, num_windows, step * 8):
        starts = range(i, min(i + step * 8, num_windows), step)
        chunk = torch.stack([rows[s * window : s * window + window + 1] for s in starts]).to(device)
        targets = chunk[:, 1:]
        loss = loss_fn(model, chunk[:, :-1], targets, num_rare).item()
        # a rare target is one of num_rare equal ones: its own share is 1 / num_rare
        loss += (targets == rows.max()).float().mean().item() * math.log(num_rare) if num_rare > 1 else 0.0
        total, count = total + loss * targets.numel(), count + targets.numel()
    return total / count


def batch_at(step, rows, window, batch_tokens, seed):
    """The batch of one step: a function of the seed and the step alone."""
    batch_size = batch_tokens // window
    num_windows = (len(rows) - 1) // window - 1
    epoch, position = divmod(step * batch_size, num_windows)
    generator = torch.Generator().manual_seed(seed + 1000 * window + epoch)
    shift = torch.randint(window, (1,), generator=generator).item()
    order = torch.randperm(num_windows, generator=generator)
    picks = order[position : position + batch_size]
    if len(picks) < batch_size:  # the last batch of an epoch borrows from the epoch's start
        picks = torch.cat([picks, order[: batch_size - len(picks)]])
    starts = picks * window + shift
    chunk = rows[starts[:, None] + torch.arange(window + 1)]  # (B, T + 1)
    return chunk[:, :-1], chunk[:, 1:]


def learning_rate_factor(step, steps, warmup, decay_share):
    """Linear warm-up, constant, linear decay to zero over the last ``decay_share`` of the steps."""
    decay_steps = round(steps * decay_share)
    return min(1.0, (step + 1) / warmup, (steps - step) / decay_steps)


# ---------------------------------------------------------------------------------
# The two commands
# ---------------------------------------------------------------------------------


def train(args):
    run = Path(args.run)
    run.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)

    train_ids, held_out = prepare_data(args.texts, run)
    kept, column = choose_tokens(train_ids, args.kept_tokens)
    num_rare = CONFIG["vocab_size"] - len(kept)
    rows = column[torch.from_numpy(train_ids.astype(np.int64))]
    print(
        f"{len(train_ids):,} training tokens, {len(held_out):,} held out; {len(kept):,} rows of their own "
        f"cover {(rows < len(kept)).float().mean():.2%} of the text; device {device}"
    )

    model = make_model(len(kept) + (num_rare > 0)).to(device)
    matrices = [p for p in model.trf_blocks.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if all(p is not m for m in matrices)]
    optimizers = [
        torch.optim.Muon(matrices, lr=args.muon_lr, weight_decay=0.01, momentum=0.95),
        torch.optim.AdamW(others, lr=args.adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    base_lrs = [args.muon_lr, args.adam_lr]
    loss_fn = torch.compile(token_losses) if args.compile else token_losses

    steps = args.tokens // args.batch_tokens
    long_from = round(steps * (1 - args.long_share))
    decay_from = steps - round(steps * args.decay_share)
    first, elapsed = 0, 0.0
    states = [run / "last.pt", run / "before_decay.pt"]
    state_path = next((p for p in states if p.exists()), None)
    if state_path:
        state = torch.load(state_path, map_location=device, weights_only=True)
        if state["decaying"] and state["steps"] != steps:  # another length: the decay starts anew
            state = torch.load(states[1], map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        first, elapsed = state["step"], state["elapsed"]
        print(f"Continuing at step {first} of {steps}.")

    def save(path, step):
        state = {
            "model": model.state_dict(),
            "optimizers": [o.state_dict() for o in optimizers],
            "step": step,
            "steps": steps,
            "decaying": step > decay_from,
            "elapsed": elapsed + time.time() - started,
            "kept_tokens": args.kept_tokens,
        }
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    started = time.time()
    autocast = torch.autocast(device.type, dtype=torch.bfloat16)
    running = None
    for step in (bar := tqdm(range(first, steps), initial=first, total=steps, unit="step", mininterval=10)):
        if step == decay_from:
            save(states[1], step)
        factor = learning_rate_factor(step, steps, args.warmup, args.decay_share)
        for optimizer, lr in zip(optimizers, base_lrs):
            optimizer.param_groups[0]["lr"] = lr * factor
        window = args.window if step < long_from else CONFIG["context_length"]
        inputs, targets = batch_at(step, rows, window, args.batch_tokens, args.seed)
        with autocast:
            loss = loss_fn(model, inputs.to(device), targets.to(device), num_rare)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        bar.set_postfix(loss=f"{running:.3f}", refresh=False)
        done = step + 1
        if done % args.eval_every == 0 or done == steps:
            with autocast:
                held = held_out_loss(loss_fn, model, held_out, column, num_rare, device, window, limit=60_000)
            record = {
                "step": done,
                "tokens": done * args.batch_tokens,
                "train_loss_shared_rows": round(running, 4),
                "held_out_loss": round(held, 4),
                "window": window,
                "seconds": round(elapsed + time.time() - started),
            }
            with open(run / "log.jsonl", "a") as log:
                log.write(json.dumps(record) + "\n")
            tqdm.write(json.dumps(record))
            save(states[0], done)


def rows_for_all_tokens(rows, kept, column):
    """Give every token an embedding row: (rows, C) -> (V, C).

    A kept token has its trained row. A rare token gets three quarters of the shared row and
    one quarter of the mean of its pieces: the kept tokens that spell it, longest first. So
    rare tokens differ from each other as inputs. Such a row is a weighted mean of trained
    rows, therefore its logit never exceeds the largest of theirs: it never wins an argmax.
    """
    tokenizer = get_tokenizer()
    row_of = {tokenizer.decode_single_token_bytes(token): row for row, token in enumerate(kept)}
    all_rows = rows[column.numpy()]  # rare tokens: the shared row
    for token in np.setdiff1d(np.arange(CONFIG["vocab_size"]), kept):
        rest, pieces = tokenizer.decode_single_token_bytes(token), []
        while rest:
            piece = next((rest[:n] for n in range(len(rest), 0, -1) if rest[:n] in row_of), None)
            if piece:
                pieces.append(rows[row_of[piece]])
            rest = rest[len(piece) if piece else 1 :]  # a byte that no kept token has is left out
        if pieces:
            all_rows[token] = 0.75 * rows[-1] + 0.25 * np.mean(pieces, axis=0)
    return all_rows


def write_tables(folder):
    """Write ``tensors.json``, where each tensor stands in the data file, and ``sha256.json``.

    TensorFlow writes the tensors one after the other, sorted by name; each is compared with
    what TensorFlow reads. With the first table, ``gpt_download.py`` reads the checkpoint where
    TensorFlow is not installed.
    """
    reader = import_tensorflow().train.load_checkpoint(str(folder / "model.ckpt"))
    data = (folder / DATA_FILE).read_bytes()
    lines, offset = [], 0
    for name in sorted(reader.get_variable_to_shape_map()):
        value = reader.get_tensor(name)
        if data[offset : offset + value.nbytes] != value.tobytes():
            raise ValueError(f"{name} does not stand at byte {offset:,} of {folder / DATA_FILE}.")
        shape = [n for n in value.shape if n != 1]  # without the leading axis of OpenAI's matrices
        tensor = {"dtype": value.dtype.str, "shape": shape, "offset": offset}
        lines.append(f'  "{name.removeprefix("model/")}": {json.dumps(tensor)}')
        offset += value.nbytes
    (folder / TENSORS_FILE).write_text("{\n" + ",\n".join(lines) + "\n}\n")
    hashes = {name: sha256_of(folder / name) for name in (*FILES, TENSORS_FILE)}
    (folder / SHA256_FILE).write_text(json.dumps(hashes, indent=2) + "\n")


def export(args):
    """Write the trained weights as a checkpoint in OpenAI's layout, with a row for every token."""
    run, folder = Path(args.run), Path(args.folder)
    state = torch.load(run / "last.pt", map_location="cpu", weights_only=True)
    train_ids, held_out = prepare_data(args.texts, run)
    kept, column = choose_tokens(train_ids, state["kept_tokens"])
    weights = {name: tensor.float().numpy() for name, tensor in state["model"].items()}

    flat = {
        "wte": rows_for_all_tokens(weights["tok_emb.weight"], kept, column),
        "wpe": weights["pos_emb.weight"],
        "ln_f/g": weights["final_norm.scale"],
        "ln_f/b": weights["final_norm.shift"],
    }
    for i in range(CONFIG["n_layers"]):
        block = {name.removeprefix(f"trf_blocks.{i}."): value for name, value in weights.items()}
        for kind, key in (("weight", "w"), ("bias", "b")):
            flat[f"h{i}/attn/c_attn/{key}"] = np.concatenate(
                [block[f"att.{part}.{kind}"].T for part in ("W_query", "W_key", "W_value")], axis=-1
            )  # 3 x (C, C) -> (C, 3C)
            flat[f"h{i}/attn/c_proj/{key}"] = block[f"att.out_proj.{kind}"].T
            flat[f"h{i}/mlp/c_fc/{key}"] = block[f"ff.layers.0.{kind}"].T
            flat[f"h{i}/mlp/c_proj/{key}"] = block[f"ff.layers.2.{kind}"].T
        for norm, name in (("ln_1", "norm1"), ("ln_2", "norm2")):
            flat[f"h{i}/{norm}/g"] = block[f"{name}.scale"]
            flat[f"h{i}/{norm}/b"] = block[f"{name}.shift"]

    settings = {
        "n_vocab": CONFIG["vocab_size"],
        "n_ctx": CONFIG["context_length"],
        "n_embd": CONFIG["emb_dim"],
        "n_head": CONFIG["n_heads"],
        "n_layer": CONFIG["n_layers"],
    }
    write_tensorflow_checkpoint(folder, settings, flat, np.float16)
    write_tables(folder)

    model = load_pretrained_model("gpt2-mini (10M)", run / "check")  # through the code that readers use
    report = {
        "steps": state["step"],
        "tokens_seen": state["step"] * args.batch_tokens,
        "hours": round(state["elapsed"] / 3600, 2),
        "training_tokens": len(train_ids),
        "held_out_tokens": len(held_out),
        "kept_tokens": state["kept_tokens"],
    }
    identity = torch.arange(CONFIG["vocab_size"])
    for window in (256, 1024):
        loss = held_out_loss(
            token_losses, model, held_out, identity, 1, torch.device("cpu"), window, args.limit
        )
        report[f"held_out_loss_window_{window}"] = round(loss, 4)
        report[f"held_out_perplexity_window_{window}"] = round(math.exp(loss), 1)
    print(json.dumps(report, indent=2))
    (run / "report.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser("train")
    p.add_argument("texts")
    p.add_argument("run")
    p.add_argument("--tokens", type=int, default=15_564_800, help="training tokens in all")
    p.add_argument("--batch-tokens", type=int, default=4096)
    p.add_argument("--window", type=int, default=256)
    p.add_argument("--long-share", type=float, default=0.14, help="share of the steps on full-length windows")
    p.add_argument("--decay-share", type=float, default=0.17)
    p.add_argument("--kept-tokens", type=int, default=12_287)
    p.add_argument("--muon-lr", type=float, default=0.02)
    p.add_argument("--adam-lr", type=float, default=3e-3)
    p.add_argument("--warmup", type=int, default=100)
    p.add_argument("--eval-every", type=int, default=250)
    p.add_argument("--seed", type=int, default=123)
    p.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    p.set_defaults(function=train)
    p = commands.add_parser("export")
    p.add_argument("texts")
    p.add_argument("run")
    p.add_argument("folder")
    p.add_argument("--batch-tokens", type=int, default=4096, help="as in training")
    p.add_argument("--limit", type=int, default=400_000, help="held-out tokens for the reported loss")
    p.set_defaults(function=export)
    args = parser.parse_args()
    args.function(args)
