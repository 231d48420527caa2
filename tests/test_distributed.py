"""Fine-tuning in several processes gives what one process gives."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import spam_data
from distributed import is_first_process, num_processes, one_after_the_first, process_group

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]

# Fine-tunes on 24 tokens each of 40 messages of the sample; one process, or several under torchrun.
# float64: the gradient of the key bias is zero up to rounding, and AdamW divides it by its
# own size. In float32 this parameter takes steps of the size of the learning rate in a
# direction that rounding decides, in one process as in several.
FINE_TUNE = """
import json, sys
import tiktoken, torch
from safetensors.torch import save_file
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from classification import build_classifier, train_classifier_simple
from distributed import *
from spam_data import SAMPLE_FILE, create_spam_loaders

models_dir, folder = sys.argv[1:]
with process_group(torch.device("cpu")) as device:
    train_loader, val_loader, _ = create_spam_loaders(tiktoken.get_encoding("gpt2"), SAMPLE_FILE)
    for loader, size in ((train_loader, 40), (val_loader, 13)):
        loader.dataset.data = loader.dataset.data[:size]
        loader.dataset.encoded_texts = [ids[:24] for ids in loader.dataset.encoded_texts[:size]]
    with one_after_the_first():
        model = build_classifier("gpt2-mini (10M)", models_dir).double()

    several = num_processes() > 1
    classifier = DistributedClassifier(model) if several else model
    synchronised = []
    if several:
        def count(_, bucket):
            synchronised.append(bucket.buffer().numel())
            return allreduce_hook(None, bucket)
        classifier.shared.register_comm_hook(None, count)

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    history = train_classifier_simple(
        classifier, train_loader, val_loader, optimizer, device, num_epochs=2, eval_freq=4, eval_iter=2
    )
    if is_first_process():
        save_file(model.state_dict(), f"{folder}/{num_processes()}.safetensors")
        with open(f"{folder}/{num_processes()}.json", "w") as file:
            json.dump({"history": history, "synchronised": synchronised}, file)
"""


@pytest.fixture
def fine_tune(run_python, run_script, embedded_load, tmp_path, capsys):
    """A function that fine-tunes in so many processes: (printed text, weights, what the script noted)."""
    script, arguments = tmp_path / "fine_tune.py", (embedded_load.models_dir, tmp_path)
    script.write_text(FINE_TUNE)

    def run(processes):
        if processes == 1:  # this one: another would import PyTorch first
            assert run_script(script, *arguments) == 0
            printed = capsys.readouterr().out
        else:
            process = run_python(*TORCHRUN, processes, script, *arguments)
            assert process.returncode == 0, process.stderr
            printed = process.stdout
        notes = json.loads((tmp_path / f"{processes}.json").read_text())
        return printed, load_file(tmp_path / f"{processes}.safetensors"), notes

    return run


@pytest.mark.slow
def test_three_processes_train_as_one_does(fine_tune):
    printed_by_one, weights_of_one, notes_of_one = fine_tune(1)
    printed, weights, notes = fine_tune(3)  # a batch of 8 has no three equal shares
    assert printed == printed_by_one and printed.count("Train loss") == 3
    for losses_or_accuracies, of_one in zip(notes["history"][:4], notes_of_one["history"][:4]):
        assert losses_or_accuracies == pytest.approx(of_one, abs=1e-9)
    assert notes["history"][4] == notes_of_one["history"][4] == 80  # examples seen
    assert weights.keys() == weights_of_one.keys()
    for name, value in weights.items():
        torch.testing.assert_close(value, weights_of_one[name], rtol=0, atol=1e-5)
    trainable = 12 * 160**2 + 13 * 160 + 2 * 160 + 2 * 160 + 2  # last block, final layer norm, head
    assert sum(notes["synchronised"]) == 10 * trainable  # ten steps; nothing of what is frozen


# Two commands on the first lines of the sample, so that they take seconds.
COMMANDS = """
import sys
from pathlib import Path
import distributed, spam_data, text_classifier

