"""The live figures: GPT-2 in JavaScript against PyTorch, in Chromium, and each figure as a reader uses it.

A small book with one page a figure is built once (``book/live/photograph.py``); nothing of the big one
is needed.
"""

import json
import random
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from built_book import HTML, need_browser

from book.live.photograph import make_small_book
from classification import encode_message
from experiments import EXPERIMENTS
from fast_paths import generate_text_cached, last_token_logits
from figures import DRAWINGS, LIVE, show_figure, show_live
from gpt_download import download_and_load_gpt2
from numpy_gpt2 import gpt2
from previous_chapters import text_to_token_ids
from spam_data import SAMPLE_FILE
from tools.browser import open_browser, serve

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "extensions"))
import live_figures  # noqa: E402

need_browser()
if version("sphinx-book-theme").startswith("1.1."):
    pytest.skip(
        "These tests are for the pages of Python 3.11 or later: 3.10 has an older theme.",
        allow_module_level=True,
    )

DESKTOP, PHONE = {"width": 1000, "height": 900}, {"width": 360, "height": 760}
INT8_BOUND = 0.1  # largest error of a logit with pretrained matrices in 8 bits; measured: 0.06
FLOAT_BOUND = 1e-4  # and with all of them in float32; measured: 7e-6
TYPING = ["classifier", "tokens", "generation", "attention", "threshold"]  # figures with a text field
ODD_TEXTS = [
    "",
    " ",
    "\u4f60\u597d\uff0c\u660e\u5929\u89c1",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f389\U0001f389",
    "<|endoftext|>",
    "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>",
    "\x00\x01\x07\x1b[31m\x7f\u202e\ufeff\x85",
    "winner " * 286,  # 2,002 characters
    "e\u0301\u0301\u0301 \ud800",  # combining marks, and half a character
]


# ---------------------------------------------------------------------------------
# What the tests share
# ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The folder of the small book's pages."""
    return make_small_book(tmp_path_factory.mktemp("live"))


@pytest.fixture(scope="module")
def web(html):
    """Address of a local server with them."""
    with serve(html) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def desktop(browser):
    """One window for most tests, so that the weights are fetched once."""
    page = browser.new_page(viewport=DESKTOP, color_scheme="light", reduced_motion="reduce")
    page.problems = []
    page.on(
        "console",
        lambda message: message.type in ("error", "warning") and page.problems.append(message.text),
    )
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    return page


@pytest.fixture
def page(desktop):
    """That window; a test fails if anything is said on its console, or an error is thrown."""
    desktop.problems.clear()
    yield desktop
    assert desktop.problems == []


@pytest.fixture(scope="module")
def models():
    return {
        "language": live_figures.language_model(),
        "before": live_figures.untrained_classifier(),
        "after": live_figures.finetuned_classifier(),
        "max_length": live_figures.read_classifier()[1]["max_length"],
    }


