"""exercise_checks.py: each check takes a right answer, refuses wrong ones, and never shows the solution."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

import exercise_checks
from exercise_checks import EXERCISES, Exercise, check, judge


@pytest.fixture(autouse=True)
def as_a_reader(monkeypatch):
    """Where notebooks are tested, a wrong answer is an error. Not here."""
    monkeypatch.delenv("CHECKS_MUST_HOLD", raising=False)


NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))

# {exercise: (a right answer, wrong answers, what the cell passes on by name)}: at least one wrong answer
# that a reader could give; where there are known mistakes, these too.

# 01
LENGTHS = [10, 20, 30, 40, 50, 60, 70, 80, 5, 5, 5, 5, 5, 5, 5, 10]  # in tokens: two batches of eight
CASES_01 = {
    "01-1": (100 * 0.9 / 2.8, [0.9 / 2.8, 90.0, 100 * 0.9 / 1.0, 50], {"caught": 0.9, "alarms": 0.1}),
    "01-2": (97.3, [0.973, 70, 100 * (1 - 0.3**4), 91], {}),
    "01-3": (100 * 720 / 1280, [100 * 400 / 1280, 100, 28], {"token_counts": torch.tensor(LENGTHS)}),
}


# 02
def _three_logits(ids, values, n_head):
    """Stands for gpt2: logits of three tokens, other ones for another number of heads."""
    return np.array([[0.0, 0.5, n_head / 5] for _ in ids])


CASES_02 = {
    "02-1": (5253, [10404, 5151, 102], {}),
    "02-2": (1.334, [3.33, 1.4303], {"gpt2": _three_logits, "pretrained": {}, "ids": [2, 1, 0]}),
    "02-3": (10, [2, 11, 12], {}),
}


# 03
C_ATTN = torch.arange(12.0).view(2, 6)
CASES_03 = {
    "03-1": (309_280, [307_200, 308_640, 309_281, 10_060_960, "12 C²"], {"settings": {"n_embd": 160}}),
    "03-2": (
        C_ATTN,
        [torch.cat([C_ATTN[:, i : i + 2].T for i in (0, 2, 4)], dim=1), C_ATTN.T, 0.5],
        {"w": C_ATTN},
    ),
    "03-3": (False, [True, "no"], {}),
}


# 04
FIVE = {  # the empty message scores 0.2
    "scores": np.array([0.1, 0.3, 0.3, 0.3, 0.1]),
    "is_spam": np.array([False, True, False, True, False]),
    "yes_and_no": lambda texts: [(0.1, 0.4) for _ in texts],
}

CASES_04 = {
    "04-1": ([9950, 149], [[10_000, 150], [10_050, 150], [9950, 150], [5000, 149], [149, 9950], 149], {}),
    "04-2": (4.0, [2.0, 1.41, 0.25, "more"], {}),
    "04-3": (80.0, [60.0, 50.0, 20.0, "a coin"], FIVE),
}


# 05
HEAD = torch.nn.Linear(3, 2)
CLASSIFIER = torch.nn.ModuleDict({"body": torch.nn.Linear(5, 3), "head": HEAD})
CLASSIFIER.out_head = HEAD
OUTPUTS = torch.tensor([[[0.5, -0.5], [1.0, 3.0]]])
CASES_05 = {
    "05-1": (2307, [2304, 1538, 3], {}),
    "05-2": ((4, 2), [(3, 2), (1, 4, 2), (2, 4)], {}),
    "05-3": ([-1.0, 2.0], [[1.0, -2.0], [-1.0, 1.9], [-1.0]], {"outputs": OUTPUTS}),
    "05-4": ({"!", '"'}, [{"Do", " time"}, {"!"}], {}),
}


# 06
STACK = torch.nn.ModuleDict({"final_norm": torch.nn.Linear(1, 3), "out_head": torch.nn.Linear(3, 2)})
STACK["trf_blocks"] = torch.nn.ModuleList([torch.nn.Linear(3, 3) for _ in range(3)])  # 12 numbers each
for part in ("final_norm", "out_head", "trf_blocks"):
    setattr(STACK, part, STACK[part])
CASES_06 = {
    "06-1": (38, [26, 50, 24], {"model": STACK}),
    "06-2": (8, [0, 10, 6], {"model": STACK}),
    "06-3": ("layer norms", ["last block", "equal"], {}),
}


# 07
LABELS = torch.tensor([0, 0, 0, 1])
SCORES = {"logits": torch.tensor([[0.0, 2.0]] * 4), "labels": LABELS}  # losses 2.1269 and 0.1269
CASES_07 = {
    "07-1": (0.75, [0.25, 75, 0.7], {"labels": LABELS}),
    "07-2": (1.1269, [1.6269, 2.2539, 0.1269], SCORES),
    "07-3": (0.1941, [0.5, 0.2, 0.8059], {"share": 0.1941}),
    "07-4": (475, [2500, 95, 48], {}),
}


# 08
WHOLE = torch.tensor([-0.3, 0.3])
LOOKS = {"steps": [0, 15, 30, 45], "losses": [1.2, 0.4, 0.3, 0.5], "accuracies": [0.5, 0.9, 0.8, 0.7]}
CASES_08 = {
    "08-1": (1.0, [100, 10, 0], {}),
    "08-2": ([-0.3, 0.3], [[-0.6, 0.6], [-0.15, 0.15], 0.3], {"whole": WHOLE}),
    "08-3": (30, [2, 15, 45], LOOKS),
}


# 09
CASES_09 = {
    "09-1": (0.9524, [1 / 21, 10 / 11, 95], {}),
    "09-2": (0.4, [0.8 / 7, 0.667, 40], {}),
    "09-3": (1.33, [8 / 7, 0.0133, 13.3], {}),
}


# 10
FIRST = [True] * 6 + [False] * 2 + [True] * 4
SECOND = [True] * 5 + [False] + [True] * 2 + [True] * 4  # the first alone is right once, the second twice
_WIDTH = type("Embedding", (), {"embedding_dim": 160})
_MODEL = type("Model", (), {"tok_emb": _WIDTH, "trf_blocks": [None] * 6})
CASES_10 = {
    "10-1": (1.0, [0.5, 0.0, 3], {"first": FIRST, "second": SECOND}),
    "10-2": (3, [4, 20, 0], {"p": 0.0146}),
    "10-3": (31_042, [30_720, 15_682, 309_922], {"model": _MODEL}),
}


# 11
WAYS = {"last position only": (90, 10), "both": (0, 10)}  # frozen, trained
CASES_11 = {
    "11-1": (2.5, [4.0, 1.0, 0.4], {"ways": WAYS}),
    "11-2": (0.04, [4.0, 0.06, 40_000], {"N": 100, "T": 100, "C": 100}),
    "11-3": (1, [0, 2], {}),
}


# 12
PROBABILITIES = np.array(
    [[0.9, 0.1, 0.0], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2], [0.05, 0.05, 0.9], [0.4, 0.3, 0.3]]
)
SURE = {"probabilities": PROBABILITIES, "labels": np.array([0, 1, 1, 0, 1])}  # two of three right
CASES_12 = {
    "12-1": (0.639, [np.log(3), 0.922, 0.8], {}),
    "12-2": (4, [3, 1, 5, 20], {"found": np.array([1, 1, 2, 3, 4])}),
    "12-3": (0.667, [0.6, 0.4, 66.7], SURE),
}


CASES = (
    CASES_01 | CASES_02 | CASES_03 | CASES_04 | CASES_05 | CASES_06
    | CASES_07 | CASES_08 | CASES_09 | CASES_10 | CASES_11 | CASES_12
)  # fmt: skip


def called_in(path):
    """The exercises that a notebook checks."""
    cells = nbformat.read(path, as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    return set(re.findall(r'\bcheck\("([^"]+)"', code))


# ---------------------------------------------------------------------------------
# Every exercise
# ---------------------------------------------------------------------------------


def test_tables_and_notebooks_have_the_same_exercises():
    in_notebooks = set().union(*map(called_in, NOTEBOOKS))
    assert in_notebooks == set(EXERCISES) == set(CASES)
    for path in NOTEBOOKS:
        assert {number[:2] for number in called_in(path)} <= {path.name[:2]}


@pytest.mark.parametrize("number", CASES)
def test_right_answer_is_right(number):
    right, _, context = CASES[number]
    assert judge(number, right, context) == (True, "right.")


@pytest.mark.parametrize(
    "number, answer", [(number, wrong) for number, (_, wrongs, _) in CASES.items() for wrong in wrongs]
)
def test_wrong_answer_is_wrong_and_told_a_hint_without_the_solution(number, answer):
    right, _, context = CASES[number]
    passed, verdict = judge(number, answer, context)
    assert not passed and len(verdict) > 20
    if isinstance(right, str) or (isinstance(right, (int, float)) and abs(right) > 12):
        assert str(right) not in verdict


@pytest.mark.parametrize("number", EXERCISES)
def test_exercise_has_a_hint_and_a_wrong_answer_in_this_test(number):
    assert len(EXERCISES[number].hint) > 15
    assert CASES[number][1]


# ---------------------------------------------------------------------------------
# The check itself
# ---------------------------------------------------------------------------------

TABLE = {
    "90-1": Exercise(
        right=160, hint="Think of the width.", mistakes=((1600, "That is ten times the width."),)
    ),
    "90-2": Exercise(right=lambda losses: sum(losses) / len(losses), tolerance=0.005, hint="Mean."),
    "90-3": Exercise(right="last row", hint="Think of the mask."),
    "90-4": Exercise(right=[1, 0, 1], hint="One entry for each message."),
    "90-5": Exercise(accepts=lambda answer, limit: len(answer) < limit, hint="Shorter."),
    "90-6": Exercise(right=True, hint="Try it."),
    "90-7": Exercise(right={"wte", "wpe"}, hint="Two tables."),
}
LOSSES = {"losses": [0.5, 0.7]}


@pytest.fixture(autouse=True)
def table(monkeypatch, request):
    if request.function.__name__.startswith("test_check"):
        monkeypatch.setattr(exercise_checks, "EXERCISES", TABLE)


@pytest.mark.parametrize(
    "number, answer, context",
    [
        ("90-1", 160, {}),
        ("90-1", 160.0, {}),
        ("90-1", torch.tensor(160), {}),
        ("90-2", 0.6, LOSSES),
        ("90-2", 0.604, LOSSES),
        ("90-3", " Last  Row", {}),
        ("90-4", (1, 0, 1), {}),
        ("90-4", torch.tensor([1, 0, 1]), {}),
        ("90-5", "abc", {"limit": 4}),
        ("90-6", True, {}),
        ("90-7", {"wpe", "wte"}, {}),
    ],
)
def test_check_says_right(number, answer, context, capsys):
    check(number, answer, **context)
    assert capsys.readouterr().out == f"{number}: right.\n"


@pytest.mark.parametrize(
    "number, answer, context, said",
    [
        ("90-1", 161, {}, "very near: within 2 %, a little too large. Count again. Think of the width."),
        ("90-1", 150, {}, "near: within 10 %, too small. Think of the width."),
        ("90-1", 320, {}, "the right order of magnitude, and too large. Think of the width."),
        ("90-1", -4, {}, "far away, too small. Think of the width."),
        ("90-1", 1600, {}, "not yet. That is ten times the width."),
        ("90-1", float("nan"), {}, "not yet: the answer is nan. Think of the width."),
        ("90-1", "160", {}, "a number is asked for, and this is a text. Think of the width."),
        ("90-1", True, {}, "a number is asked for, and this is True or False. Think of the width."),
        ("90-2", 0.61, LOSSES, "very near: within 2 %, a little too large. Did you round on the way? Mean."),
        ("90-2", 0.6, {}, 'this check needs more of the lesson: check("…", answer, losses=losses)'),
        ("90-3", "first row", {}, "not yet. Think of the mask."),
        ("90-4", [1, 1, 1], {}, "not yet: 2 of 3 entries are right. One entry for each message."),
        ("90-4", [1], {}, "not yet: 1 is not the right number of entries. One entry for each message."),
        ("90-5", "abcd", {"limit": 4}, "not yet. Shorter."),
        ("90-5", 7, {"limit": 4}, "an answer of this kind does not fit: a number. Shorter."),
        ("90-6", False, {}, "not yet. Try it."),
        ("90-7", {"wte"}, {}, "not yet. Two tables."),
        ("90-1", ..., {}, "no answer yet. Put yours in place of the dots and run the cell again."),
        ("90-1", None, {}, "no answer yet. Put yours in place of the dots and run the cell again."),
        ("90-1", "", {}, "no answer yet. Put yours in place of the dots and run the cell again."),
        ("90-9", 1, {}, "there is no such exercise. This lesson has " + ", ".join(TABLE) + "."),
        ("5-9", 1, {}, "there is no such exercise. Its form is lesson-exercise, such as 05-2."),
    ],
)  # fmt: skip
def test_check_says_what_is_wrong(number, answer, context, said, capsys):
    check(number, answer, **context)
    assert capsys.readouterr().out == f"{number}: {said}\n"


def test_check_fails_in_the_tests_of_the_notebooks(monkeypatch, capsys):
    monkeypatch.setenv("CHECKS_MUST_HOLD", "1")
    check("90-1", ...)
    check("90-1", 160)
    with pytest.raises(AssertionError, match="90-1: near"):
        check("90-1", 150)
