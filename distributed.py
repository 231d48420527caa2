"""Fine-tuning in several processes, one for each GPU (or a few on one CPU):

    torchrun --nproc-per-node 2 text_classifier.py finetune ...

starts two. Each holds the whole model and computes its share of every batch; ``DistributedDataParallel``
brings the gradients together, so that all make the same step, that of one process with the same batches.
They talk through NCCL on GPUs, gloo on a CPU. Method: Li et al. (2020), *PyTorch Distributed*.
"""

import contextlib
import datetime
import os
import threading
import time

import torch
import torch.distributed as dist

import edition  # noqa: F401 - tiktoken needs no network

PATIENCE = datetime.timedelta(hours=2)  # one process downloads the checkpoint while the others wait


def num_processes():
    """How many processes share the work: 1 outside of :func:`process_group`."""
    return dist.get_world_size() if dist.is_initialized() else 1


def started_processes():
    """How many processes ``torchrun`` has started: 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


def is_first_process():
    """Whether this process is the one that prints and saves: the only one without ``torchrun``."""
    return not dist.is_torchelastic_launched() or os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def process_group(device):
    """Join the processes of ``torchrun``, if it runs; yield the device of this one. Only the first prints."""
    if not dist.is_torchelastic_launched():
        yield device
        return

    if device.type == "cuda":
        wanted, available = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if wanted > available:
            raise ValueError(
                f"torchrun started {wanted} processes on a machine with {available} GPUs. "
                "Give --nproc-per-node that number at most, or use --device cpu."
            )
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        raise ValueError(f"Several processes cannot share {str(device)!r}. Use --device cpu, or CUDA GPUs.")

    threading.Thread(target=end_with_parent, args=[os.getppid()], daemon=True).start()
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    with contextlib.ExitStack() as stack:
        if not is_first_process():  # silent: no lines, no progress bars
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield device
    # Not after an error: torchrun ends all processes as soon as one has failed.
    dist.destroy_process_group()


def end_with_parent(parent):
    """End this process when ``torchrun`` has gone: one that was killed does not end its workers."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


@contextlib.contextmanager
def one_after_the_first():
    """Let the first process of each machine go ahead, so that files are downloaded only once."""
    is_first = int(os.environ.get("LOCAL_RANK", 0)) == 0
    if dist.is_initialized() and not is_first:
        dist.barrier()
    yield
    if dist.is_initialized() and is_first:
        dist.barrier()


class DistributedClassifier(torch.nn.Module):
    """The classifier in several processes; each computes an equal share of the rows of a batch.

    All call it with the same batch, (B, T), and get logits and gradient of the whole batch, as from
    ``model`` itself without dropout. Freeze before you make this object.
    """

    def __init__(self, model):
        super().__init__()
        self.rank, self.num_processes = dist.get_rank(), dist.get_world_size()
        self.shared = torch.nn.parallel.DistributedDataParallel(model)

    def forward(self, in_idx):
        B, n = in_idx.shape[0], self.num_processes
        in_idx = torch.cat([in_idx, in_idx[-1:].expand(-B % n, -1)])  # repeat the last row: equal shares
        share = in_idx.chunk(n)[self.rank]  # (ceil(B / n), T)
        logits = self.shared(share)

        if logits.requires_grad:
            # The gradient of the batch is the sum over the shares; DistributedDataParallel takes the mean.
            logits.register_hook(lambda gradient: gradient * n)
        shares = [torch.empty_like(logits) for _ in range(n)]
        dist.all_gather(shares, logits.detach().contiguous())
        shares[self.rank] = logits  # our own share, the one with a gradient
        return torch.cat(shares)[:B]  # (B, T, num_classes)
