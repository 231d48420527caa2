"""Answers to the exercises: ``check("05-2", answer)`` says right, or wrong with a hint.

    from exercise_checks import check

    answer = ...
    check("05-2", answer)

An exercise is an entry of the table ``EXERCISES``, which maps its number to an ``Exercise``. What is
right depends on the edition where the model or the messages decide it; then the right answer is a
function of what the lesson has computed, which the cell passes on by name:

    check("08-1", answer, losses=losses)

No message shows the solution. Numbers are said to be near or far, texts are compared without regard
to case and spaces. The table keeps no result of a run: those come from the run.
"""

import inspect
import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import edition  # noqa: F401 - tiktoken needs no network

# ---------------------------------------------------------------------------------
# What an exercise is
# ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exercise:
    """One entry of the table.

    Attributes:
        right: the right answer (number, text, True or False, list or tensor of numbers, set), or a
            function that returns it, whose parameters are named as ``check`` is given them.
        hint (str): what to think of, shown with a wrong answer.
        tolerance (float): for numbers, the largest allowed difference. A reader who rounds must be right.
        mistakes (tuple): pairs (wrong answer, hint) of mistakes that many make; a function, as for
            ``right``, where the run decides it.
        accepts: for an answer that has no single right value: a function of the answer, and of what
            ``check`` is given, that returns True or False. Then ``right`` is left out.
    """

    right: object = None
    hint: str = ""
    tolerance: float = 0.0
    mistakes: tuple = ()
    accepts: Callable | None = None


# ---------------------------------------------------------------------------------
# What right answers and mistakes are computed with
# ---------------------------------------------------------------------------------


def _loss(logits, labels):
    """Cross-entropy: the mean of -log p of the label, over the rows of logits."""
    total = 0.0
    for row, label in zip(logits.tolist(), labels):
        largest = max(row)
        total += largest + math.log(sum(math.exp(x - largest) for x in row)) - row[int(label)]
    return total / len(labels)


def _size(*parts):
    """How many numbers the parameters of modules hold."""
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


def _positions_left(token_counts):
    """Padding each batch of 8 to its own longest message leaves this percentage of the positions."""
    lengths = token_counts.tolist()
    batches = [lengths[i : i + 8] for i in range(0, len(lengths), 8)]
    return 100 * sum(len(batch) * max(batch) for batch in batches) / (len(lengths) * max(lengths))


def _not_transposed(w):
    """``c_attn`` put together of three matrices as ``nn.Linear`` holds them, as lists."""
    width = len(w)
    thirds = [w[:, i * width : (i + 1) * width].T.tolist() for i in range(3)]
    return [query + key + value for query, key, value in zip(*thirds)]


def _empty_score(yes_and_no):
    """The score of an empty message in the second wording of the question."""
    prompt = "Is the following text 'spam'? Answer with 'yes' or 'no': '' Answer:"
    ((yes, no),) = yes_and_no([prompt])
    return yes / (yes + no)


def _coin_test(first, second):
    """McNemar's exact test of two models: which messages each got right, (N,) -> p-value, two-sided."""
    from evidence import mcnemar  # with SciPy, which the other exercises do without

    return mcnemar(np.array(first, bool), np.array(second, bool))[2]


def _lora_numbers(model, rank, head=1):
    """Trained numbers with LoRA in four square matrices of each block, and the new head."""
    width, blocks = model.tok_emb.embedding_dim, len(model.trf_blocks)
    return blocks * 4 * 2 * rank * width + head * (2 * width + 2)


def _gain_of_cache(ways, epochs, fill=1):
    """Operations with the last position only, over those with a cache that is filled once."""
    (frozen, at_last), (_, on_cache) = ways["last position only"], ways["both"]
    return epochs * (frozen + 3 * at_last) / (fill * frozen + epochs * 3 * on_cache)


def _texts_for_three_quarters(found):
    """So many texts give at least three quarters of what all of them give."""
    return next(k for k, count in enumerate(found, start=1) if 4 * count >= 3 * found[-1])


def _accuracy_where_sure(probabilities, labels):
    """Accuracy among the texts whose largest probability is at least 0.8."""
    sure = probabilities.max(axis=1) >= 0.8
    return (probabilities.argmax(axis=1) == labels)[sure].mean()


# ---------------------------------------------------------------------------------
# The exercises
# ---------------------------------------------------------------------------------

