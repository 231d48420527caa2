"""Where to compute: the devices of this machine, for commands and benchmarks."""

import argparse
import contextlib
import platform
from pathlib import Path

import torch


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


def cpu_name():
    """The model of the processor; on Linux as the system names it."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def describe_machine(device="cpu"):
    """The device that does the work, a CPU with its threads, for the reader of measured times."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()}, {torch.get_num_threads()} thread(s)"
