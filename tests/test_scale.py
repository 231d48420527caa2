"""What the page on sizes calculates agrees with the models, and its file with the script."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

from previous_chapters import MODEL_CONFIGS, GPTModel, model_config

ROOT = Path(__file__).resolve().parents[1]


def load(path):
    """A Python file outside of the root as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scale = load(ROOT / "benchmarks" / "scale.py")
tables = load(ROOT / "book" / "extensions" / "result_tables.py")
each_model = pytest.mark.parametrize("name", MODEL_CONFIGS)


@pytest.fixture(scope="module")
def results():
    return json.loads((ROOT / "results" / "scale.json").read_text(encoding="utf-8"))


@each_model
def test_numbers_of_parameters_are_those_of_the_model(name):
    with torch.device("meta"):  # shapes only
        model = GPTModel(model_config(name))
    tied = sum(p.numel() for p in model.parameters()) - model.out_head.weight.numel()
    model.out_head = torch.nn.Linear(model.tok_emb.embedding_dim, 2)
    last = [model.trf_blocks[-1], model.final_norm, model.out_head]
    trained = sum(p.numel() for part in last for p in part.parameters())
    classifier = sum(p.numel() for p in model.parameters())
    assert scale.parameter_counts(model_config(name)) == (tied, classifier, trained)


@pytest.mark.parametrize("job", ["last block", "everything"])
def test_activations_are_those_that_a_step_keeps(job):
    model = scale.random_classifier("gpt2-mini (10M)", job)
    kept = scale.saved_bytes(model, torch.randint(0, 50257, (scale.B, scale.T)))
    assert kept == pytest.approx(scale.activation_bytes(model_config("gpt2-mini (10M)"), job), rel=0.01)


@each_model
def test_stored_results_hold_what_the_script_calculates(results, name):
    for job in scale.JOBS:
        assert results["models"][name]["jobs"][job]["calculated"] == scale.calculated(name, job)


def test_a_time_that_was_not_measured_is_marked_and_follows_the_operations():
    def entry(operations, measured):
        return {"jobs": {"inference": {"calculated": {"operations": operations}, "measured": measured}}}

    models = {
        "small": entry(10, {"seconds_per_step": 2.0}),
        "middle": entry(30, {"seconds_per_step": 3.0}),
        "large": entry(50, {"seconds_per_step": None}),  # on a busy machine: memory only
        "huge": entry(100, None),
    }
    assert tables.step_seconds(models, "inference") == {
        "small": (2.0, "measured"),
        "middle": (3.0, "measured"),
        "large": (5.0, "calculated"),
        "huge": (10.0, "calculated"),
    }


def test_tables_have_a_row_for_each_model(results):
    for name in ("sizes", "memory", "time"):
        lines = tables.SCALE[name](results["models"], results)
        assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == [
            "10M",
            "124M",
            "355M",
            "774M",
            "1558M",
        ]
        assert len({line.count("|") for line in lines}) == 1


def test_checks_say_when_the_full_edition_was_last_run(tmp_path, monkeypatch):
    for folder in ("book", "results"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "book" / "checks.json", tmp_path / "book")
    assert "when these pages were built" in tables.checks(tmp_path)[-1]
    monkeypatch.setenv("CHOOSE_DATA", "sample")
    assert tables.checks(tmp_path)[-1].endswith("| not yet: no such run is stored |")
    run = {"date": "2026-01-02", "torch": "2.9", "device": "cuda"}
    (tmp_path / "results" / "full_run.json").write_text(json.dumps(run))
    assert tables.checks(tmp_path)[-1].endswith("| last on 2026-01-02, PyTorch 2.9, cuda |")
