"""report.py, report_page.py: the numbers against scikit-learn, and the page as a reader finds it."""

import json
import re

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

import report
import report_page

NAMES = ["a & b", "<script>", "c"]


@pytest.fixture
def answers():
    """Right classes and probabilities of 200 texts, right in three of five."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 200)
    scores = rng.normal(size=(200, 3)) + 1.2 * np.eye(3)[labels]
    return labels, np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)


@pytest.fixture
def measured(answers):
    texts = [f"text <b>{i}</b>\n& more" for i in range(200)]
    about = {"classifier": "x.safetensors", "model": "tiny", "trained_on": "my.csv", "data": "all rows"}
    return about | report.measure(NAMES, *answers, texts)


def test_scores_are_those_of_scikit_learn(answers, measured):
    labels, probabilities = answers
    predicted = probabilities.argmax(axis=1)
    expected = np.array(precision_recall_fscore_support(labels, predicted))
    rows = [[row[key] for key in ("precision", "recall", "f1", "texts")] for row in measured["classes"]]
    np.testing.assert_allclose(np.transpose(rows), expected)
    assert measured["confusion"] == confusion_matrix(labels, predicted).tolist()
    assert measured["accuracy"] == (predicted == labels).mean()
    assert measured["interval"][0] < measured["accuracy"] < measured["interval"][1]
    assert measured["macro_f1"] == pytest.approx(expected[2].mean())


def test_class_without_texts_and_answers_has_no_scores():
    numbers = report.measure(NAMES, np.array([0, 0]), np.array([[0.9, 0.1, 0], [0.8, 0.1, 0.1]]), ["x", "y"])
    assert [row["f1"] for row in numbers["classes"]] == [1.0, 0.0, 0.0]
    assert numbers["macro_f1"] == 1.0 and numbers["mistakes"] == []  # of the classes that occur


def test_threshold_decides_between_two_classes():
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1]])
    numbers = report.measure(["ham", "spam"], np.array([1, 0]), probabilities, ["x", "y"], threshold=0.3)
    assert numbers["accuracy"] == 1.0


def test_calibration_compares_what_is_said_with_what_is_right():
    confidence, right = np.array([0.95, 0.95, 0.55, 1.0]), np.array([True, False, True, True])
    bins, error = report.calibration_of(confidence, right)
    assert [row["texts"] for row in bins] == [1, 3]
    assert bins[1]["probability"] == pytest.approx(0.9667, abs=1e-4) and bins[1]["accuracy"] == 2 / 3
    assert error == pytest.approx(0.25 * 0.45 + 0.75 * 0.3)


def test_mistakes_are_the_most_confident_ones(answers, measured):
    probabilities = [row["probability"] for row in measured["mistakes"]]
    assert len(probabilities) == 20 and probabilities == sorted(probabilities, reverse=True)
    assert all(row["label"] != row["predicted"] for row in measured["mistakes"])


def test_text_report_has_every_part(measured):
    text = report.as_text(measured)
    for part in (
        "Accuracy: ",
        "95 % interval",
        "precision",
        "right class \\ answer",
        "Calibration",
        "mistakes",
    ):
        assert part in text
    assert all(name in text for name in NAMES)


def test_text_cannot_steer_the_terminal(answers):
    texts = ["win \x1b[2J\x1b]0;title\x07 \u202eevil"] * 200
    shown = report.as_text({"data": "a\x1b[2J.csv"} | report.measure(NAMES, *answers, texts))
    assert r"win \x1b[2J\x1b]0;title\x07 \u202eevil" in shown and r"a\x1b[2J.csv" in shown
    assert "\x1b" not in shown and "\u202e" not in shown


def test_json_report_is_the_numbers(measured):
    assert json.loads(report.as_json(measured)) == measured


def test_many_classes_have_their_largest_confusions_in_place_of_the_matrix():
    names = [f"class {i}" for i in range(40)]
    labels = np.repeat(np.arange(40), 3)
    probabilities = np.eye(40)[np.where(labels == 7, 9, labels)]
    numbers = report.measure(names, labels, probabilities, ["x"] * 120)
    assert report.confusions(numbers) == [("class 7", "class 9", 3)]
    about = {"classifier": "x", "model": "tiny", "trained_on": "my.csv", "data": "all rows"}
    text, page = report.as_text(about | numbers), report_page.as_html(about | numbers)
    assert "Most frequent mistakes" in text and "most frequent mistakes" in page


def test_page_needs_nothing_else_and_shows_texts_as_text(measured):
    page = report_page.as_html(measured)
    assert not re.search(r"https?:|<script|<link|<img|@import|url\(", page)
    assert "text &lt;b&gt;" in page and "<b>" not in page and "a &amp; b" in page
    assert 'lang="en"' in page and "prefers-color-scheme: dark" in page and page.count("<svg") == 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_accessible_in_a_browser(measured, tmp_path, scheme):
    pytest.importorskip("playwright")
    from axe_playwright_python.sync_playwright import Axe

    from tools.browser import find_browser, open_browser

    if find_browser() is None:
        pytest.skip("no browser is installed")
    (tmp_path / "report.html").write_text(report_page.as_html(measured), encoding="utf-8")
    requests = []
    with open_browser() as browser:
        for width in (1100, 360):
            page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            page.on("request", lambda request: requests.append(request.url))
            page.goto((tmp_path / "report.html").as_uri())
            assert Axe().run(page).violations_count == 0
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert requests == [(tmp_path / "report.html").as_uri()] * 2
