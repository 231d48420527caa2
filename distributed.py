"""Fine-tuning in several processes, one for each GPU (or a few on one CPU).

    torchrun --nproc-per-node 2 text_classifier.py finetune ...

starts the command in two processes. Each holds the whole model and computes its share of
every batch; ``DistributedDataParallel`` brings the gradients together, so that all make the
same optimizer step. The result is that of one process with the same batches.

Method: Li et al. (2020), *PyTorch Distributed: Experiences on Accelerating Data Parallel
Training*. The processes talk through NCCL on GPUs and through gloo on a CPU.
"""

import contextlib
import datetime
import os

import torch
import torch.distributed as dist

import edition  # noqa: F401 - tiktoken needs no network

# One process downloads the checkpoint while the others wait.
PATIENCE = datetime.timedelta(hours=2)


def num_processes():
    """How many processes share the work: 1 unless ``torchrun`` started this one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first_process():
    """Whether this process is the one that prints and saves."""
    return not dist.is_initialized() or dist.get_rank() == 0


@contextlib.contextmanager
def process_group(device):
    """Join the processes that ``torchrun`` started; without ``torchrun``, change nothing.

    Inside, only the first process prints.

    Args:
        device (torch.device): CPU or CUDA.

    Yields:
        torch.device: the device of this process: the CPU, or a GPU of its own.

    Raises:
        ValueError: if the device is neither, or if there are fewer GPUs than processes.
    """
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
        raise ValueError(
            f"Several processes cannot share the device {str(device)!r}. Use --device cpu, or CUDA GPUs."
        )

    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    with contextlib.ExitStack() as stack:
        if not is_first_process():  # silent: no lines, no progress bars
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield device
    # Not after an error: torchrun ends all processes as soon as one has failed.
    dist.destroy_process_group()


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
    """The classifier in several processes. It behaves like the model that it holds.

    All processes call it with the same batch, (B, T), and all get the logits of the whole
    batch, (B, T, num_classes). Each computes an equal share of the rows. Therefore every
    function that trains or evaluates a classifier works with it as it is.

    A backward pass gives every process the gradient of the whole batch. Only parameters
    with ``requires_grad`` are synchronised, so freeze before you make this object.

    With dropout, each process draws masks of its own, and the result is no longer that of
    one process. The models of this book have none.

    Args:
        model (GPTModel): the classifier, already on the device of this process.
    """

    def __init__(self, model):
        super().__init__()
        self.rank, self.num_processes = dist.get_rank(), dist.get_world_size()
        self.shared = torch.nn.parallel.DistributedDataParallel(model)

    def forward(self, in_idx):
        B, n = in_idx.shape[0], self.num_processes
        missing = -B % n  # repeat the last row until all shares are equal
        in_idx = torch.cat([in_idx, in_idx[-1:].expand(missing, -1)])
        share = in_idx.chunk(n)[self.rank]  # (ceil(B / n), T)
        logits = self.shared(share)

        if logits.requires_grad:
            # The gradient of the batch is the sum over the shares; DistributedDataParallel takes the mean.
            logits.register_hook(lambda gradient: gradient * n)
        shares = [torch.empty_like(logits) for _ in range(n)]
        dist.all_gather(shares, logits.detach().contiguous())
        shares[self.rank] = logits  # our own share, the one with a gradient
        return torch.cat(shares)[:B]  # (B, T, num_classes)
