"""What is kept of the experiments, in ``results/``: entries of rows, and answers to messages.

``rows.json`` and ``curve.json``: {model: {data: {row: entry}}}. ``predictions/<size>-<data>.npz``:
the log-odds of spam of each message, in the order of the set, named by :func:`key_of`, and the
labels. A row with an "@" is a point of a learning curve; these have files of their own.
"""

import hashlib
import json
import platform
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
from filelock import FileLock

from devices import describe_machine
from edition import ROOT, find_model
from files import atomic_file, sha256_of, write_json

RESULTS_DIR = ROOT / "results"


@dataclass
class Place:
    """Which model and data, where to compute, and where the results are kept."""

    name: str
    data: str
    device: str = "cpu"
    folder: Path = RESULTS_DIR
    memories: dict = field(default_factory=dict)  # outputs of frozen blocks, for rows that share them

    def file_of(self, row):
        return Path(self.folder) / ("curve.json" if "@" in row else "rows.json")

    def memory_for(self, settings, seed):
        """What frozen blocks gave before: shared by rows in which they are the same, one after the other."""
        parts = [settings[key] for key in ("values", "layers", "padding", "causal_mask")]
        key = (self.name, self.data, *parts, seed if settings["values"] == "random" else None)
        if key not in self.memories:
            self.memories.clear()
            self.memories[key] = {}
        return self.memories[key]

    def predictions_of(self, row):
        end = "-curve" if "@" in row else ""
        return Path(self.folder) / "predictions" / f"{find_model(self.name).size}-{self.data}{end}.npz"


def work_on(row, where, timeout=-1):
    """One process at a time works on a row, or on the subsets of one size; raises ``Timeout``."""
    file = f"{find_model(where.name).size}-{where.data}-{row.partition('#')[0]}"
    return lock_of(Path(where.folder) / "running" / file).acquire(timeout=timeout)


def lock_of(path):
    """One process at a time changes a file of results; the same one may take the lock again."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return FileLock(Path(path).with_name(f".{Path(path).name}.lock"), is_singleton=True)


WAY_ON = "Restore it, or delete it and run all rows anew."


def load_json(path):
    """What a file of results holds; an empty dict where there is none. ``ValueError`` if it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8")) if Path(path).exists() else {}
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}). {WAY_ON}") from error


def load_results(path=RESULTS_DIR / "rows.json"):
    """Return the stored results: {model: {data: {row: entry}}}; empty where there are none yet.

    Raises ``ValueError`` if the file is damaged or holds something else.
    """
    results = load_json(path)
    try:
        tables = [rows for rows_of in results.values() for rows in rows_of.values()]
        is_ours = all({"settings", "per_seed"} <= row.keys() for rows in tables for row in rows.values())
    except AttributeError:  # a list or a number where a dict belongs
        is_ours = False
    if not is_ours:
        raise ValueError(f"{path} holds no results of experiments.py. {WAY_ON}")
    return results


@contextmanager
def changed(path, load=load_results):
    """Give what a file of results holds, to be changed; it is stored if the block ends without an error."""
    with lock_of(path):
        results = load(path)
        yield results
        write_json(path, results)


def save_entry(entry, name, data, row, path):
    """Put one entry among the stored results; the other entries stay as they are."""
    with changed(path) as results:
        results.setdefault(name, {}).setdefault(data, {})[row] = entry


def load_predictions(path):
    """The stored answers: {"row/rate/seed/set" or "labels/set": array (N,)}; ``ValueError`` if damaged."""
    if not Path(path).exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({error}). {WAY_ON}") from error


def save_predictions(arrays, path, forget=None):
    """Put log-odds, as float16, and labels among the stored answers; ``forget`` a row's earlier ones."""
    small = {k: np.asarray(v, np.uint8 if k.startswith("labels/") else np.float16) for k, v in arrays.items()}
    with lock_of(path):
        stored = load_predictions(path)
        kept = {key: z for key, z in stored.items() if forget is None or not key.startswith(f"{forget}/")}
        with atomic_file(path) as partial, open(partial, "wb") as file:
            np.savez_compressed(file, **dict(sorted((kept | small).items())))


def key_of(row, run, set_name):
    """Name of an array of answers: ``row/rate/seed/set``; a minus stands where there is none."""
    rate, seed = run.get("learning_rate"), run["seed"]
    return f"{row}/{'-' if rate is None else f'{rate:g}'}/{'-' if seed is None else seed}/{set_name}"


class Record:
    """What is stored of one row: its entry, and the answers of its runs.

    What was made with other settings or other messages is forgotten. ``others`` are the sets
    that the row answers beside validation and test, {name: (texts, labels)}.

    The answers of a run are saved before the entry that names the run: where this is
    interrupted, the run is made again.
    """

    def __init__(self, row, settings, where, data_file, others, again=False):
        self.row, self.settings, self.where, self.others = row, settings, where, others
        self.path, self.predictions_path = where.file_of(row), where.predictions_of(row)
        current = {"settings": settings, "messages_sha256": sha256_of(data_file)}
        if others:
            current["other_sets_sha256"] = hashlib.sha256(json.dumps(others).encode()).hexdigest()
        self.entry = load_results(self.path).get(where.name, {}).get(where.data, {}).get(row, {})
        self.is_new = again or any(self.entry.get(key) != value for key, value in current.items())
        if self.is_new:
            self.entry = {**current, "per_seed": []}

    @cached_property
    def answered(self):
        """Names of the answers that are stored."""
        return set() if self.is_new else set(load_predictions(self.predictions_path))

    def has(self, seed):
        """Whether the run with this seed, and its answers to all sets, are stored."""
        sets = ["validation", "test", *self.others]
        runs = [run for run in self.entry["per_seed"] if run["seed"] == seed]
        return any(all(key_of(self.row, run, name) in self.answered for name in sets) for run in runs)

    def keep(self, run, answers, among="per_seed"):
        """Save a run and its answers, {set name: (log-odds, labels)}."""
        arrays = {}
        for set_name in answers.keys() - {"training"}:
            z, labels = answers[set_name]
            arrays |= {key_of(self.row, run, set_name): z, f"labels/{set_name}": labels}
        save_predictions(arrays, self.predictions_path, forget=self.row if self.is_new else None)
        self.answered.update(arrays)
        self.is_new = False
        same = ("seed", "learning_rate")
        runs = [old for old in self.entry.get(among, []) if any(old.get(k) != run.get(k) for k in same)]
        self.entry[among] = [*runs, run]
        self.save()

    def save(self):
        packages = {package: version(package) for package in ("torch", "scikit-learn")}
        self.entry["versions"] = {"python": platform.python_version(), **packages}
        self.entry["machine"] = describe_machine(self.where.device)
        save_entry(self.entry, self.where.name, self.where.data, self.row, self.path)
