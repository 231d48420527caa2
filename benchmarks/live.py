"""How fast the live figures are: load, classify, generate, in Chromium on this machine.

    python benchmarks/live.py

The pages are a small book of the live figures, read from disk and over http. Every number is the
median of several measurements, taken in the page, from the question to the worker to its answer.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from book.live.photograph import make_small_book  # noqa: E402
from tools.browser import open_browser, serve  # noqa: E402

LOADS, REPEATS = 5, 15
ASK = "Live.engine.ask('classify', text)"
LOAD = f"""async text => {{
    const start = performance.now();
    await Live.engine.ask("tokens", text);  // needs the model to be there, and does not run it
    const loaded = performance.now() - start;
    await {ASK};
    return [loaded, performance.now() - start];
}}"""
CLASSIFY = f"""async ([text, repeats]) => {{
    const times = [];
    for (let i = 0; i < repeats; i++) {{
        await Live.engine.ask("look", {{ text: "x", finetuned: false, padded: false }});  // empties the cache
        const start = performance.now();
        await {ASK};
        times.push(performance.now() - start);
    }}
    return times;
}}"""
GENERATE = """async tokens => {
    const ask = appended => Live.engine.ask("next", { text: "Every effort moves you", appended, greedy: true,
        temperature: 1, topK: 0, random: 0.5, show: 10 });
    const appended = [(await ask([])).drawn], start = performance.now();
    while (appended.length < tokens) appended.push((await ask(appended)).drawn);
    return 1000 * (tokens - 1) / (performance.now() - start);
}"""


def load_times(browser, base):
    """Milliseconds until the model is there, and to a first answer: with nothing kept yet, and with all."""
    first, again = [], []
    for _ in range(LOADS):
        context = browser.new_context()
        for times in (first, again):
            page = context.new_page()
            page.goto(f"{base}/classifier.html")
            times.append(page.evaluate(LOAD, "hello"))
            page.wait_for_timeout(500)  # until the browser has kept the weights
            page.close()
        context.close()
    return [[statistics.median(times) for times in zip(*runs)] for runs in (first, again)]


def main():
    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        html = make_small_book(folder, ["classifier"])
        with serve(html) as address:
            measure(browser, html, address)


def measure(browser, html, address):
    """Load from disk and over http, then classify, look at attention and generate; print each."""
    for name, base in [("disk", html.as_uri()), ("http", address)]:
        first, again = load_times(browser, base)
        print(f"load from {name}: {first[0]:.0f} ms, to the first answer {first[1]:.0f} ms", end="; ")
        print(f"once kept: {again[0]:.0f} and {again[1]:.0f} ms")
    page = browser.new_page()
    page.goto(f"{address}/classifier.html")
    settings = json.loads((html / "_static/live/build.js").read_text("utf-8")[len("Live.build(") : -3])
    most = settings["settings"]["max_length"]
    for tokens in (20, most):  # all messages are padded to the same length, so these cost the same
        times = page.evaluate(CLASSIFY, [" hello" * tokens, REPEATS])
        print(f"classify {tokens} tokens, before and after: {statistics.median(times):.0f} ms")
    times = page.evaluate(f"{CLASSIFY.replace(ASK, look_at(20))}", ["", REPEATS])
    print(f"20 tokens without padding, all layers, heads and rows: {statistics.median(times):.0f} ms")
    print(f"generate: {page.evaluate(GENERATE, 60):.0f} tokens a second")


def look_at(tokens):
    return f'Live.engine.ask("look", {{ text: " hello".repeat({tokens}), finetuned: true, padded: false }})'


if __name__ == "__main__":
    main()
