"""Where to compute: the devices of this machine, for commands and benchmarks."""

import argparse
import contextlib
import platform
from pathlib import Path

import torch

import edition  # noqa: F401 - tiktoken needs no network


def choose_device():
    """Return the best device of this machine: CUDA, Apple silicon (MPS) or CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def device_named(text):
    """A type for argparse: a device of PyTorch."""
    try:
        return torch.device(text)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a device such as cpu, cuda or mps") from error


def describe_machine(device="cpu"):
    """The processor that does the work and its threads, for the reader of measured times."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return f"{model}, {torch.get_num_threads()} thread(s)"