EXERCISES = {
    # 01 · The messages
    "01-1": Exercise(
        right=lambda caught, alarms: 100 * caught / (caught + 19 * alarms),
        tolerance=0.6,
        hint="In 2,000 messages, how many spam messages are caught, and how many ham messages are flagged?",
        mistakes=(
            (lambda caught, alarms: 100 * caught / (caught + alarms), "That is the balanced inbox."),
            (lambda caught: 100 * caught, "That is the recall, a share of the spam."),
        ),
    ),
    "01-2": Exercise(
        right=97.3,
        tolerance=0.3,
        hint="It has none only if all its other copies are outside the training set.",
        mistakes=((100 * (1 - 0.3**4), "The copy in the test set is no copy in the training set."),),
    ),
    "01-3": Exercise(
        right=_positions_left,
        tolerance=0.3,
        hint="A batch takes its number of messages times its longest; compare with all rows at full length.",
        mistakes=(
            (
                lambda token_counts: 100 * sum(token_counts) / (len(token_counts) * max(token_counts)),
                "That is the share of the tokens themselves; inside a batch some padding stays.",
            ),
        ),
    ),
    # 02 · The model on one page
    "02-1": Exercise(
        right=5253,
        hint="The first row keeps one weight, the second two. Or count the weights that are not 0.",
        mistakes=(
            (102 * 101 // 2, "A token may look at itself as well."),
            (102 * 102, "That is all of them; the mask hides what lies ahead."),
        ),
    ),
    "02-2": Exercise(
        right=lambda gpt2, pretrained, ids: _loss(gpt2(ids, pretrained, n_head=4)[:-1], ids[1:]),
        tolerance=0.01,
        hint="The function loss of this lesson takes the logits of ids.",
        mistakes=(
            (
                lambda gpt2, pretrained, ids: _loss(gpt2(ids, pretrained, n_head=5)[:-1], ids[1:]),
                "That is the loss with the right number of heads.",
            ),
        ),
    ),
    "02-3": Exercise(
        right=10,
        hint="Take the two tables and the last norm off the 60 million; the blocks share the rest.",
        mistakes=((2, "That is the count of PyTorch, with the head as a copy."),),
    ),
    # 03 · Loading pretrained weights
    "03-1": Exercise(
        right=lambda settings: 12 * settings["n_embd"] ** 2 + 13 * settings["n_embd"],
        hint="Four linear layers with their biases, and two layer norms with two vectors each.",
        mistakes=(
            (
                lambda settings: 12 * settings["n_embd"] ** 2,
                "These are the matrices. What else does a linear layer hold, and what a layer norm?",
            ),
            (
                lambda settings: 12 * settings["n_embd"] ** 2 + 9 * settings["n_embd"],
                "Matrices and biases are there; what does a layer norm hold?",
            ),
        ),
    ),
    "03-2": Exercise(
        accepts=lambda answer, w: answer == w.tolist(),
        hint="The shape is (C, 3C). Begin with one of the three: which move brought it to the model?",
        mistakes=(
            (
                _not_transposed,
                "The parts stand in the right places, but each still lies as PyTorch holds it.",
            ),
        ),
    ),
    "03-3": Exercise(
        right=False,
        hint="What does out_proj do with the results of the attention heads? Does it ask for their order?",
    ),
    # 04 · What a pretrained model knows
    "04-1": Exercise(
        right=[9950, 149],
        hint="The first step reads the prompt. What does the second read, without and with a cache?",
        mistakes=(
            ([10000, 150], "The last token is appended; who reads it?"),
            ([10050, 150], "The last token is appended; who reads it?"),
            ([9950, 150], "The last token is appended; who reads it?"),
            ([5000, 149], "The text grows while it is continued: later steps read more."),
            ([149, 9950], "The other way round: first without a cache, then with it."),
        ),
    ),
    "04-2": Exercise(
        right=4.0,
        tolerance=0.01,
        hint="The logits of A and B differ by ln 2. What is that difference after the division?",
        mistakes=((2.0, "That is the ratio at temperature 1."),),
    ),
    "04-3": Exercise(
        right=lambda scores, is_spam, yes_and_no: (
            100 * float(((scores > _empty_score(yes_and_no)) == is_spam).mean())
        ),
        tolerance=0.5,
        hint="Put an empty text into the prompt, and take its score in place of 0.5.",
        mistakes=(
            (
                lambda scores, is_spam: 100 * float(((scores > 0.5) == is_spam).mean()),
                "That is the accuracy with 0.5 as the limit, as in the table above.",
            ),
        ),
    ),
    # 05 · A two-class head
    "05-1": Exercise(
        right=3 * 768 + 3,
        hint="Only what was made after the freezing can change. Print the shapes of its parameters.",
        mistakes=(
            (3 * 768, "These are the weights. What else has the layer?"),
            (2 * 768 + 2, "That is the head of this lesson, with two outputs."),
        ),
    ),
    "05-2": Exercise(
        right=(4, 2),
        hint="Which of the three axes does a single index cut away?",
        mistakes=(((3, 2), "That is [:, -1, :]. [-1] indexes another axis."),),
    ),
    "05-3": Exercise(
        right=lambda outputs: outputs[0, :, 1] - outputs[0, :, 0],
        tolerance=1e-3,
        hint="A difference of two linear functions is linear: subtract the weights and the biases.",
        mistakes=(
            (
                lambda outputs: outputs[0, :, 0] - outputs[0, :, 1],
                "The other way round: class 1 minus class 0.",
            ),
        ),
    ),
    "05-4": Exercise(
        right={"!", '"'},
        hint="Argmax returns a position among the scores. Which token IDs can that be?",
    ),
    # 06 · Which numbers may change
    "06-1": Exercise(
        right=lambda model: _size(*model.trf_blocks[-2:], model.final_norm, model.out_head),
        hint="One block, another of the same size, the final norm with scale and shift, and the head.",
        mistakes=(
            (
                lambda model: _size(model.trf_blocks[-1], model.final_norm, model.out_head),
                "That is one block. How much does the second one add?",
            ),
        ),
    ),
    "06-2": Exercise(
        right=lambda model: len(list(model.parameters())) - len(list(model.out_head.parameters())),
        hint="What does an optimizer read to decide whether to move a tensor: the flag, or .grad?",
        mistakes=((0, "Look at .grad of a frozen tensor after the backward pass. Is it None?"),),
    ),
    "06-3": Exercise(
        right="layer norms",
        hint="How far up does the gradient have to go in each case?",
    ),
    # 07 · Accuracy and loss
    "07-1": Exercise(
        right=lambda labels: (labels == 0).float().mean(),
        tolerance=0.001,
        hint="It is right on each ham message and on no other. Give a share, between 0 and 1.",
        mistakes=(
            (
                lambda labels: (labels == 1).float().mean(),
                "That is the answer “spam”. Ask for the other word.",
            ),
        ),
    ),
    "07-2": Exercise(
        right=lambda logits, labels: (_loss(logits[:-1], labels[:-1]) + _loss(logits[-1:], labels[-1:])) / 2,
        tolerance=0.001,
        hint="The mean of two means: what does the single message of the second batch weigh?",
        mistakes=((_loss, "That is the mean over messages, not over batches."),),
    ),
    "07-3": Exercise(
        right=lambda share: share,
        tolerance=0.001,
        hint="Compute the loss for many values of q. What do you know about the place of the smallest?",
        mistakes=((0.5, "That is the coin. It pays log 2; a lower price can be had."),),
    ),
    "07-4": Exercise(
        right=475,
        tolerance=1,
        hint="Solve sqrt(p (1 - p) / n) = 0.01 for n.",
        mistakes=((2500, "That is the number at p = 0.5."),),
    ),
    # 08 · Fine-tuning
    "08-1": Exercise(
        right=1,
        tolerance=0.05,
        hint="In the first step AdamW divides the gradient by its own size.",
        mistakes=(
            (100, "That is plain gradient descent. What does AdamW divide by?"),
            (10, "The root is of g squared, not of g."),
        ),
    ),
    "08-2": Exercise(
        right=lambda whole: whole,
        tolerance=0.002,
        hint="The loss of eight messages is a mean. What are the two means of four to it?",
        mistakes=(
            (lambda whole: 2 * whole, "That is the sum of two means, twice the mean of all."),
            (lambda whole: whole / 2, "Divide once, not twice."),
            (lambda whole: whole[1], "Give both numbers, for both classes."),
        ),
    ),
    "08-3": Exercise(
        right=lambda steps, losses: steps[losses.index(min(losses))],
        hint="Find the place of the lowest loss, then the step of that place.",
        mistakes=(
            (lambda losses: losses.index(min(losses)), "That is the place in the list. Which step is it?"),
            (
                lambda steps, accuracies: steps[accuracies.index(max(accuracies))],
                "That is the step of the best accuracy. Look at the loss.",
            ),
            (lambda steps: steps[-1], "That is the end, where one stops without early stopping."),
        ),
    ),
    # 09 · Using the classifier
    "09-1": Exercise(
        right=20 / 21,
        tolerance=0.003,
        hint="Hiding costs 20 (1 - p) on average. What does letting through cost? Where are they equal?",
        mistakes=(
            (1 / 21, "That is how probable ham may be."),
            (10 / 11, "That is the price of 10."),
        ),
    ),
    "09-2": Exercise(
        right=0.4,
        tolerance=0.005,
        hint="Work with the odds, p / (1 - p): what were those of the classes, and what are they now?",
        mistakes=(
            (0.8 / 7, "Probabilities do not scale like that; odds do."),
            (0.8 / 0.2 / 6, "These are the odds. Make a probability of them."),
        ),
    ),
    "09-3": Exercise(
        right=4 / 3,
        tolerance=0.02,
        hint="In 700 messages: what does the caught spam save, and how many lost messages cost as much?",
        mistakes=(
            (8 / 7, "That is the share of all messages. Ask for the share of the ham."),
            (0.8 / 60, "That is a share; give it in percent."),
        ),
    ),
    # 10 · Which choices matter
    "10-1": Exercise(
        right=_coin_test,
        tolerance=0.005,
        hint="Count the messages that only one of the two gets right. How uneven would a fair coin be?",
        mistakes=(
            (
                lambda first, second: _coin_test(first, second) / 2,
                "That is one side: a surprise in the other direction would count as well.",
            ),
        ),
    ),
    "10-2": Exercise(
        right=lambda p: math.ceil(0.05 / p) - 1,
        hint="Holm multiplies the smallest p-value by the number of questions.",
        mistakes=((lambda p: math.ceil(0.05 / p), "With so many it is just too late."),),
    ),
    "10-3": Exercise(
        right=lambda model: _lora_numbers(model, rank=4),
        hint="Each place has an A and a B. What else trains?",
        mistakes=(
            (lambda model: _lora_numbers(model, rank=4, head=0), "The new head trains too."),
            (lambda model: _lora_numbers(model, rank=2), "Count A and B of each place: two thin matrices."),
        ),
    ),
    # 11 · The same result, sooner
    "11-1": Exercise(
        right=lambda ways: _gain_of_cache(ways, 5),
        tolerance=0.02,
        hint="A step costs frozen + 3 · trained. How often do the frozen blocks run, with a cache?",
        mistakes=(
            (lambda ways: _gain_of_cache(ways, 5, fill=0), "Someone has to fill the cache, once."),
            (lambda ways: _gain_of_cache(ways, 1), "That is after one epoch."),
        ),
    ),
    "11-2": Exercise(
        right=lambda N, C: N * C * 4 / 1e6,
        tolerance=0.01,
        hint="After the last block, how many rows of a message are still needed?",
        mistakes=((lambda N, T, C: N * T * C * 4 / 1e6, "That is the cache before the last block."),),
    ),
    "11-3": Exercise(
        right=1,
        hint="What does the last block make of the rows that it gets? Which of them does it need?",
    ),
    # 12 · Your own messages
    "12-1": Exercise(
        right=-sum(share * math.log(share) for share in (0.8, 0.1, 0.1)),
        tolerance=0.005,
        hint="Which three probabilities? A text of the large class costs -log of the first, and so on.",
        mistakes=((math.log(3), "That is the price of one third each. More is known of these texts."),),
    ),
    "12-2": Exercise(
        right=_texts_for_three_quarters,
        hint="found[k - 1] is what k texts give. Where does it first reach three quarters of its last value?",
        mistakes=(
            (
                lambda found: _texts_for_three_quarters(found) - 1,
                "That is the position in the array, which begins with 0.",
            ),
        ),
    ),
    "12-3": Exercise(
        right=_accuracy_where_sure,
        tolerance=0.006,
        hint="Keep the rows whose largest probability is at least 0.8, then count the right ones among them.",
        mistakes=(
            (
                lambda probabilities: (probabilities.max(axis=1) >= 0.8).mean(),
                "That is the share that it answers. How many of these are right?",
            ),
        ),
    ),
}


# ---------------------------------------------------------------------------------
# The check
# ---------------------------------------------------------------------------------


def check(number, answer=..., **context):
    """Print whether an answer is right; if not, how near it is, and a hint.

    Args:
        number (str): of the exercise, such as ``"05-2"``.
        answer: yours. ``...`` or None: none yet.
        **context: what the lesson has computed and the check needs, by name.

    Raises:
        AssertionError: for a wrong answer, where the variable ``CHECKS_MUST_HOLD`` is 1, as in the
            tests of the notebooks.
    """
    right, verdict = judge(number, answer, context)
    print(f"{number}: {verdict}")
    if not right and not _is_missing(answer) and os.environ.get("CHECKS_MUST_HOLD") == "1":
        raise AssertionError(f"{number}: {verdict}")


def judge(number, answer, context):
    """``(whether the answer is right, what is said about it)``."""
    if number not in EXERCISES:
        return False, _unknown(number)
    exercise = EXERCISES[number]
    if _is_missing(answer):
        return False, "no answer yet. Put yours in place of the dots and run the cell again."
    answer = _plain(answer)
    try:
        if exercise.accepts:
            right, verdict = bool(_call(exercise.accepts, context, answer)), "not yet."
        else:
            right, verdict = _compare(answer, _value(exercise.right, context), exercise.tolerance)
        if right:
            return True, "right."
        for mistake, hint in exercise.mistakes:
            if _compare(answer, _value(mistake, context), exercise.tolerance)[0]:
                return False, f"not yet. {hint}"
    except _Missing as error:
        return False, str(error)
    except (TypeError, ValueError, AttributeError, IndexError, KeyError):
        return False, f"an answer of this kind does not fit: {_kind(answer)}. {exercise.hint}"
    return False, f"{verdict} {exercise.hint}".strip()


class _Missing(Exception):
    """The check needs something that the cell did not pass on."""


def _unknown(number):
    there = [name for name in EXERCISES if str(number)[:2] == name[:2]]
    known = f"This lesson has {', '.join(there)}." if there else "Its form is lesson-exercise, such as 05-2."
    return f"there is no such exercise. {known}"


def _is_missing(answer):
    return answer is None or answer is Ellipsis or (isinstance(answer, str) and not answer.strip())


def _plain(answer):
    """Tensors and arrays as numbers and lists."""
    return answer.tolist() if hasattr(answer, "tolist") else answer


def _call(function, context, *arguments):
    """Call a function of the table with what it asks for by name."""
    names = list(inspect.signature(function).parameters)[len(arguments) :]
    if missing := [name for name in names if name not in context]:
        passed = ", ".join(f"{name}={name}" for name in missing)
        raise _Missing(f'this check needs more of the lesson: check("…", answer, {passed})')
    return function(*arguments, **{name: context[name] for name in names})


def _value(entry, context):
    return _plain(_call(entry, context) if callable(entry) else entry)


# ---------------------------------------------------------------------------------
# Comparisons
# ---------------------------------------------------------------------------------


def _kind(value):
    """What a value is, in words."""
    if isinstance(value, (bool, str)):
        return "True or False" if isinstance(value, bool) else "a text"
    if isinstance(value, (int, float)):
        return "a number"
    return {list: "a list", tuple: "a list", set: "a set", dict: "a dictionary"}.get(
        type(value), f"a {type(value).__name__}"
    )


def _compare(answer, right, tolerance):
    """``(whether they agree, what is said if not)``."""
    if _kind(answer) != _kind(right):
        return False, f"{_kind(right)} is asked for, and this is {_kind(answer)}."
    if isinstance(right, str):
        return " ".join(answer.lower().split()) == " ".join(right.lower().split()), "not yet."
    if isinstance(right, (int, float)) and not isinstance(right, bool):
        return _compare_numbers(answer, right, tolerance)
    if isinstance(right, (list, tuple)):
        if len(answer) != len(right):
            return False, f"not yet: {len(answer)} is not the right number of entries."
        wrong = [i for i, pair in enumerate(zip(answer, right)) if not _compare(*pair, tolerance)[0]]
        return not wrong, f"not yet: {len(right) - len(wrong)} of {len(right)} entries are right."
    return answer == right, "not yet."


def _compare_numbers(answer, right, tolerance):
    if not math.isfinite(answer):
        return False, f"not yet: the answer is {answer}."
    difference = abs(answer - right)
    if difference <= tolerance + 1e-9 * max(1.0, abs(right)):
        return True, ""
    size = abs(right) or 1.0
    side = "large" if answer > right else "small"
    if difference <= 0.02 * size:
        advice = "Did you round on the way?" if isinstance(right, float) else "Count again."
        return False, f"very near: within 2 %, a little too {side}. {advice}"
    if difference <= 0.1 * size:
        return False, f"near: within 10 %, too {side}."
    if right and 0.1 <= answer / right <= 10:
        return False, f"the right order of magnitude, and too {side}."
    return False, f"far away, too {side}."
