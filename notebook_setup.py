"""What every notebook does first; its first cell finds this module and calls ``prepare``."""

import os

from gpt_download import use_bundled_tokenizer_files


def prepare():
    """Make tiktoken work without a network and say which edition of the book runs."""
    use_bundled_tokenizer_files()
    model = os.environ.get("CHOOSE_MODEL", "gpt2-small (124M)")
    data = os.environ.get("CHOOSE_DATA", "uci")
    print(f"Model: {model}. Messages: {data}.")
