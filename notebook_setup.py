"""What every notebook does first; its first cell finds this module and calls ``prepare``."""

from edition import chosen_data, chosen_model
from gpt_download import use_bundled_tokenizer_files


def prepare():
    """Make tiktoken work without a network and say which edition of the book runs."""
    use_bundled_tokenizer_files()
    print(f"Model: {chosen_model()}. Messages: {chosen_data()}.")
