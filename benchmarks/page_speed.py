"""How fast the built pages are on a phone: Lighthouse opens every page of _build/html.

    python benchmarks/page_speed.py                                # writes results/page_speed.json
    python benchmarks/page_speed.py --pages intro 05 --runs 1      # these pages only, no file
    python benchmarks/page_speed.py --html FOLDER --output FILE    # other pages, another file

The pages come from a server on this machine that compresses, as those of the web do. Lighthouse
runs with its settings for phones: a slow line and a slow processor, both simulated. Every number
is the median of several runs. Scores depend on how busy this machine is, weights and requests do
not. Needs Node, whose `npx` fetches Lighthouse, and Chromium; without them nothing is measured.
"""

import argparse
import functools
import gzip
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from http import HTTPStatus
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from devices import cpu_name  # noqa: E402
from files import write_json  # noqa: E402
from tools.browser import QuietHandler, find_browser, serve  # noqa: E402

LIGHTHOUSE = "12.8.2"  # the last one that runs with Node 20
CATEGORIES = ["performance", "accessibility", "best-practices", "seo"]
TARGETS = {"performance": 95, "accessibility": 100, "best-practices": 100, "seo": 100}
MOST_KILOBYTES = 400
COMPRESSED = (".html", ".css", ".js", ".svg", ".json", ".ipynb", ".md", ".txt")


class CompressingHandler(QuietHandler):
    """Sends texts compressed and keeps connections open, as servers on the web do."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if path.suffix not in COMPRESSED or not path.is_file():
            super().do_GET()
            return
        content = compressed(path)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@functools.cache
def compressed(path):
    return gzip.compress(path.read_bytes(), 6, mtime=0)


def serve_compressed(folder):
    """Serve the files of a folder, compressed; a context manager that gives the address."""
    compressed.cache_clear()
    return serve(folder, CompressingHandler)


def pages_of(html):
    """All pages of the book, those without a text of their own aside: ["book/intro.html", ...]."""
    return sorted(
        path.relative_to(html).as_posix() for path in html.glob("*/*.html") if path.parts[-2][0] != "_"
    )


def lighthouse(address, npx):
    """What Lighthouse says about one page, once."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [npx, "--yes", f"lighthouse@{LIGHTHOUSE}", address, "--quiet", "--output=json"]
        command += [f"--output-path={report}", "--disable-full-page-screenshot"]
        command += ["--chrome-flags=--headless=new --no-sandbox --disable-dev-shm-usage"]
        done = subprocess.run(
            command, env={**os.environ, "CHROME_PATH": find_browser()}, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"Lighthouse failed on {address}:\n{done.stderr}")
        return json.loads(report.read_text("utf-8"))


def figures_of(report):
    """The figures of one run, in seconds and kilobytes, and what keeps a score below 100."""
    audits = report["audits"]
    value = {name: audits[name]["numericValue"] for name in audits if "numericValue" in audits[name]}
    requests = audits["network-requests"]["details"]["items"]
    blocking = audits["render-blocking-resources"].get("details", {}).get("items", [])
    failed = {
        audit["id"]
        for name in CATEGORIES[1:]
        for audit in report["categories"][name]["auditRefs"]
        if audit["weight"] and audits[audit["id"]]["score"] not in (1, None)
    }
    return {
        **{name: round(100 * report["categories"][name]["score"]) for name in CATEGORIES},
        "kilobytes": round(value["total-byte-weight"] / 1000, 1),
        "blocking_kilobytes": round(sum(item["totalBytes"] for item in blocking) / 1000, 1),
        "requests": len(requests),
        "first_paint": round(value["first-contentful-paint"] / 1000, 2),
        "largest_paint": round(value["largest-contentful-paint"] / 1000, 2),
        "blocked": round(value["total-blocking-time"] / 1000, 2),
        "layout_shift": round(value["cumulative-layout-shift"], 3),
        "failed": sorted(failed),
    }


def medians(runs):
    """The median of each figure; what failed in any run."""
    result = {name: statistics.median(run[name] for run in runs) for name in runs[0] if name != "failed"}
    return {**result, "failed": sorted({name for run in runs for name in run["failed"]})}


def missed(page):
    """The targets that a page misses, in words."""
    words = [f"{name} {page[name]:g} < {target}" for name, target in TARGETS.items() if page[name] < target]
    if page["kilobytes"] > MOST_KILOBYTES:
        words.append(f"{page['kilobytes']:g} kB > {MOST_KILOBYTES} kB")
    if page["layout_shift"] > 0:
        words.append(f"layout shift {page['layout_shift']:g}")
    return words + page["failed"]


def measure(html, pages, runs, npx):
    measured = {}
    with serve_compressed(html) as address:
        for page in pages:
            reports = [lighthouse(f"{address}/{page}", npx) for _ in range(runs)]
            one = measured[page] = medians([figures_of(report) for report in reports])
            print(
                f"{page}: {', '.join(f'{one[name]:g}' for name in CATEGORIES)}; {one['kilobytes']:.0f} kB, "
                f"first paint {one['first_paint']} s, largest {one['largest_paint']} s",
                *(["MISSED:", ", ".join(missed(one))] if missed(one) else []),
                flush=True,
            )
    return {
        "machine": {
            "date": str(date.today()),
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "system": platform.system(),
            "browser": reports[-1]["environment"]["hostUserAgent"].split("HeadlessChrome/")[-1].split()[0],
            "lighthouse": reports[-1]["lighthouseVersion"],
        },
        "runs": runs,
        "pages": measured,
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--html", type=Path, default=ROOT / "_build" / "html", help="the built pages")
    parser.add_argument("--pages", nargs="+", default=[], help="only pages whose address has one of these")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=Path, help="where the results go")
    options = parser.parse_args(arguments)
    npx = shutil.which("npx")
    if npx is None or find_browser() is None:
        print(
            f"Skipped: {'Node (npx)' if npx is None else 'Chromium'} is not installed; nothing was measured."
        )
        return
    pages = [
        page
        for page in pages_of(options.html)
        if not options.pages or any(part in page for part in options.pages)
    ]
    if not pages:
        sys.exit(f"No pages in {options.html}: run `make book` first.")
    results = measure(options.html, pages, options.runs, npx)
    target = options.output or (None if options.pages else ROOT / "results" / "page_speed.json")
    if target:
        write_json(target, results)
    below = [page for page, one in results["pages"].items() if missed(one)]
    print(f"{len(results['pages']) - len(below)} of {len(results['pages'])} pages reach every target.")


if __name__ == "__main__":
    main()
