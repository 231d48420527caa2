"""The document that notebooks 02 to 07 implement: its code runs here as it was published.

``data/seed_document`` holds its blocks of code in their order, and what they printed there.
"""

import ast
import contextlib
import io
import re
import shutil
from pathlib import Path

import nbformat
import pytest
import torch

import classification
from previous_chapters import GPTModel, model_config
from spam_data import create_spam_loaders

FOLDER = Path(__file__).resolve().parent / "data" / "seed_document"
NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
BLOCKS = sorted(path.stem for path in FOLDER.glob("*.py"))


def code_of(block):
    return (FOLDER / f"{block}.py").read_text(encoding="utf-8")


def published_output(block):
    return (FOLDER / f"{block}.txt").read_text(encoding="utf-8")


def test_print_of_the_124m_model_is_the_published_listing():
    with torch.device("meta"):
        model = GPTModel(model_config("gpt2-small (124M)"))
    assert f"{model}\n" == published_output("05_print_model")


# ---------------------------------------------------------------------------------
# The blocks run one after the other
# ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(mirror_124m, messages_file, tokenizer, tmp_path_factory):
    """Run all blocks with 124M random values. Gives ({block: what it printed}, the namespace)."""
    # notebook 01's loaders, but for the size of a batch: 1 x 8 tokens take a hundredth of the time
    loaders = create_spam_loaders(tokenizer, messages_file, batch_size=1)
    for loader in loaders:
        loader.dataset.encoded_texts = [ids[:8] for ids in loader.dataset.encoded_texts]
    namespace = {
        "torch": torch,
        "tokenizer": tokenizer,
        "train_dataset": loaders[0].dataset,
        **dict(zip(("train_loader", "val_loader", "test_loader"), loaders)),
    }
    outputs, folder = {}, tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("GPT2_MIRROR", str(mirror_124m))
        patch.setenv("GPT2_VERIFY", "0")
        for block in BLOCKS:
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(code_of(block), f"{block}.py", "exec"), namespace)
            outputs[block] = printed.getvalue()
    yield outputs, namespace
    shutil.rmtree(folder)


def form(text):
    """A printed text with # for each number that depends on the weights."""
    return re.sub(r" *-?\d+\.\d+", "#", text)


@pytest.mark.slow
@pytest.mark.parametrize("block", ["05_print_model", "09_inputs"])
def test_output_that_no_weight_decides_is_the_published_one(run, block):
    outputs, _ = run
    assert outputs[block] == published_output(block)


@pytest.mark.slow
@pytest.mark.parametrize(
    "block",
    [
        "10_outputs",
        "11_last_output_token",
        "12_last_output_token_again",
        "16_initial_accuracy",
        "19_initial_loss",
    ],
)
def test_output_has_the_published_form(run, block):
    outputs, _ = run
    assert form(outputs[block]) == form(published_output(block))


@pytest.mark.slow
@pytest.mark.parametrize("block", ["03_generate", "04_spam_prompt"])
def test_continued_text_begins_with_the_prompt(run, block):
    outputs, namespace = run
    prompt = namespace["text_1" if block == "03_generate" else "text_2"]
    assert published_output(block).startswith(prompt)
    assert outputs[block].startswith(prompt) and len(outputs[block]) > len(prompt) + 1


@pytest.mark.slow
def test_spam_prompt_is_continued_by_23_tokens(run, tokenizer):
    _, namespace = run
    assert namespace["token_ids"].shape == (1, len(tokenizer.encode(namespace["text_2"])) + 23)


@pytest.mark.slow
def test_softmax_changes_nothing_about_the_label(run):
    outputs, _ = run
    assert outputs["13_softmax_label"] == outputs["14_argmax_label"]
    assert outputs["14_argmax_label"] in ("Class label: 0\n", "Class label: 1\n")


@pytest.mark.slow
def test_blocks_without_a_published_output_print_nothing(run):
    outputs, _ = run
    silent = [block for block in BLOCKS if not (FOLDER / f"{block}.txt").exists()]
    assert silent and {outputs[block] for block in silent} == {""}


