"""benchmarks/ways.py compares each way with the same model without it, and notebook 11 finds each row."""

import copy
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import speed  # noqa: E402
import ways  # noqa: E402

RESULTS = {path.stem: json.loads(path.read_text("utf-8")) for path in (ROOT / "results").glob("ways*.json")}
ROWS = {f"{name}: {row['way']}, {row['job']}": row for name in RESULTS for row in RESULTS[name]["ways"]}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_stored_row_agrees_with_itself(row):
    if "not_measured" in row:
        pytest.skip(row["not_measured"])
    seconds = row["seconds"]
    assert row["ratio"] == pytest.approx(seconds["without"] / seconds["with"], rel=1e-2)
    assert {entry["limit"] for entry in row["differences"]} == {ways.LIMITS[row["result"]]}
    assert row["result"] == "other weights" or speed.outputs_agree(row)


def test_autocast_keeps_no_weights_from_one_step_to_the_next():
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 2)
    network, x = ways.InBfloat16(linear), torch.randn(4, 8)
    before = network(x).detach()
    with torch.no_grad():
        linear.weight += 1
    assert (network(x) - before).abs().max() > 0.5
    assert linear.weight.dtype == network(x).dtype == torch.float32


def test_missing_compiler_is_a_reason(monkeypatch):
    def fail(_, backend):
        raise RuntimeError("No working C++ compiler found\nand more")

    monkeypatch.setattr(torch, "compile", fail)
    assert ways.compiler_problem("inductor") == "No working C++ compiler found"


@pytest.fixture
def measured():
    """A ``Ways`` with a bench whose turns take as long as they are told."""
    seconds = {"without": [3.0, 9.0, 3.0], "with": [1.0, 1.0, 5.0]}

    def take_turns(jobs, repeats):
        return copy.deepcopy(seconds), {side: job() for side, job in jobs.items()}

    setting = {"batch_size": 2, "num_tokens": 4, "large_batch": 16}
    return ways.Ways(SimpleNamespace(setting=setting, take_turns=take_turns), repeats=3)


def test_row_has_medians_for_one_message_and_the_largest_difference(measured):
    batches = [torch.zeros(2, 4), torch.ones(2, 4)]
    measured.answering("a way", lambda ids: ids, lambda ids: 1.5 * ids, batches)
    (row,) = measured.rows
    assert (row["ratio"], row["seconds"]) == (3.0, {"without": 0.75, "with": 0.25})
    assert row["differences"] == [{"what": "logits", "value": 0.5, "limit": 1e-4}]
    assert not speed.outputs_agree(row)


def test_batches_by_length_hold_the_same_messages(measured):
    measured.T = 120
    for padded, cut in zip(*measured.messages()):
        assert padded.shape == (2, 120)
        assert torch.equal(padded[:, : cut.shape[1]], cut)
        assert (padded[:, cut.shape[1] :] == ways.PAD_TOKEN_ID).all()
        assert (cut[:, -1] != ways.PAD_TOKEN_ID).any()


@pytest.mark.slow
def test_quick_run_writes_every_row(run_script, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # the run sets it
    assert run_script(ROOT / "benchmarks" / "ways.py", "--quick", "--output", tmp_path / "ways.json") == 0
    rows = json.loads((tmp_path / "ways.json").read_text(encoding="utf-8"))["ways"]
    stored = [(row["way"], row["job"]) for row in RESULTS["ways"]["ways"]]
    assert [(row["way"], row["job"]) for row in rows] == stored
