"""Where the command line saves classifiers and finds them; room for them before a long training."""

import os
import tempfile
from pathlib import Path

from classification import load_classifier, save_classifier
from edition import ASSETS
from files import is_disk_full, require_replaceable, require_space
from streams import note

CLASSIFIERS = Path("classifiers")  # where finetune saves and classify looks
SHIPPED = ASSETS / "classifier.safetensors"  # used before there is one


def default_output(name, data_choice):
    """Where ``finetune`` saves, for example ``classifiers/gpt2-mini-10M-uci.safetensors``."""
    return CLASSIFIERS / f"{name.replace(' (', '-').rstrip(')')}-{data_choice}.safetensors"


def reserve(path, model=None, only_trained=False):
    """Raise ``OSError`` unless the file of a classifier can be made at ``path``: it is made, for a moment."""
    saved = [p for p in model.parameters() if p.requires_grad or not only_trained] if model else []
    num_bytes = sum(p.numel() for p in saved) * (2 if only_trained else 4)  # float16 or float32
    require_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    require_space(path.parent, num_bytes, path.name)
    with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", suffix=".room", dir=path.parent) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, max(num_bytes, 1))  # notices a quota
        except (OSError, AttributeError) as error:  # not every system has it
            if is_disk_full(error):
                raise OSError(f"There is no room for {num_bytes:,} bytes in {path} ({error})") from error


def round_as_saved(model):
    """Round what was trained as a file of it alone holds it, float16, so that just that is measured."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.half().float()


def save_somewhere(output, *classifier, **options):
    """Save a classifier. Where that fails, save it among the temporary files: training takes long."""
    try:
        save_classifier(output, *classifier, **options)
    except OSError as error:
        failed = f"{output} could not be written ({error})"
        try:
            rescued = Path(tempfile.mkdtemp(prefix="classifier-")) / "classifier.safetensors"
            save_classifier(rescued, *classifier, **options)
        except OSError as again:
            raise OSError(f"{failed}, nor a copy among the temporary files ({again})") from error
        raise OSError(f"{failed}. The classifier is in {rescued}") from error


def chosen_classifier(path=None):
    """Path, model and settings of a classifier; without a path, of the newest good one, else the book's."""
    if path:
        return path, *load_classifier(path)
    paths = CLASSIFIERS.glob("*.safetensors")
    for path in sorted(paths, key=lambda path: path.lstat().st_mtime, reverse=True):
        try:
            if path.name.startswith("."):
                raise ValueError(f"{path} is a hidden file.")
            return path, *load_classifier(path)
        except (OSError, ValueError) as error:
            note(f"Left out: {error}")
    return SHIPPED, *load_classifier(SHIPPED)
