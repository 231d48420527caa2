"""benchmarks/attention.py measures the book's own attention, and the page shows what it wrote."""

import json
import sys
from pathlib import Path

import pytest
import torch

from previous_chapters import GPTModel, model_config

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "book" / "extensions")]

import attention  # noqa: E402
import result_tables as tables  # noqa: E402
from measurements import outputs_agree  # noqa: E402


def test_its_steps_are_the_attention_of_the_model():
    torch.manual_seed(0)
    layer = GPTModel(model_config("gpt2-mini (10M)")).trf_blocks[0].att
    x = torch.randn(2, 7, layer.d_out)
    projections = layer.W_query, layer.W_key, layer.W_value
    context = attention.step_by_step(*(layer.split_heads(project(x)) for project in projections))
    by_steps = layer.out_proj(context.transpose(1, 2).reshape(x.shape))
    torch.testing.assert_close(by_steps, layer(x))


def test_all_time_of_a_job_belongs_to_a_part():
    linear, x = torch.nn.Linear(512, 512), torch.randn(512, 512)
    parts = attention.parts_of(lambda: linear(x), repeats=3)
    assert parts["linear layers"] > 0 == parts["attention"]
    layer = GPTModel(model_config("gpt2-mini (10M)")).trf_blocks[0].att
    x, scores = torch.randn(8, 64, layer.d_out), torch.randn(512, 512)  # far more than the rounding of a time
    parts = attention.parts_of(lambda: (layer(x), scores.sort()), repeats=3)
    assert min(parts.values()) > 0


def test_quick_run_has_every_number_of_the_page(run_script, tmp_path):
    path = tmp_path / "results" / "attention.json"
    assert run_script(ROOT / "benchmarks" / "attention.py", "--quick", "--output", path) == 0
    quick, stored = (json.loads(file.read_text()) for file in (path, ROOT / "results" / "attention.json"))
    assert [row["dtype"] for row in quick["rows"]] == [row["dtype"] for row in stored["rows"]]
    for row in stored["rows"]:
        assert all(map(outputs_agree, row["attention"]))
        assert sum(row["parts"].values()) == pytest.approx(row["batch"], rel=0.1)
    lines = tables.attention(ROOT)
    assert len(lines) == len(tables.attention(tmp_path)) == 2 + 2 + 8 + 2
    assert f"{1000 * stored['rows'][1]['batch']:.0f}" in next(line for line in lines if "| a batch" in line)
