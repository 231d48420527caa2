"""Which edition of the book runs: the model, the messages and the tokenizer, said once.

The embedded edition (``make CHECKPOINT=mini``) needs no network. A notebook opened by hand
uses what the variables ``CHOOSE_MODEL`` and ``CHOOSE_DATA`` say, else OpenAI's 124M
checkpoint and the UCI data, as published.

Importing this module makes ``tiktoken.get_encoding("gpt2")`` work without a network. Therefore
every module of the book imports it, except ``files``, which knows nothing of the book.
"""

import atexit
import contextlib
import functools
import hashlib
import os
import shutil
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from files import atomic_file, sha256_of

# PyTorch's threads wait for each other by turning in a loop. Where other programs want the same cores,
# long turning takes many times the time; short turning costs nothing. GNU OpenMP (Linux) reads this when
# PyTorch is first imported: a module that runs by itself imports this one before.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

ROOT = Path(__file__).resolve().parent
ASSETS = ROOT / "assets"
PLOT_STYLE = ROOT / "book" / "plots.mplstyle"
MODELS_DIR = Path("gpt2")  # one folder of checkpoint files for each size
PAD_TOKEN_ID = 50256  # <|endoftext|> fills short messages at their end
WEIGHT_DECAY = 0.1  # of AdamW, as published
SET_NAMES = ("training", "validation", "test")
DATA_CHOICES = ("uci", "sample")  # the SMS Spam Collection, and the messages written for this book
UCI_FOLDER = Path("sms_spam_collection")


@dataclass(frozen=True)
class PretrainedModel:
    """One row of ``MODELS``."""

    name: str  # as in MODEL_CONFIGS
    size: str  # as download_and_load_gpt2 takes it
    hugging_face_name: str = ""  # empty: not there
    learning_rate: float = 5e-5  # of fine-tuning; published for OpenAI's checkpoints
    data_file_bytes: int = 0  # of the largest file to download
    sha256: dict = field(default_factory=dict)  # {file: hash}, where published


SHA256_124M = {
    "checkpoint": "dd1b025d2e155283f5e300ce95bf6d5b6bc0f7fe010db73daa6975eb896ab9cb",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "hparams.json": "d9d56e4121c427164e0c55c6f03c08e1daf9002b9b672825112d19097b680318",
    "model.ckpt.data-00000-of-00001": "2060c885360cc0cf41d7a6dbc4d24b5127aae20260c8b5ae521b5a6578407118",
    "model.ckpt.index": "71916f763f9746f9b2a06b12d91996cf1084ae008d0424543d39391c5f2dc687",
    "model.ckpt.meta": "4668c448fa11531fd6700460487f73e82d3272960cea942252f8744bf225c77b",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "model.safetensors": "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
}

EMBEDDED = PretrainedModel("gpt2-mini (10M)", "10M", learning_rate=1e-3)  # notebook 08 shows why this rate
MODELS = (
    EMBEDDED,
    PretrainedModel("gpt2-small (124M)", "124M", "gpt2", data_file_bytes=497_759_232, sha256=SHA256_124M),
    PretrainedModel("gpt2-medium (355M)", "355M", "gpt2-medium", data_file_bytes=1_419_292_672),
    PretrainedModel("gpt2-large (774M)", "774M", "gpt2-large", data_file_bytes=3_096_120_320),
    PretrainedModel("gpt2-xl (1558M)", "1558M", "gpt2-xl", data_file_bytes=6_230_444_800),
)


def find_model(name_or_size):
    """The row of ``MODELS`` with this name or size; ``ValueError`` if there is none."""
    for model in MODELS:
        if name_or_size in (model.name, model.size):
            return model
    raise ValueError(
        f"Unknown model {name_or_size!r}. Choose one of: {', '.join(model.name for model in MODELS)}."
    )


def chosen_model():
    """Name of the model: the environment variable ``CHOOSE_MODEL``, else GPT-2 124M; checked."""
    return find_model(os.environ.get("CHOOSE_MODEL", "gpt2-small (124M)")).name


def chosen_data(choice=None):
    """Name of a data set: ``choice``, else the environment variable ``CHOOSE_DATA``, else uci; checked."""
    choice = choice or os.environ.get("CHOOSE_DATA", "uci")
    if choice not in DATA_CHOICES:
        raise ValueError(f"Unknown data set {choice!r}. Choose one of: {', '.join(DATA_CHOICES)}.")
    return choice