@pytest.fixture(scope="module")
def messages():
    """All messages of the sample."""
    return [line.split("\t", 1)[1] for line in SAMPLE_FILE.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def expected(models, messages, tokenizer):
    """Logits by PyTorch for 20 messages, before and after fine-tuning, (20, 2) each."""
    chosen = messages[:: len(messages) // 20][:20]
    rows = [encode_message(text, models["after"], tokenizer, models["max_length"]) for text in chosen]
    with torch.no_grad():
        logits = {key: last_token_logits(models[key], torch.tensor(rows)) for key in ("before", "after")}
    return chosen, logits


def logits_in_numpy(ids):
    """By the forward pass in NumPy, on the checkpoint's own arrays: (T, V)."""
    settings, params = download_and_load_gpt2(live_figures.CHECKPOINT_FOLDER, ROOT / "gpt2")
    return gpt2(ids, params, settings["n_head"])


def fuzzed_texts(count=300):
    """Texts of characters from everywhere: all planes, all kinds of space, and ASCII that looks like code."""
    generator = random.Random(0)
    pools = [
        [chr(code) for code in range(0x250)],
        list(
            " \n\t\x85\ufeff\u200b\u3000\u4e2d\u6587\U0001f600\u00e9\u0301\u00df\u03a9\uff11\u00bd's're'll'd"
        )
        + ["<|endoftext|>"],
        [chr(generator.choice([*range(0xD800), *range(0xE000, 0x30000)])) for _ in range(500)],
    ]
    return [
        "".join(generator.choices(generator.choice(pools), k=generator.randrange(40))) for _ in range(count)
    ]


def ask(page, question, args):
    """Ask the model in the page's worker."""
    return page.evaluate("([question, args]) => Live.engine.ask(question, args)", [question, args])


def spam_shown(page):
    return float(page.locator('output[data-name="spam"]').get_attribute("data-value"))


def wait_for_effects(page):
    page.wait_for_function(
        "document.querySelectorAll('.live-token').length && !document.querySelector('.live-pending')"
    )


# ---------------------------------------------------------------------------------
# The engine against PyTorch and tiktoken
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["server", "disk"])
def test_logits_are_those_of_pytorch(browser, html, web, expected, source):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{web if source == 'server' else html.as_uri()}/classifier.html")
    texts, logits = expected
    for i, text in enumerate(texts):
        answer = ask(page, "classify", text)
        for key in ("before", "after"):
            assert answer[key] == pytest.approx(logits[key][i].tolist(), abs=INT8_BOUND), text
    context.close()


NODE = """
const { readFileSync } = require("fs");
const { Tokenizer } = require("./tokenizer.js"), { GPT2 } = require("./gpt2.js");
const { nextProbabilities, draw } = require("./worker.js");
const [folder, ...rest] = process.argv.slice(2), read = (name) => readFileSync(`${folder}/${name}`);
const { texts, messages } = JSON.parse(read("input.json")), header = JSON.parse(read("header.json"));
const data = read("data.bin");
const buffer = data.buffer.slice(data.byteOffset, data.byteOffset + data.length);
const tokenizer = new Tokenizer(readFileSync("%s", "utf8"));
const tokens = texts.map((text) => tokenizer.encode(text));
const decoded = tokens.map((ids) => tokenizer.decode(ids));
const results = {};
for (const simd of [true, false]) {
  const gpt2 = new GPT2(header, buffer, { simd });
  const some = simd ? messages : messages.slice(0, 5); // without the kernel it takes five times as long
  const logits = some.map((text) => gpt2.classify(gpt2.pad(tokenizer.encode(text))));
  const look = gpt2.look(tokenizer.encode("Do you have time"), true);
  let ids = tokenizer.encode("Every effort moves you"), known = 0;
  for (let i = 0; i < 20; i++) {
    const next = gpt2.nextLogits(ids, known);
    known = ids.length;
    ids = [...ids, next.indexOf(next.reduce((a, b) => Math.max(a, b)))];
  }
  results[simd] = {
    before: logits.map((each) => [...each.before]), after: logits.map((each) => [...each.after]), ids,
    rows: [...look.logits], weights: look.blocks.map((block) => [...block.weights]),
  };
}
const gpt2 = new GPT2(header, buffer), ids = gpt2.pad(tokens[0]);
const classify = (times) => { for (let i = 0; i < times; i++) gpt2.classify(ids, ids.length - 5); };
const memory = () => {
  gc();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
};
const used = [];
for (let round = 0; round < 6; round++) {
  classify(30);
  used.push(memory());
}
for (const simd of [true, false]) {
  const logits = new GPT2(header, buffer, { simd }).nextLogits(tokenizer.encode("Do you have time"));
  results[simd].next = [...logits];
}
const few = nextProbabilities(Float32Array.of(1, 2, 3, 4), { temperature: 0.5, topK: 2 });
const drawn = [0, 0.5, 0.9999].map((number) => draw(few, number));
console.log(JSON.stringify({ tokens, decoded, results, few: [...few], drawn, used }));
"""


def test_numpy_pytorch_and_javascript_have_the_same_logits(tmp_path, models, messages, expected, tokenizer):
    if shutil.which("node") is None:
        pytest.skip("Node.js is not here; Chromium runs the same engine.")
    header, data = live_figures.pack_weights(rounded=False)
    (tmp_path / "header.json").write_text(json.dumps(header))
    (tmp_path / "data.bin").write_bytes(data)
    texts = messages + [text for text in fuzzed_texts(2000)] + ["a" * 3000, " " * 3000]
    (tmp_path / "input.json").write_text(json.dumps({"texts": texts, "messages": expected[0]}))
    script = NODE % live_figures.VOCABULARY.as_posix()
    run = subprocess.run(
        ["node", "--expose-gc", "-", str(tmp_path)],
        input=script,
        cwd=live_figures.LIVE,
        capture_output=True,
        text=True,
    )
    assert run.stderr == ""
    found = json.loads(run.stdout)

    assert found["tokens"] == [tokenizer.encode(text, disallowed_special=()) for text in texts]
    assert found["decoded"] == texts
    odds = torch.tensor([3.0, 4.0]) / 0.5
    assert found["few"] == pytest.approx([0, 0, *odds.softmax(0).tolist()])
    assert found["drawn"] == [2, 3, 3]
    # What leaks grows in every round of 30; what the collector has not got round to, in some.
    assert min(np.diff(found["used"])) < 15_000, found["used"]  # bytes
    with torch.no_grad():
        start = text_to_token_ids("Every effort moves you", tokenizer)
        continued = generate_text_cached(models["language"], start, 20, 1024)[0].tolist()
        ids = tokenizer.encode("Do you have time")
        blocks, rows = live_figures.look_into(models["after"], ids)
        assert torch.allclose(rows, models["after"](torch.tensor([ids]))[0], atol=1e-5)
    in_numpy = logits_in_numpy(ids)  # (T, V), of the program in lesson 02
    with torch.no_grad():
        assert np.abs(models["language"](torch.tensor([ids]))[0].numpy() - in_numpy).max() < FLOAT_BOUND
    for result in found["results"].values():  # with the kernel, and without
        for key in ("before", "after"):
            logits = torch.tensor(result[key])
            assert torch.allclose(logits, expected[1][key][: len(logits)], atol=FLOAT_BOUND)
        assert np.abs(np.array(result["next"]) - in_numpy[-1]).max() < FLOAT_BOUND
        assert result["ids"] == continued
        assert result["rows"] == pytest.approx(rows.flatten().tolist(), abs=FLOAT_BOUND)
        for weights, block in zip(result["weights"], blocks):
            assert weights == pytest.approx(block["weights"].flatten().tolist(), abs=FLOAT_BOUND)


def test_tokens_are_those_of_tiktoken(page, web, tokenizer, messages):
    page.goto(f"{web}/tokens.html")
    texts = messages + fuzzed_texts() + ODD_TEXTS[:-1]
    for start in range(0, len(texts), 500):
        part = texts[start : start + 500]
        answers = page.evaluate(
            "texts => Promise.all(texts.map(text => Live.engine.ask('tokens', text)))"
            ".then(all => all.map(({ tokens }) => tokens.map(({ id }) => id)))",
            part,
        )
        assert answers == [tokenizer.encode(text, disallowed_special=()) for text in part]


def test_leaving_out_a_token_and_attention_are_those_of_pytorch(page, web, models, tokenizer):
    page.goto(f"{web}/attention.html")
    text = "Win a prize now! Reply YES"
    answer = ask(page, "classify", text)
    ids = tokenizer.encode(text)
    assert [token["id"] for token in answer["tokens"]] == ids
    for i in reversed(range(len(ids))):  # each from what the one before left in the cache
        rest = ids[:i] + ids[i + 1 :]
        rest += [50256] * (models["max_length"] - len(rest))
        with torch.no_grad():
            ham, spam = last_token_logits(models["after"], torch.tensor([rest]))[0].tolist()
        assert ask(page, "without", {"ids": ids, "i": i}) == pytest.approx(spam - ham, abs=2 * INT8_BOUND)

    look = """args => Live.engine.ask("look", args).then(({ blocks, logits }) => (
        { weights: blocks.map(block => [...block.weights]), logits: [...logits] }))"""
    for finetuned in (False, True):
        found = page.evaluate(look, {"text": text, "finetuned": finetuned, "padded": False})
        with torch.no_grad():
            blocks, logits = live_figures.look_into(models["after" if finetuned else "before"], ids)
        assert found["logits"] == pytest.approx(logits.flatten().tolist(), abs=INT8_BOUND)
        for weights, block in zip(found["weights"], blocks):
            assert weights == pytest.approx(block["weights"].flatten().tolist(), abs=0.03)


def test_greedy_generation_is_that_of_pytorch(page, web, models, tokenizer):
    """Two tokens that are as good as equal may change places by rounding to 8 bits; no others."""
    page.goto(f"{web}/generation.html")
    prompt = "The old house by the sea"
    page.locator("textarea").fill(prompt)
    page.get_by_role("button", name="Append 20 tokens").click()
    page.wait_for_function(
        "document.querySelector('[data-name=appended]').dataset.value === '20'", timeout=20000
    )
    page.wait_for_function("document.querySelector('.live-row').textContent.includes('Append 20')")
    written = text_to_token_ids(page.locator(".live-text").text_content(), tokenizer)  # (1, T)
    first = len(tokenizer.encode(prompt))
    assert written.shape[1] == first + 20
    with torch.no_grad():
        logits = models["language"](written)[0, first - 1 : -1]  # (20, V): before each appended token
    taken = logits.gather(1, written[0, first:, None])[:, 0]
    assert (logits.max(dim=1).values - taken).max() < 2 * INT8_BOUND


# ---------------------------------------------------------------------------------
# Loading
# ---------------------------------------------------------------------------------


def test_the_model_loads_once_for_all_pages_and_only_for_own_words(browser, web):
    context = browser.new_context()
    page = context.new_page()
    asked = []
    context.on("request", lambda request: asked.append(request.url))
    page.goto(f"{web}/classifier.html")
    page.get_by_role("button", name="From a friend").click()
    assert spam_shown(page) > 0 and not any("weights" in url for url in asked)
    assert "9 MB" in page.locator(".live-model").inner_text()
    page.locator("textarea").fill("My own words")
    page.locator('.live-model[data-state="ready"]').wait_for()
    page.wait_for_function("indexedDB.databases().then(all => all.length > 0)")
    wait_for_effects(page)
    page.goto(f"{web}/tokens.html")
    page.locator("textarea").fill("My own words again")
    page.locator('.live-model[data-state="ready"]').wait_for()
    assert sum("weights" in url for url in asked) == 1
    assert [url for url in asked if not url.startswith((web, "blob:", "data:"))] == []
    context.close()


def test_loading_can_be_cancelled_and_a_failure_can_be_tried_again(browser, web):
    context = browser.new_context()
    page = context.new_page()
    held = []
    page.route("**/weights.gz*", lambda route: held.append(route))
    page.goto(f"{web}/classifier.html")
    page.locator("textarea").fill("one")
    page.get_by_role("button", name="Cancel").click()
    page.locator('.live-model[data-state="idle"]').wait_for()
    page.unroute("**/weights.gz*")
    page.route("**/weights.gz*", lambda route: route.abort())
    page.locator("textarea").fill("two")
    page.locator('.live-model[data-state="failed"]').wait_for()
    page.unroute("**/weights.gz*")
    page.get_by_role("button", name="Try again").click()
    page.locator('.live-model[data-state="ready"]').wait_for()
    wait_for_effects(page)
    context.close()


def test_memory_is_flat_after_200_classifications(page, web):
    page.goto(f"{web}/classifier.html")
    many = """async (from) => {
        const text = "call now ".repeat(35);  // the same again and again: only what follows is computed
        for (let i = from; i < from + 50; i++) await Live.engine.ask("classify", text + i);
    }"""
    session = page.context.new_cdp_session(page)

    def heap():
        session.send("HeapProfiler.collectGarbage")
        return session.send("Runtime.getHeapUsage")["usedSize"]

    used = []
    for start in range(0, 200, 50):
        page.evaluate(many, start)
        used.append(heap())
    assert min(np.diff(used)) < 100_000, used  # bytes; a leak grows in every round


def test_a_changed_classifier_is_seen(tmp_path, monkeypatch):
    former = live_figures.version_of_inputs()
    changed = tmp_path / "classifier.safetensors"
    content = bytearray(live_figures.CLASSIFIER.read_bytes())
    content[-1] ^= 1
    changed.write_bytes(content)
    monkeypatch.setattr(live_figures, "CLASSIFIER", changed)
    assert live_figures.version_of_inputs() != former


def test_a_changed_sample_is_seen(tmp_path, monkeypatch):
    former = live_figures.version_of_inputs()
    changed = tmp_path / SAMPLE_FILE.name
    changed.write_bytes(SAMPLE_FILE.read_bytes() + b"ham\tsee you\n")
    monkeypatch.setattr(live_figures, "SAMPLE_FILE", changed)
    assert live_figures.version_of_inputs() != former


def test_the_built_book_has_the_model_of_the_assets(html):
    """A changed checkpoint, classifier or engine turns this red until the book is built again."""
    built = HTML / "_static" / "live" / "build.js"
    if not built.exists():
        pytest.skip("No built pages: run `make book` first.")
    assert built.read_text("utf-8") == (html / "_static" / "live" / "build.js").read_text("utf-8")


# ---------------------------------------------------------------------------------
# Each figure
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TYPING)
def test_any_text_is_taken_without_an_error(page, web, name):
    page.goto(f"{web}/{name}.html")
    field = page.locator("textarea")
    for text in ODD_TEXTS:
        field.evaluate("(area, text) => { area.value = text; area.dispatchEvent(new Event('input')); }", text)
        page.wait_for_timeout(120)
    field.fill("The end")
    page.locator('.live-model[data-state="ready"]').wait_for()
    if name in ("classifier", "threshold"):
        expected = ask(page, "classify", "The end")["spam"]
        page.wait_for_function(
            "p => document.querySelector('[data-name=spam]').dataset.value == p", arg=expected
        )
    assert page.title() != "broken"
    assert page.locator("[data-live] :is(script, img)").count() == 0
    page.get_by_role("button", name="Reset").click()
    assert page.locator('.live-model[data-state="ready"]').is_visible()