spam_data.SAMPLE_FILE = Path("messages.tsv")
options = ["--model", "gpt2-mini (10M)", "--data", "sample", "--device", "cpu"]
for command in (["initial"], ["finetune", "--epochs", "1"]):
    sys.argv = ["text_classifier.py", *command, *options]
    text_classifier.main()
assert distributed.num_processes() == 1, "the process group was not ended"
"""


@pytest.mark.slow
def test_commands_give_the_same_in_two_processes(
    run_python, run_script, embedded_load, write_beginning_of_sample, tmp_path, monkeypatch, capsys
):
    (tmp_path / "commands.py").write_text(COMMANDS)
    write_beginning_of_sample(tmp_path / "messages.tsv", 150)
    (tmp_path / "gpt2").symlink_to(embedded_load.models_dir)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(spam_data, "SAMPLE_FILE", spam_data.SAMPLE_FILE)  # the script changes it

    process = run_python(*TORCHRUN, 2, "commands.py")
    assert process.returncode == 0, process.stderr
    (saved,) = (tmp_path / "classifiers").iterdir()
    weights = load_file(saved)
    saved.unlink()
    assert run_script("commands.py") == 0
    assert process.stdout == capsys.readouterr().out
    assert process.stdout.endswith(f"Saved as classifiers/{saved.name}\n")
    initial = process.stdout.splitlines()[:7]
    assert initial[-1].startswith("Test loss") and process.stdout.count("Test loss") == 1
    for name, value in load_file(saved).items():
        if not name.endswith("W_key.bias"):  # see above: the command computes in float32
            torch.testing.assert_close(value, weights[name], rtol=0, atol=1e-5)


TAKE_TURNS_AND_SLEEP = """
import os, sys, time
from pathlib import Path
from distributed import *

folder = Path(sys.argv[1])

def note(word):
    with open(folder / "notes.txt", "a") as file:
        file.write(f"{torch.distributed.get_rank()} {word}\\n")

with process_group(torch.device("cpu")):
    with one_after_the_first():
        note("begins")
        time.sleep(1)
        note("ends")
    print(f"printed by {torch.distributed.get_rank()}", flush=True)
    (folder / "workers" / str(os.getpid())).touch()
    time.sleep(120)
"""


def is_running(pid):
    """Whether there is such a process, one that has ended and only waits to be noticed apart."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    assert condition()


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of two processes that have taken turns, printed and slept when their torchrun was killed."""
    folder = tmp_path_factory.mktemp("killed")
    script, workers = folder / "take_turns.py", folder / "workers"
    script.write_text(TAKE_TURNS_AND_SLEEP)
    workers.mkdir()
    command = [sys.executable, *TORCHRUN, "2", script, folder]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with open(folder / "printed.txt", "w") as printed:
        torchrun = subprocess.Popen(command, env=variables, stdout=printed, stderr=subprocess.DEVNULL)
        wait_until(lambda: len(list(workers.iterdir())) == 2)
        torchrun.kill()
        torchrun.wait()
    return folder


def test_first_process_fetches_before_the_others_and_prints_alone(killed):
    notes = (killed / "notes.txt").read_text().splitlines()
    assert notes == ["0 begins", "0 ends", "1 begins", "1 ends"]
    assert (killed / "printed.txt").read_text() == "printed by 0\n"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_workers_end_with_a_torchrun_that_is_killed(killed):
    workers = [worker.name for worker in (killed / "workers").iterdir()]
    wait_until(lambda: not any(map(is_running, workers)), seconds=20)


def test_without_torchrun_nothing_changes(capsys):
    with process_group(CPU) as device:
        print("printed")
        assert (device, num_processes(), is_first_process()) == (CPU, 1, True)
        with one_after_the_first():
            pass
    assert capsys.readouterr().out == "printed\n"


@pytest.fixture
def under_torchrun(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)


def test_more_processes_than_gpus_are_refused(under_torchrun, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="4 processes on a machine with 2 GPUs.*--nproc-per-node"):
        with process_group(torch.device("cuda")):
            pass


def test_device_that_processes_cannot_share_is_refused(under_torchrun):
    with pytest.raises(ValueError, match="'mps'.*--device cpu"):
        with process_group(torch.device("mps")):
            pass
