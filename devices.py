"""Where to compute: the devices of this machine, for commands and benchmarks."""

import contextlib
import platform
from pathlib import Path

import torch

import edition  # noqa: F401 - tiktoken needs no network


def choose_device():
    """Return the best device of this machine: CUDA, Apple silicon (MPS) or CPU."""
    return torch.device(usable_devices()[-1])


def usable_devices():
    """The names of what PyTorch can compute on here, the best last."""
    usable = {"cpu": True, "mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available()}
    return [name for name, is_usable in usable.items() if is_usable]


def device_named(name):
    """The device of this name, such as ``"cpu"`` or ``"cuda:1"``; ``ValueError`` if this machine has none."""
    try:
        device = torch.device(name)
        if device.type in usable_devices():
            is_usable = device.type != "cuda" or (device.index or 0) < torch.cuda.device_count()
        else:  # "meta" has no values, and most others exist in special builds of PyTorch only
            is_usable = torch.zeros(1, device=device).item() == 0
    except (RuntimeError, AssertionError, ImportError, ValueError):  # each kind of device has its own
        is_usable = False
    if not is_usable:
        raise ValueError(
            f"PyTorch finds no device {str(name)!r} on this machine. Choose: {', '.join(usable_devices())}."
        )
    return device


def finish_work(device):
    """A GPU works on while Python goes ahead: wait for it before looking at the clock."""
    device = torch.device(device)
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


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
