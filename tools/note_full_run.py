"""Note that the notebooks reached the published numbers on this machine: results/full_run.json.

``make test CHECKPOINT=124M`` calls it when everything has passed; the page on the two editions
shows the date. In any other setting there is nothing to note.
"""

import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
import torch  # noqa: E402

from devices import choose_device  # noqa: E402
from files import write_json  # noqa: E402
from reference_results import is_published_setting  # noqa: E402


def note(path=ROOT / "results" / "full_run.json"):
    """Write date, version of PyTorch and device, if this is the published setting."""
    if is_published_setting():
        run = {"date": str(date.today()), "torch": torch.__version__, "device": choose_device().type}
        write_json(path, run)


if __name__ == "__main__":
    note()