def test_stored_examples_are_what_the_page_computes(page, web):
    page.goto(f"{web}/classifier.html")
    for name in ("A prize", "From a friend", "A bank?"):
        page.get_by_role("button", name=name).click()
        stored = spam_shown(page)
        computed = ask(page, "classify", page.locator("textarea").input_value())["spam"]
        assert stored == pytest.approx(computed, abs=0.02)


# What the Tab key has to reach, as indices of elements; of a group of radio buttons, its name.
CALLED = """each => each.type === "radio" ? each.name
    : [...document.querySelectorAll("[data-live] *")].indexOf(each)"""
CONTROLS = """[...document.querySelectorAll("[data-live] :is(button, input, select, textarea, [tabindex])")]
    .filter(each => each.checkVisibility() && !each.disabled && each.tabIndex >= 0)"""
OUTLINE = """each => getComputedStyle(each.type === "radio" ? each.nextElementSibling : each).outlineStyle"""


@pytest.mark.parametrize("name", LIVE)
def test_keyboard_reaches_every_control_and_leaves(page, web, name):
    page.goto(f"{web}/{name}.html")
    page.locator(f'[data-live="{name}"][data-state="live"]').wait_for()
    wanted = set(page.evaluate(f"{CONTROLS}.map({CALLED})"))
    page.locator(f'[data-live="{name}"]').evaluate("root => { root.tabIndex = -1; root.focus(); }")
    reached = set()
    for _ in wanted:
        page.keyboard.press("Tab")
        reached.add(page.evaluate(f"({CALLED})(document.activeElement)"))
        assert page.evaluate(f"({OUTLINE})(document.activeElement)") == "solid"
    assert reached == wanted
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('[data-live]') === null")


