"""What every notebook does first; its first cell finds this module and calls ``prepare``."""

import warnings

from edition import chosen_data, chosen_model
from gpt_download import use_bundled_tokenizer_files


def prepare():
    """Make tiktoken work without a network and say which edition of the book runs."""
    use_bundled_tokenizer_files()
    # torch.compile warns of Python 3.13.0, and of no other version. It works there too.
    warnings.filterwarnings("ignore", "Guards may run slower", RuntimeWarning)
    print(f"Model: {chosen_model()}. Messages: {chosen_data()}.")