def is_embedded_edition():
    """Whether the outputs stored in the notebooks are those of the chosen model and messages."""
    return (chosen_model(), chosen_data()) == (EMBEDDED.name, "sample")


def prepare():
    """What the first cell of every notebook calls: say which edition runs, before anything is fetched."""
    # torch.compile warns of Python 3.13.0, and of no other version. It works there too.
    warnings.filterwarnings("ignore", "Guards may run slower", RuntimeWarning)
    os.environ["MATPLOTLIBRC"] = str(PLOT_STYLE)  # read when a notebook imports matplotlib
    if "matplotlib" in sys.modules:  # as on Colab
        from matplotlib import style

        style.use(PLOT_STYLE)
    print(f"Model: {chosen_model()}. Messages: {chosen_data()}.")
    if is_embedded_edition():
        return
    print(f"Stored outputs: made with {EMBEDDED.name} and the sample. Yours will differ.")
    print("To download: " + (" and ".join(missing_downloads()) or "nothing, all is here already") + ".")
    print(
        "To run the edition of the stored outputs, without a download, run this line, then this cell again:"
    )
    print(f'os.environ |= {{"CHOOSE_MODEL": "{EMBEDDED.name}", "CHOOSE_DATA": "sample"}}')


def is_at_hand(model):
    """Whether the weights of a row of ``MODELS`` are on this machine, so that a load downloads none."""
    folder = MODELS_DIR / model.size
    weights = [*folder.glob("model.ckpt.data-*-00001"), *folder.glob("*.safetensors")]
    return model is EMBEDDED or bool(weights)


def missing_downloads():
    """What the chosen edition needs and this machine has not yet, with its size, as a list of str."""
    model, missing = find_model(chosen_model()), []
    if not is_at_hand(model):
        missing.append(f"{model.name}, {model.data_file_bytes / 1e6:,.0f} MB")
    if chosen_data() == "uci" and not any(UCI_FOLDER.glob("SMS*")):
        missing.append("the SMS Spam Collection, 0.2 MB")
    return missing


TOKENIZER_FILES = ("vocab.bpe", "encoder.json")
TOKENIZER_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main"


def provide_tokenizer_files():
    """Put the tokenizer's two files where tiktoken looks for them, unless they are there.

    tiktoken looks in the folder ``TIKTOKEN_CACHE_DIR`` for files named by the SHA-1 of their address, and
    downloads those that are missing or damaged. The right ones belong to the embedded checkpoint.
    """
    failures = []
    for folder in tokenizer_folders():
        try:
            put_tokenizer_files(folder)
            os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
            return
        except OSError as error:
            failures.append(f"  {error}")
    raise OSError(
        "GPT-2's tokenizer needs its two files in a folder. Set TIKTOKEN_CACHE_DIR to one that you may "
        "write. Tried:\n" + "\n".join(failures)
    )


def tokenizer_folders():
    """The folder that is set, the book's own, and, where the book is read-only, one until Python ends."""
    if os.environ.get("TIKTOKEN_CACHE_DIR"):
        yield Path(os.environ["TIKTOKEN_CACHE_DIR"]).absolute()
    yield ROOT / ".cache" / "tiktoken"
    with contextlib.suppress(OSError):
        folder = tempfile.mkdtemp(prefix="tiktoken-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        yield Path(folder)


def put_tokenizer_files(folder):
    """Complete a folder for tiktoken; a file of it is replaced whole, also while others read it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        target = folder / hashlib.sha1(f"{TOKENIZER_URL}/{name}".encode()).hexdigest()
        if not target.is_file() or sha256_of(target) != SHA256_124M[name]:
            with atomic_file(target) as partial:
                shutil.copyfile(ASSETS / EMBEDDED.size / name, partial)


@functools.cache
def get_tokenizer():
    """GPT-2's tokenizer, a ``tiktoken.Encoding``; loaded once, then the files are not looked at again."""
    import tiktoken

    provide_tokenizer_files()  # again: they may have been removed since this module was imported
    return tiktoken.get_encoding("gpt2")


provide_tokenizer_files()
