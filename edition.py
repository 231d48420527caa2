"""Which edition of the book runs: the chosen model and messages.

The embedded edition (``make CHECKPOINT=mini``) needs no network; a notebook opened by
hand uses what the variables say, else OpenAI's 124M checkpoint and the UCI data.
"""

import os


def chosen_model():
    """Name of the model: the environment variable ``CHOOSE_MODEL``, else GPT-2 124M."""
    return os.environ.get("CHOOSE_MODEL", "gpt2-small (124M)")


def chosen_data():
    """Name of the data set: the environment variable ``CHOOSE_DATA``, else ``"uci"``."""
    return os.environ.get("CHOOSE_DATA", "uci")