@pytest.mark.slow
def test_model_has_the_values_of_the_checkpoint(run, values_124m):
    _, namespace = run
    assert torch.equal(namespace["model"].tok_emb.weight.cpu(), torch.from_numpy(values_124m["wte"]))


@pytest.mark.slow
def test_last_block_final_norm_and_head_are_left_to_train(run):
    _, namespace = run
    parameters = namespace["model"].parameters()
    assert sum(parameter.numel() for parameter in parameters if parameter.requires_grad) == 7_090_946


# ---------------------------------------------------------------------------------
# The modules and the notebooks have the same code
# ---------------------------------------------------------------------------------


def without_docstring(function):
    if ast.get_docstring(function) is not None:
        function.body = function.body[1:]
    return ast.dump(function)


@pytest.mark.parametrize(
    "block, name",
    [
        ("15_calc_accuracy_loader", "calc_accuracy_loader"),
        ("17_calc_loss_batch", "calc_loss_batch"),
        ("18_calc_loss_loader", "calc_loss_loader"),
    ],
)
def test_function_of_the_module_is_the_published_one(block, name):
    module = ast.parse(Path(classification.__file__).read_text(encoding="utf-8"))
    (function,) = [node for node in module.body if getattr(node, "name", None) == name]
    (published,) = ast.parse(code_of(block)).body
    assert without_docstring(function) == without_docstring(published)


def lines_of(code):
    """The lines that are compared: (indentation, text without doubled spaces).

    Left out: blank lines, and the two lines by which the notebooks choose between their two
    editions: the choice of the model, and the embedded model in the table.
    """
    lines = [(len(line) - len(line.lstrip()), " ".join(line.split())) for line in code.split("\n")]
    return [line for line in lines if line[1] and not line[1].startswith(("CHOOSE_MODEL =", '"gpt2-mini'))]


def stands_in(block, cells):
    """Whether the lines of a block stand in a notebook, in one piece.

    A notebook may cut a block in two: then one part ends its cell, and the next begins a later cell.
    """
    rest = block
    for cell in cells:
        for start in range(len(cell)) if rest is block else [0]:
            same = 0
            while same < len(rest) and cell[start + same : start + same + 1] == [rest[same]]:
                same += 1
            if same == len(rest):
                return True
            if same and start + same == len(cell):
                rest = rest[same:]
                break
    return False


NOTEBOOK_OF = {
    "01_configuration": "02_model_configurations",
    "02_load_weights": "03_loading_pretrained_weights",
    "03_generate": "04_probing_generation",
    "04_spam_prompt": "04_probing_generation",
    "05_print_model": "05_two_class_head",
    "06_freeze": "05_two_class_head",
    "07_new_head": "05_two_class_head",
    "08_unfreeze": "06_selective_unfreezing",
    "09_inputs": "05_two_class_head",
    "10_outputs": "05_two_class_head",
    "11_last_output_token": "05_two_class_head",
    "12_last_output_token_again": "07_initial_accuracy_and_loss",
    "13_softmax_label": "07_initial_accuracy_and_loss",
    "14_argmax_label": "07_initial_accuracy_and_loss",
    "15_calc_accuracy_loader": "07_initial_accuracy_and_loss",
    "16_initial_accuracy": "07_initial_accuracy_and_loss",
    "17_calc_loss_batch": "07_initial_accuracy_and_loss",
    "18_calc_loss_loader": "07_initial_accuracy_and_loss",
    "19_initial_loss": "07_initial_accuracy_and_loss",
}


def test_each_block_has_a_notebook():
    assert sorted(NOTEBOOK_OF) == BLOCKS


@pytest.mark.parametrize("block", BLOCKS)
def test_block_stands_verbatim_in_its_notebook(block):
    notebook = nbformat.read(NOTEBOOKS / f"{NOTEBOOK_OF[block]}.ipynb", as_version=4)
    cells = [lines_of(cell.source) for cell in notebook.cells if cell.cell_type == "code"]
    assert stands_in(lines_of(code_of(block)), cells)
