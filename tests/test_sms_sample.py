"""assets/sms_sample.tsv, the messages written for this book: what its data card promises."""

import json
import re
from collections import Counter, defaultdict

import pytest

from spam_data import SAMPLE_FILE, create_balanced_dataset, random_split, read_messages
from tools.data_cards import CARDS, CLASSES, RESULTS, ROOT, words_of

# Ranges that the regulators of the UK (Ofcom) and North America (NANPA) keep for fiction
FICTIONAL_NUMBER = re.compile(
    r"""
      (0|\+44)7700900\d{3}
    | (0|\+44)(113|114|115|116|117|118|121|131|141|151|161)4960\d{3}
    | (0|\+44)2079460\d{3} | (0|\+44)1914980\d{3} | (0|\+44)2920180\d{3} | (0|\+44)1632960\d{3}
    | (0|\+44)9098790\d{3} | (0|\+44)8081570\d{3}
    | (\+?1)?(\d{3})?55501\d{2}
    """,
    re.VERBOSE,
)
LINK = re.compile(
    r"(?<![/.\w-])(?:https?://)?((?:[\w-]+\.)+[A-Za-z]{2,})\b"
)  # a point between letters, and no space
RESERVED = (".example", ".test", ".invalid", "example.com", "example.net", "example.org")


@pytest.fixture(scope="module")
def df():
    return read_messages(SAMPLE_FILE)


def test_file_has_a_label_and_a_text_in_each_line(df):
    assert df.notna().all(axis=None) and set(df.Label) == set(CLASSES)
    assert [text for text in df.Text if not text or text != text.strip()] == []
    content = SAMPLE_FILE.read_bytes()  # a quotation mark would join or trim messages when they are read
    assert content.count(b"\n") == len(df) and b"\r" not in content and b'"' not in content


def test_there_are_5200_distinct_messages_a_fifth_of_them_spam(df):
    assert df.Text.str.lower().nunique() == len(df) >= 5200
    counts = df.Label.value_counts()
    assert counts["ham"] >= 4200 and counts["spam"] >= 1000
    assert 0.15 < counts["spam"] / len(df) < 0.25


def test_lengths_are_near_those_of_the_uci_collection(df, tokenizer):
    medians = df.Text.str.len().groupby(df.Label).median()
    assert medians["ham"] == pytest.approx(52, abs=6) and medians["spam"] == pytest.approx(149, abs=6)
    assert 100 <= max(len(tokenizer.encode(text)) for text in df.Text) <= 120


def test_no_two_messages_are_near_duplicates(df):
    # near duplicates share more than half of their 5-character sequences (Jaccard index)
    sequences = [{t[i : i + 5] for i in range(max(1, len(t) - 4))} for t in df.Text.str.lower()]
    messages_with = defaultdict(list)
    for number, found in enumerate(sequences):
        for sequence in found:
            messages_with[sequence].append(number)
    near = []
    for number, found in enumerate(sequences):
        shared = Counter(other for sequence in found for other in messages_with[sequence] if other < number)
        for other, n in shared.items():
            if n / (len(found) + len(sequences[other]) - n) > 0.5:
                near.append((df.Text[number], df.Text[other]))
    assert near == []


def test_telephone_numbers_are_from_ranges_for_fiction(df):
    candidates = re.findall(r"\+?\d[\d ()./-]{5,}\d", "\n".join(df.Text))
    numbers = [re.sub(r"[^\d+]", "", candidate) for candidate in candidates]
    numbers = [number for number in numbers if len(number.lstrip("+")) >= 9]
    assert len(numbers) >= 150
    assert [number for number in numbers if not FICTIONAL_NUMBER.fullmatch(number)] == []


def test_links_lead_nowhere(df):
    links = [link.lower() for link in LINK.findall("\n".join(df.Text))]
    assert len(links) >= 300
    assert [link for link in links if not link.endswith(RESERVED)] == []


def test_no_word_gives_the_class_away(df):
    """No frequent word stands in spam alone, and none separates the classes by itself."""
    totals, counts = df.Label.value_counts(), {}
    for name in CLASSES:
        counts[name] = Counter(word for text in df.Text[df.Label == name] for word in words_of(text))
    words = {word for word, n in (counts["ham"] + counts["spam"]).items() if n >= 25}
    assert len(words) > 300
    assert [word for word in words if counts["ham"][word] == 0] == []
    assert [
        word for word in words if counts["spam"][word] == 0 and counts["ham"][word] > 0.01 * len(df)
    ] == []
    gaps = {
        word: abs(counts["spam"][word] / totals["spam"] - counts["ham"][word] / totals["ham"])
        for word in words
    }
    numbers = {word for word in words if word.strip("0") == ""}  # honest: numbers, prices
    assert max(gaps[word] for word in words - numbers) < 0.3
    assert max(gaps.values()) < 0.5


def test_endings_of_links_give_nothing_away(df):
    """Where there is a link, its ending says next to nothing about the class."""
    shares = {}
    for name in CLASSES:
        text = "\n".join(df.Text[df.Label == name]).lower()
        endings = Counter(re.findall(r"\.(example|test|invalid)\b|(example\.(?:com|net|org))", text))
        total = sum(endings.values())
        shares[name] = {"".join(ending): n / total for ending, n in endings.items()}
    for ending in {ending for found in shares.values() for ending in found}:
        assert abs(shares["ham"].get(ending, 0) - shares["spam"].get(ending, 0)) < 0.15, ending


def test_a_fixed_seed_gives_the_shares_that_the_book_names(df):
    parts = random_split(create_balanced_dataset(df), 0.7, 0.1)
    assert [len(part) for part in parts] == [1563, 223, 448]
    assert [round((part.Label == "spam").mean(), 3) for part in parts] == [0.491, 0.525, 0.52]


@pytest.mark.parametrize("name", CARDS)
def test_data_card_is_measured_on_this_file(name):
    assert json.loads((RESULTS / name).read_text(encoding="utf-8")) == CARDS[name]()


@pytest.mark.parametrize("name", CARDS)
def test_blind_readers_agree_with_the_labels(name):
    card = json.loads((RESULTS / name).read_text(encoding="utf-8"))["blind readings"]
    assert card["messages"] == 500 and card["kappa between readers"] > 0.95


@pytest.mark.parametrize("name", ["README.md", "assets/README.md", "book/editions.md"])
def test_documents_name_the_number_of_messages(name, df):
    assert f"{len(df):,} invented messages" in (ROOT / name).read_text(encoding="utf-8")
