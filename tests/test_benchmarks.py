"""benchmarks/speed.py compares sides at one task, and the page shows what it wrote."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "book" / "extensions")]

import page_speed  # noqa: E402
import peers  # noqa: E402
import result_tables  # noqa: E402
import speed  # noqa: E402
import training_film  # noqa: E402
from plain_gpt import PlainGPT  # noqa: E402

import trials  # noqa: E402
from classification import END_OF_TEXT  # noqa: E402
from fast_paths import can_pack  # noqa: E402
from own_training import build_own_classifier  # noqa: E402
from previous_chapters import GPTModel  # noqa: E402
from spam_data import SAMPLE_FILE, create_spam_loaders  # noqa: E402

CONFIG = {
    "vocab_size": 100,
    "context_length": 16,
    "emb_dim": 24,
    "n_heads": 3,
    "n_layers": 2,
    "drop_rate": 0.0,
    "qkv_bias": True,
}


def test_plain_formulation_computes_what_the_book_computes():
    torch.manual_seed(1)
    plain, book = PlainGPT(CONFIG).eval(), GPTModel(CONFIG).eval()
    book.load_state_dict(plain.state_dict())
    ids = torch.randint(100, (3, 9))
    with torch.no_grad():
        torch.testing.assert_close(plain(ids), book(ids), atol=1e-5, rtol=1e-5)


def measurement(ratio=1.5, difference=1e-6):
    """A row of results as ``speed.result_of`` makes it."""
    seconds = {"plain": [ratio, 9.0, ratio], "book": [1.0, 1.0, 5.0]}
    differences = [{"what": "logits", "value": difference, "limit": 1e-4}]
    return speed.result_of("Evaluation", "logits of a batch", seconds, {"plain": 1.3}, differences)


def test_times_are_medians():
    assert measurement()["seconds"] == {"plain": 1.5, "book": 1.0}
    assert measurement()["ratios"] == {"plain": 1.5}


@pytest.mark.parametrize("ratio, verdict", [(1.3, "reached"), (1.299, "MISSED")])
def test_missed_ratio_is_printed(ratio, verdict, capsys):
    speed.print_measurement(measurement(ratio))
    assert f"times as fast, target 1.3: {verdict}" in capsys.readouterr().out


@pytest.mark.parametrize("difference, agree", [(1e-4, True), (2e-4, False), (float("nan"), False)])
def test_different_outputs_are_noticed(difference, agree, capsys):
    row = measurement(difference=difference)
    assert speed.outputs_agree(row) == agree
    speed.print_measurement(row)
    assert ("DIFFERENT" in capsys.readouterr().out) != agree


@pytest.mark.parametrize("peak, verdict", [(1.2, "reached"), (1.21, "MISSED")])
def test_missed_limit_of_memory_is_printed(peak, verdict, capsys):
    row = {**measurement(), "peak_memory_gb": {"book": peak}, "peak_memory_limit_gb": {"book": 1.2}}
    speed.print_measurement(row)
    assert f"{peak:.2f} GB, at most 1.2 GB: {verdict}" in capsys.readouterr().out


def test_system_that_tells_no_peak_of_memory_costs_no_measurement(capsys):
    row = {**measurement(), "peak_memory_gb": {"book": None}, "peak_memory_limit_gb": {"book": 1.2}}
    speed.print_measurement(row)
    assert "logits: 1.0e-06" in capsys.readouterr().out


def test_measurements_are_written_before_they_are_printed(monkeypatch, tmp_path):
    def fail(measurement):
        raise OSError("the output is closed")

    bench = SimpleNamespace(generation=measurement, evaluation=measurement, fine_tuning=measurement)
    monkeypatch.setattr(speed, "Bench", lambda *args: bench)
    monkeypatch.setattr(speed, "print_measurement", fail)
    options = ["--dtype", "bfloat16", "--output", str(tmp_path / "result.json")]
    monkeypatch.setattr(sys, "argv", ["speed.py", *options])
    with pytest.raises(OSError, match="closed"):
        speed.main()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["measurements"] == [measurement()] * 3


def test_clock_waits_for_what_a_device_still_computes(monkeypatch):
    waited_for = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited_for.append)
    for name in ("cpu", "cuda:1", "mps"):
        assert trials.clock(name) > 0
    speed.Bench.take_turns(SimpleNamespace(device=torch.device("mps")), {"book": lambda: None}, repeats=1)
    assert [str(device) for device in waited_for] == ["cuda:1", "mps", "mps", "mps"]


def test_device_of_the_results_is_the_one_that_computed():
    devices = [speed.machine(torch.device(name), "float32")["device"] for name in ("cpu", "mps")]
    assert devices == ["CPU", "MPS"]


@pytest.mark.parametrize("processor, packs", [("AMD EPYC", True), ("Intel(R) Xeon(R) Processor", False)])
def test_layers_are_packed_to_generate_where_that_was_sooner(monkeypatch, processor, packs):
    model = SimpleNamespace(out_head=torch.nn.Linear(8, 2))
    monkeypatch.setattr(speed, "cpu_name", lambda: processor)
    assert speed.packs_to_generate(model) == (packs and can_pack(model.out_head))
    assert not speed.packs_to_generate(SimpleNamespace(out_head=torch.nn.Linear(8, 2).double()))


def test_habit_is_measured_on_a_few_messages(monkeypatch, tokenizer):
    monkeypatch.setattr(training_film, "EPOCHS", 1)
    loaders = create_spam_loaders(tokenizer, SAMPLE_FILE)
    for loader in loaders:
        loader.dataset.encoded_texts = loader.dataset.encoded_texts[:24]
        loader.dataset.data = loader.dataset.data[:24]
    found = training_film.measure("clipping", 123, loaders, {})["clipping"]
    assert found["seed"] == 123 and found["test"] * 24 == pytest.approx(round(found["test"] * 24), abs=0.01)
    assert found["called"][0] <= found["called"][1] <= 24 and 0 <= found["clipped"] <= 1


def test_film_that_is_not_written_whole_leaves_the_former_one(monkeypatch, tmp_path):
    def write_half(path, text, *args, **options):
        path.write_bytes(text[: len(text) // 2].encode())
        raise OSError("the disk is full")

    (tmp_path / "training_habits.json").write_text("former")
    monkeypatch.setattr(training_film, "RESULTS", tmp_path)
    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(OSError, match="full"):
        training_film.write("training_habits", {"habits": {}})
    assert [path.read_text() for path in tmp_path.iterdir()] == ["former"]


@pytest.mark.parametrize("above, verdict", [(0.4, "reached"), (0.41, "MISSED")])
def test_slow_start_is_printed(above, verdict, capsys):
    row = {**measurement(), "seconds_above_import_torch": {"value": above, "limit": 0.4}}
    speed.print_measurement(row)
    assert f"above import torch: {above:.3f} s, at most 0.4 s: {verdict}" in capsys.readouterr().out


def peer_rows(without=()):
    """The measurements of ``peers.compare`` with sides that answer at once."""
    expected = torch.tensor([[1.0, 0.0], [0.0, 0.05], [0.0, 2.0]])
    keys = [("book", "float32"), ("book", "bfloat16"), ("transformers", "float32")]
    keys += [("ONNX Runtime", "float32"), ("ONNX Runtime", "int8")]
    keys += [("OpenVINO", precision) for precision in peers.PRECISIONS]
    logits = {key: expected.clone() for key in keys if key[0] not in without}
    if ("ONNX Runtime", "int8") in logits:
        logits["ONNX Runtime", "int8"][1, 0] = 0.1  # another label
    seconds = {key: [0.5 if key[0] == "OpenVINO" else 1.0] * 3 for key in logits}
    return [
        peers.one_precision(f"Messages, {precision}", "3 messages", precision, seconds, logits)
        for precision in peers.PRECISIONS
    ]


def test_each_precision_is_compared_with_the_book_in_it():
    rows = peer_rows()
    assert [row["ratios"] for row in rows] == [
        {"transformers": 1.0, "ONNX Runtime": 1.0, "OpenVINO": 0.5},
        {"OpenVINO": 0.5},
        {"ONNX Runtime": 1.0, "OpenVINO": 0.5},  # the book has no int8: its bfloat16
    ]
    assert rows[2]["same_labels"] == {"book": 3, "ONNX Runtime": 2, "OpenVINO": 3}
    assert all(speed.outputs_agree(row) for row in rows)


def test_side_that_is_not_installed_is_left_out_aloud(monkeypatch, capsys, embedded_load, tmp_path):
    monkeypatch.setattr(peers, "PACKAGES", {"ONNX Runtime": "no-such-package", "OpenVINO": "nor-this"})
    monkeypatch.setattr(peers, "compare", lambda bench, name, work, sides, *_: [sorted(sides)])
    bench = SimpleNamespace(setting=speed.QUICK, models_dir=embedded_load.models_dir)
    results, versions = peers.measure_peers(bench, tmp_path)
    assert versions == {"ONNX Runtime": None, "OpenVINO": None}
    assert {side for sides in results for side, _ in sides} == {"book", "transformers"}
    assert "Skipped: OpenVINO is not installed" in capsys.readouterr().out


def test_installed_sides_agree_with_the_book(tiny_pretrained, tmp_path):
    model = build_own_classifier("tiny", 2, "all").eval()
    settings = {"model": "tiny", "data": "my.csv", "max_length": 16, "threshold": 0.5, "reads": END_OF_TEXT}
    sides = peers.sides_of(model, settings | {"class_names": ["a", "b"]}, tmp_path, peers.versions())
    bench = SimpleNamespace(
        take_turns=lambda jobs, repeats: (
            {key: [1.0] * repeats for key in jobs},
            {key: job() for key, job in jobs.items()},
        )
    )
    texts = ["See you at eight", "", "win a prize " * 9] * 11  # more than are read at once
    rows = peers.compare(bench, "Messages", "33 messages", sides, texts, repeats=2)
    assert {"transformers", "ONNX Runtime"} <= rows[0]["seconds"].keys()
    assert all(speed.outputs_agree(row) and row["texts"] == 33 for row in rows)


@pytest.mark.slow
def test_quick_benchmark_compares_the_outputs_of_all_sides(run_script, tmp_path):
    command = ROOT / "benchmarks" / "speed.py", "--quick", "--no-peers"  # their sides have a test above
    assert run_script(*command, "--output", tmp_path / "result.json") == 0
    result = json.loads((tmp_path / "result.json").read_text())
    rows = {row["name"]: row for row in result["measurements"]}
    assert list(rows) == [
        *("Generation", "Evaluation", "Fine-tuning"),
        *("Start of classify", "Loading again", "First load"),
    ]
    for name in ("Generation", "Evaluation", "Fine-tuning"):
        assert list(rows[name]["seconds"]) == ["plain", "transformers", "book"]
        assert list(rows[name]["ratios"]) == ["plain", "transformers"]
    assert all(speed.outputs_agree(row) for row in rows.values())
    assert [name for name, row in rows.items() if not row["differences"]] == ["Start of classify"]


# ---------------------------------------------------------------------------------
# The page
# ---------------------------------------------------------------------------------

CONF = f"""
import sys
sys.path.insert(0, {str(ROOT / "book" / "extensions")!r})
extensions = ["myst_parser", "result_tables"]
"""


@pytest.fixture
def build(tmp_path):
    """A function that builds a page with the tables of some results; gives its text."""

    def run(results):
        (tmp_path / "conf.py").write_text(CONF)
        tables = "".join(f"```{{result-table}} {name}\n```\n" for name in ("speed", "peers"))
        (tmp_path / "index.md").write_text(f"# Speed\n\n{tables}")
        (tmp_path / "results").mkdir()
        for name, result in results.items():
            (tmp_path / "results" / name).write_text(json.dumps(result))
        (tmp_path / "results" / "scale.json").write_text("{}")  # another file: not read
        command = [sys.executable, "-m", "sphinx", "-W", "-b", "text", tmp_path, tmp_path / "out"]
        process = subprocess.run(command, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        return (tmp_path / "out" / "index.txt").read_text()

    return run


def result_on(device):
    machine = dict.fromkeys(("cpu", "threads", "system", "python", "torch", "transformers"), "some")
    row = {**measurement(1.2), "peak_memory_gb": {"book": 1.25}, "peak_memory_limit_gb": {"book": 1.2}}
    row["seconds_to_prepare"] = {"book": 0.25}
    row["seconds_above_import_torch"] = {"value": 0.45, "limit": 0.4}
    return {
        "machine": {**machine, "device": device, "dtype": "float32"},
        "setting": {"model": "gpt2-small (124M)"},
        "measurements": [row],
    }


def test_page_has_a_table_for_each_device(build):
    text = build({"benchmark.json": result_on("CPU"), "benchmark-cuda-float32.json": result_on("Some GPU")})
    assert text.index("CPU, float32") < text.index("Some GPU, float32")
    assert text.count("1.20\N{NO-BREAK SPACE}×") == 2
    assert text.count("Of the first table:") == 1


def test_page_shows_the_stored_numbers(build):
    text = " ".join(build({"benchmark.json": result_on("CPU")}).replace("|", " ").split())
    assert "Of the first table:" not in text
    for part in ("1.20 s, 1.20 ×", "1.00 s", "logits 1.0e-06", "median of 3 runs", "book 1.25 GB"):
        assert part in text
    assert "not in the time: book 0.250 s" in text
    assert "only imports torch takes all but 0.450 s of it." in text


def test_page_names_missed_targets(build):
    text = " ".join(build({"benchmark.json": result_on("CPU")}).split())
    assert "missed: Evaluation against plain 1.20 < 1.3; Evaluation, memory 1.25 GB > 1.2 GB" in text
    assert "Evaluation, above import torch 0.45 s > 0.4 s." in text
    reached = result_on("CPU")
    reached["measurements"] = [measurement(1.4)]
    assert result_tables.missed_targets(reached["measurements"]) == ""


def test_page_shows_the_sides_beside_in_each_precision(build, tmp_path):
    result = result_on("CPU") | {"peers": peer_rows(without=["ONNX Runtime"])}
    result["machine"]["peers"] = {"ONNX Runtime": None, "OpenVINO": "2026.4", "NNCF": "3.4"}
    page = " ".join(build({"benchmark.json": result}).split())
    assert "ONNX Runtime not installed, OpenVINO 2026.4, NNCF 3.4" in page
    lines = [line.replace(result_tables.SPACE, " ") for line in result_tables.peers(tmp_path)]
    assert "| Messages, float32 | 3.0 | 3.0 | – | **6.0** | 0.50 × |" in lines
    assert "| Messages, int8 | 3.0 | – | – | **6.0** | 0.50 × |" in lines
    assert "| OpenVINO int8 | 0; 0 |" in lines


def test_outputs_of_the_sides_beside_say_which_labels_change():
    found = result_tables.peer_outputs(peer_rows())
    assert found["ONNX Runtime int8"] == {"Messages, of 3": "1; 0.1"}
    assert found["book bfloat16"] == {"Messages, of 3": "0; 0"}


def test_page_names_the_worst_of_the_pages(tmp_path):
    figures = dict.fromkeys(result_tables.PAGE_FIGURES, 100) | {"layout_shift": 0}
    pages = {f"notebooks/0{i}_page.html": {**figures, "first_paint": i} for i in (1, 2, 4)}
    machine = dict.fromkeys(("lighthouse", "browser", "cpu", "cores", "date"), "some")
    (tmp_path / "results").mkdir()
    result = {"machine": machine, "runs": 1, "pages": pages}
    (tmp_path / "results" / "page_speed.json").write_text(json.dumps(result))
    text = "\n".join(result_tables.page_speed(tmp_path)).replace(result_tables.SPACE, " ")
    assert "| first paint | 2 s | 4 s | 04 page |" in text
    assert "| performance | 100 | 100 | all pages |" in text


def test_page_without_results_says_so(build):
    assert "No measurement is stored yet" in build({})


# ---------------------------------------------------------------------------------
# The pages: benchmarks/page_speed.py
# ---------------------------------------------------------------------------------


def report(performance=0.97, kilobytes=210.0, shift=0.0, description=1):
    """What Lighthouse writes about a page, as far as it is read."""
    values = {
        "total-byte-weight": kilobytes * 1000,
        "first-contentful-paint": 1210.4,
        "largest-contentful-paint": 1902.0,
        "total-blocking-time": 30.0,
        "cumulative-layout-shift": shift,
    }
    audits = {name: {"numericValue": value} for name, value in values.items()}
    audits["network-requests"] = {"details": {"items": [{}, {}, {}]}}
    audits["render-blocking-resources"] = {"details": {"items": [{"totalBytes": 31_200}]}}
    audits["meta-description"] = {"score": description}
    categories = {name: {"score": 1, "auditRefs": []} for name in page_speed.CATEGORIES}
    categories["performance"]["score"] = performance
    categories["seo"] = {"score": description, "auditRefs": [{"id": "meta-description", "weight": 1}]}
    return {"audits": audits, "categories": categories}


def test_figures_of_a_page_are_medians():
    runs = [page_speed.figures_of(report(performance)) for performance in (0.97, 0.31, 0.99)]
    page = page_speed.medians(runs)
    assert page["performance"] == 97 and page["seo"] == 100
    assert (page["first_paint"], page["largest_paint"], page["requests"]) == (1.21, 1.9, 3)
    assert (page["kilobytes"], page["blocking_kilobytes"]) == (210, 31.2)
    assert page_speed.missed(page) == []


def test_targets_that_a_page_misses_are_named():
    page = page_speed.figures_of(report(0.94, 400.5, 0.01, description=0))
    assert page_speed.missed(page) == [
        "performance 94 < 95",
        "seo 0 < 100",
        "400.5 kB > 400 kB",
        "layout shift 0.01",
        "meta-description",
    ]


def test_pages_come_compressed_and_images_as_they_are(tmp_path):
    (tmp_path / "page.html").write_text("text " * 1000)
    (tmp_path / "plot.webp").write_bytes(b"RIFF" * 10)
    with page_speed.serve_compressed(tmp_path) as address:
        page, plot = (
            requests.get(f"{address}/{name}", timeout=10) for name in ("page.html?v=1", "plot.webp")
        )
    assert page.text == "text " * 1000 and int(page.headers["Content-Length"]) < 200
    assert plot.content == b"RIFF" * 10 and "Content-Encoding" not in plot.headers


def test_without_node_nothing_is_measured_and_that_is_said(monkeypatch, capsys):
    monkeypatch.setattr(page_speed.shutil, "which", lambda name: None)
    page_speed.main([])
    assert capsys.readouterr().out == "Skipped: Node (npx) is not installed; nothing was measured.\n"