SLIDERS = [  # of which figure, and a number that it changes
    ("anatomy", "size", "total"),
    ("prevalence", "share", "precision"),
    ("loss", "bias", "loss"),
    ("training", "step", "loss"),
    ("threshold", "threshold", "recall"),
]


def test_keyboard_alone_uses_the_figures(page, web):
    page.goto(f"{web}/classifier.html")
    page.locator("textarea").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("Free prize")
    page.wait_for_function("document.querySelector('.live-tokens').textContent === 'Free·prize'")
    wait_for_effects(page)
    page.locator(".live-token[tabindex='0']").focus()
    page.keyboard.press("End")
    assert "Without “·prize”" in page.locator(".live-detail").inner_text()

    page.goto(f"{web}/attention.html")
    page.locator(".live-matrix").focus()
    page.keyboard.press("ArrowUp")
    assert "Row 3, “·have”, attends to “Do”" in page.locator(".live-detail").inner_text()
    page.locator(".live-head[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    assert "Layer 1, head 2" in page.locator(".live-attention").inner_text()

    for name, part, output in [
        ("loss", "bias", "loss"),
        ("threshold", "threshold", "recall"),
        ("prevalence", "share", "precision"),
        ("training", "step", "accuracy"),
        ("anatomy", "size", "total"),
    ]:
        page.goto(f"{web}/{name}.html")
        before = page.locator(f'output[data-name="{output}"]').get_attribute("data-value")
        page.locator(f"#live-{name}-{part}").focus()
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        assert page.locator(f'output[data-name="{output}"]').get_attribute("data-value") != before
        page.get_by_role("button", name="Reset").focus()
        page.keyboard.press("Enter")
        assert page.locator(f'output[data-name="{output}"]').get_attribute("data-value") == before


# Text that stands out of its figure, or that is cut where it is not meant to be.
CUT = """() => {
    const meant = ".live-hidden, .live-rowname, .live-columnname, .live-bar";
    const texts = document.querySelectorAll(
        "[data-live] :is(p, span, button, label, output, td, th, legend, text)");
    return [...texts].filter(each => each.checkVisibility() && each.textContent.trim())
        .filter(each => !each.closest(meant)).filter(each => {
            const box = each.getBoundingClientRect();
            const frame = each.closest(".live-body").getBoundingClientRect();
            const hides = getComputedStyle(each).overflow === "hidden";
            return box.left < frame.left || box.right > frame.right ||
                hides && each.scrollWidth > each.clientWidth + 2;
        }).map(each => each.textContent.slice(0, 60));
}"""
# Every word, as a language with other words would have it; what stands in braces stays.
TRANSLATE = """{
    const english = Live.words;
    const other = text => text.replace(/(^|})([^{]*)/g, (_, value, words) =>
        value + words.replace(/[A-Za-z\u2019]+ ?/g, "\u6587\u5b57"));
    const all = words => typeof words === "string" ? other(words)
        : Array.isArray(words) ? words.map(all)
        : Object.fromEntries(Object.entries(words).map(([name, part]) => [name, all(part)]));
    Live.words = tables => english(all(tables));
}
"""
AXE = {"resultTypes": ["violations"], "preload": False}


@pytest.mark.parametrize("screen, colours", [("desktop", "dark"), ("phone", "light")])
def test_no_accessibility_violation_and_no_text_cut(browser, web, screen, colours):
    context = browser.new_context(
        viewport=DESKTOP if screen == "desktop" else PHONE,
        is_mobile=screen == "phone",
        has_touch=screen == "phone",
        color_scheme=colours,
        reduced_motion="reduce",
    )
    page, found = context.new_page(), []
    for name in LIVE:
        page.goto(f"{web}/{name}.html")
        page.locator('[data-state="live"]').wait_for()
        page.wait_for_timeout(50)
        assert page.evaluate("document.documentElement.dataset.theme") == colours
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"], name
        assert page.evaluate(CUT) == [], name
        response = Axe().run(page, context=f'[data-live="{name}"]', options=AXE).response
        for violation in response["violations"]:
            found += [
                (name, violation["id"], node["html"][:160], node["failureSummary"][:200])
                for node in violation["nodes"]
            ]
    assert found == []
    context.close()


def test_figures_hold_the_words_of_another_language(browser, html, web):
    words = (html / "_static" / "live" / "words_en.js").read_text("utf-8")
    context = browser.new_context(viewport=PHONE, is_mobile=True, has_touch=True)
    page, problems = context.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.route("**/words_en.js*", lambda route: route.fulfill(body=TRANSLATE + words))
    for name in LIVE:
        page.goto(f"{web}/{name}.html")
        page.locator('[data-state="live"]').wait_for()
        page.wait_for_timeout(50)
        assert "\u6587\u5b57" in page.locator("[data-live]").inner_text()
        english = page.locator("[data-live] :is(label, legend, .live-heading, .live-note)").all_inner_texts()
        assert not re.search(r"\b(the|of|message|tokens)\b", " ".join(english)), name
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name
        assert page.evaluate(CUT) == [], name
    assert problems == []
    context.close()


def test_touch_chooses_tokens_and_cells(browser, web):
    context = browser.new_context(viewport=PHONE, is_mobile=True, has_touch=True)
    page = context.new_page()
    page.goto(f"{web}/classifier.html")
    page.locator(".live-token").nth(3).tap()
    assert "Without “·have”" in page.locator(".live-detail").inner_text()
    page.goto(f"{web}/attention.html")
    page.locator(".live-cells").tap(position={"x": 5, "y": 5})
    assert "“Do”, attends to “Do” with weight 100.0%" in page.locator(".live-detail").inner_text()
    context.close()


# ---------------------------------------------------------------------------------
# Where nothing is live
# ---------------------------------------------------------------------------------


def test_pages_without_scripts_show_the_pictures(browser, html):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    for name in LIVE:
        page.goto(f"{html.as_uri()}/{name}.html")
        assert page.locator(f'[data-live="{name}"] img').get_attribute("alt") == LIVE[name][1]
        assert page.locator(f'[data-live="{name}"] img').bounding_box()["height"] > 100
        assert page.locator("figcaption").inner_text().startswith("Fig.")
    context.close()


def test_a_cell_with_a_figure_becomes_the_figure(page, web):
    page.goto(f"{web}/notebook.html")
    page.locator('[data-live="attention"][data-state="live"]').wait_for()
    assert page.locator("[data-live][data-state='live']").count() == len(LIVE)
    assert page.locator(".cell_input").count() == 0
    assert page.locator("#fig-live-attention figcaption .caption-number").inner_text().startswith("Fig.")


def test_stored_output_is_a_picture_with_its_caption():
    for name in LIVE:
        output = show_live(name)._repr_html_()
        assert re.match(r'<figure><img src="data:image/png;base64,iVBOR[^"]+" alt="[^"]{20,}"', output)
        assert "<figcaption>" in output and "<script" not in output and "style" not in output
        assert show_live(name).path.stat().st_size < 130_000
    drawn = {path.stem for path in (ROOT / "book" / "figures").glob("*.svg")}
    assert drawn == DRAWINGS.keys()
    for name in DRAWINGS:
        assert "data:image/svg+xml;base64," in show_figure(name)._repr_html_()
    with pytest.raises(ValueError, match="There is no figure 'nothing'"):
        show_live("nothing")


def test_engine_and_tokenizer_are_short_enough_to_be_read():
    lines = [
        line.strip()
        for name in ("tokenizer.js", "simd.js", "gpt2.js")
        for line in (live_figures.LIVE / name).read_text("utf-8").splitlines()
    ]
    assert len([line for line in lines if line and not line.startswith("//")]) <= 350
    assert max(map(len, lines)) <= 116


def test_every_word_of_a_figure_stands_in_the_table():
    words = (live_figures.LIVE / "words_en.js").read_text("utf-8")
    for name in LIVE:
        source = (live_figures.LIVE / f"{name}.js").read_text("utf-8")
        used = set(re.findall(r"\bwords\.(\w+)", source))
        for key in used:
            assert re.search(rf"\b{key}: ", words), f"{name}.js uses words.{key}"
        table = re.search(rf"^  {name}: {{\n(.*?)^  }},", words, re.MULTILINE | re.DOTALL)[1]
        keys = set(re.findall(r"^    (\w+):", table, re.MULTILINE))
        assert keys <= used or "words[" in source, f"no longer used by {name}.js: {keys - used}"
        assert not re.search(r'"[A-Z][a-z]+ [a-z]+ ', source), f"{name}.js has a sentence of its own"


# ---------------------------------------------------------------------------------
# Figures of what was measured
# ---------------------------------------------------------------------------------

RUN = {"seed": 1, "test": 0.9, "converged": True}
ENTRY = {"per_seed": [RUN], "trainable_parameters": 7, "messages": [30, 5, 10]}


def line(row, verdict):
    return {"row": row, "against": "last-token", "difference": [-0.1, -0.2, 0.0], "verdict": verdict}


def test_experiments_show_runs_intervals_and_verdicts_of_what_is_measured(monkeypatch):
    stored = {
        "rows": {
            "uci": {"last-token": ENTRY, "lora": {**ENTRY, "per_seed": [RUN, {**RUN, "converged": False}]}}
        },
        "findings": {
            "uci": {
                "accuracies": {name: {"test": [0.9, 0.8, 0.95]} for name in ("last-token", "lora")},
                "comparisons": [line("lora", "worse")],
            }
        },
    }
    monkeypatch.setattr(live_figures, "read_result", stored.get)
    example = live_figures.example_experiments({})
    lora = example["data"]["uci"]["rows"]["lora"]
    assert example["data"]["uci"]["messages"] == 10
    assert (lora["test"], lora["failed"], lora["interval"]) == ([0.9, 0.9], [False, True], [0.8, 0.95])
    assert (lora["difference"], lora["clear"]) == ([-0.1, -0.2, 0.0], True)
    assert "clear" not in example["data"]["uci"]["rows"]["last-token"]


def test_trainable_shows_costs_where_they_are_measured(monkeypatch):
    cost = {"seconds": 0.01, "operations": 5e8, "megabytes": 480.0, "megabytes_before": 430.0}
    rows = {
        "last-token": {**ENTRY, "settings": {"layers": "last block"}, "cost": cost},
        "head-only": {**ENTRY, "settings": {"layers": "head"}, "cost": {**cost, "megabytes": None}},
        "all-layers": {**ENTRY, "settings": {"layers": "all"}, "per_seed": []},  # not one run yet
    }
    monkeypatch.setattr(live_figures, "read_result", lambda kind: {"sample": rows})
    runs = live_figures.example_trainable({})["runs"]
    assert list(runs) == ["head", "last block"]
    assert runs["last block"]["megabytes"] == 50 and runs["head"]["megabytes"] is None
    assert runs["last block"]["parameters"] == 7


def test_every_row_is_asked_about_and_has_a_name():
    rows = {row for row, change in EXPERIMENTS.items() if "model" not in change}
    assert set().union(*live_figures.QUESTIONS.values()) == set(live_figures.NAMES) == rows


def test_experiments_answer_a_question_on_the_other_messages(page, web):
    page.goto(f"{web}/experiments.html")
    dots = page.locator("button.live-experiment")
    before = dots.count()
    page.locator("#live-experiments-question").select_option("token")
    assert 0 < dots.count() < before
    dots.last.click()
    assert "points" in page.locator("[aria-live]").inner_text()
    if page.locator("#live-experiments-data-uci").count():
        page.get_by_label("SMS Spam Collection").check()
        assert page.locator("[data-key=last-token]").count() == 1
    page.get_by_role("button", name="Reset").click()
    assert dots.count() == before


def test_trainable_shows_what_each_choice_costs(page, web):
    page.goto(f"{web}/trainable.html")
    work, shown = page.locator("output[data-name=work]"), {}
    for choice in page.locator("[data-live] input[type=radio]").all():
        choice.check()
        shown[choice.get_attribute("value")] = work.get_attribute("data-value"), work.inner_text()
    assert shown["last block"][1] == "1.33 ×"  # as notebook 06 counts it
    assert all(text == "open" for value, text in shown.values() if not value)
