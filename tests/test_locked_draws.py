"""The order of random draws: three ways to the same six numbers, and what they count.

Notebook 07, the published blocks of code and ``python text_classifier.py initial`` run with one and the
same model, gpt2-mini. On the UCI data (``SPAM_MIRROR``) a constant answer then shows without OpenAI's
weights that the draws are those of the published run: it gives the published accuracies and losses.
"""

import contextlib
import io
import re
from pathlib import Path

import nbformat
import pytest
import torch

from classification import calc_accuracy_loader, calc_loss_loader, load_pretrained_model
from previous_chapters import model_config
from reference_results import agrees, published, tolerance_of
from spam_data import SAMPLE_FILE, create_spam_loaders

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "07_initial_accuracy_and_loss.ipynb"
BLOCKS = sorted((ROOT / "tests" / "data" / "seed_document").glob("*.py"))
MINI, CPU = "gpt2-mini (10M)", torch.device("cpu")
SETS = ("train", "validation", "test")


def six_numbers(printed):
    """The three accuracies in percent and the three losses that a run printed, as texts."""
    accuracies = re.findall(r"accuracy:? +([\d.]+) ?%", printed)
    losses = re.findall(r"loss:? +([\d.]+)", printed)
    assert len(accuracies) == len(losses) == 3, printed
    return accuracies + losses


def cells_up_to_the_losses():
    """The code of notebook 07 without the common first cell and plots, in order, and the stored outputs."""
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    end = next(i for i, cell in enumerate(cells) if "train_loss = calc_loss_loader" in cell.source)
    cells = [cell for cell in cells[1 : end + 1] if "plt.show()" not in cell.source]
    stored = "".join(output.get("text", "") for cell in cells for output in cell.outputs)
    return [cell.source for cell in cells], stored


def printed_by(codes, namespace):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for code in codes:
            exec(compile(code, "a cell", "exec"), namespace)
    # label and losses of other lines are not among the six
    lines = [line for line in printed.getvalue().splitlines() if re.match(r"\w+ (accuracy|loss):", line)]
    return "\n".join(lines)


@pytest.fixture(scope="module", params=["sample", "uci"])
def data(request):
    """The name of the data, its file, and the folder or address of its archive."""
    if request.param == "sample":
        return "sample", SAMPLE_FILE, ""
    return "uci", request.getfixturevalue("uci_file"), request.getfixturevalue("uci_mirror")


@pytest.fixture(scope="module")
def by_notebook(data, embedded_load):
    name, _, mirror = data
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(embedded_load.models_dir.parent)
        patch.setenv("CHOOSE_MODEL", MINI)
        patch.setenv("CHOOSE_DATA", name)
        patch.setenv("SPAM_MIRROR", mirror)
        return six_numbers(printed_by(["import os", *cells_up_to_the_losses()[0]], {}))


@pytest.mark.slow
def test_published_blocks_give_the_numbers_of_the_notebook(data, by_notebook, embedded_load, tokenizer):
    loaders = create_spam_loaders(tokenizer, data[1])
    namespace = {
        "torch": torch,
        "tokenizer": tokenizer,
        "BASE_CONFIG": model_config(MINI),
        "model": load_pretrained_model(MINI, embedded_load.models_dir),
        **dict(zip(("train_loader", "val_loader", "test_loader"), loaders)),
    }
    codes = [path.read_text(encoding="utf-8") for path in BLOCKS if path.stem >= "06"]
    assert six_numbers(printed_by(codes, namespace)) == by_notebook


@pytest.mark.slow
def test_command_gives_the_numbers_of_the_notebook(
    data, by_notebook, embedded_load, command_line, monkeypatch, capsys
):
    name, _, mirror = data
    monkeypatch.chdir(embedded_load.models_dir.parent)
    monkeypatch.setenv("SPAM_MIRROR", mirror)
    command_line("initial", "--model", MINI, "--data", name, "--device", "cpu")
    assert six_numbers(capsys.readouterr().out) == by_notebook


@pytest.mark.slow
@pytest.mark.parametrize("data", ["sample"], indirect=True)
def test_stored_outputs_of_the_notebook_are_those_numbers(data, by_notebook):
    lines = re.findall(r"^\w+ (?:accuracy|loss): [\d.]+%?$", cells_up_to_the_losses()[1], re.M)
    assert six_numbers("\n".join(lines)) == by_notebook


# ---------------------------------------------------------------------------------
# What the draws choose, without a model
# ---------------------------------------------------------------------------------


class AlwaysSpam(torch.nn.Module):
    """Gives each message the same margin in favour of spam."""

    def __init__(self, margin):
        super().__init__()
        self.margin = margin

    def forward(self, ids):
        return torch.tensor([0.0, self.margin]).expand(*ids.shape, 2)


@pytest.fixture(scope="module")
def uci_loaders(uci_file, tokenizer):
    return create_spam_loaders(tokenizer, uci_file)


def run_as_published(loaders, margin):
    """Accuracies in percent of ten batches, then losses of five, from one seed."""
    model = AlwaysSpam(margin)
    torch.manual_seed(123)
    accuracies = [100 * calc_accuracy_loader(loader, model, CPU, num_batches=10) for loader in loaders]
    return accuracies, [calc_loss_loader(loader, model, CPU, num_batches=5) for loader in loaders]


def test_answer_spam_to_everything_gives_the_published_accuracies(uci_loaders):
    accuracies, _ = run_as_published(uci_loaders, margin=1.0)
    assert accuracies == [46.25, 45.0, 48.75]
    assert accuracies == [published(f"initial_accuracy_percent.{name}") for name in SETS]


def test_five_loss_batches_hold_19_20_and_18_ham_messages(uci_loaders):
    _, losses = run_as_published(uci_loaders, margin=1000.0)  # a ham message costs 1000, spam nothing
    ham = [round(40 * loss / 1000) for loss in losses]
    assert ham == [19, 20, 18] == [published(f"initial_loss.ham_messages.{name}") for name in SETS]


def test_one_margin_for_all_messages_gives_the_published_losses(uci_loaders):
    _, losses = run_as_published(uci_loaders, margin=5.15)
    assert losses == pytest.approx([published(f"initial_loss.{name}") for name in SETS], abs=0.003)


def test_one_draw_too_many_changes_the_ham_messages_of_the_training_batches(uci_loaders):
    model = AlwaysSpam(1000.0)
    torch.manual_seed(123)
    for loader in uci_loaders:
        calc_accuracy_loader(loader, model, CPU, num_batches=10)
    torch.rand(1)
    losses = [calc_loss_loader(loader, model, CPU, num_batches=5) for loader in uci_loaders]
    ham = [round(40 * loss / 1000) for loss in losses]
    assert ham[0] != 19 and ham[1:] == [20, 18]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("messages", [-1, 1])
def test_tolerance_notices_one_wrong_message(name, messages):
    key = f"initial_accuracy_percent.{name}"
    assert agrees(published(key), published(key), tolerance_of(key))
    assert not agrees(published(key) + messages * 100 / 80, published(key), tolerance_of(key))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("messages", [-1, 1])
def test_tolerance_notices_one_message_of_the_other_class(name, messages):
    """A message read rightly in place of one read wrongly moves the loss by the margin, over 40 messages."""
    key = f"initial_loss.{name}"
    assert not agrees(published(key) + messages * 5.15 / 40, published(key), tolerance_of(key))
