"""One measurement of several sides: times, ratios, differences between the outputs, and how it is printed."""

import statistics
import time

# The largest difference between two outputs that rounding explains
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}


def take_turns(jobs, repeats, finish_work=lambda: None):
    """Run {side: function} in turns. Returns {side: list of seconds} and {side: last result}.

    ``finish_work`` waits for what a device still computes.
    """
    seconds, results = {side: [] for side in jobs}, {}
    for repeat in range(repeats):
        for side in list(jobs)[:: -1 if repeat % 2 else 1]:
            finish_work()
            start = time.perf_counter()
            results[side] = jobs[side]()
            finish_work()
            seconds[side].append(time.perf_counter() - start)
    return seconds, results


def result_of(name, work, seconds, targets, differences, **more):
    """One row of the results.

    Args:
        name (str): name of the measurement.
        work (str): what each side does.
        seconds (dict): {side: list of seconds}.
        targets (dict): {other side: how many times as fast the book should be}.
        differences (list): dicts ``what``, ``value`` and ``limit`` of the compared outputs.
    """
    medians = {side: statistics.median(values) for side, values in seconds.items()}
    return {
        "name": name,
        "work": work,
        "seconds": {side: round(value, 4) for side, value in medians.items()},
        "repeats": len(next(iter(seconds.values()))),
        "ratios": {side: round(medians[side] / medians["book"], 3) for side in targets},
        "targets": targets,
        "differences": differences,
        **more,
    }


def difference(what, a, b, limit):
    """The largest absolute difference of two tensors."""
    return {"what": what, "value": (a.float() - b.float()).abs().max().item(), "limit": limit}


def outputs_agree(measurement):
    return all(entry["value"] <= entry["limit"] for entry in measurement["differences"])


def print_measurement(measurement):
    print(f"\n{measurement['name']}: {measurement['work']}")
    for side, seconds in measurement["seconds"].items():
        print(f"  {side:13} {seconds:9.3f} s")
    for side, target in measurement["targets"].items():
        ratio = measurement["ratios"][side]
        verdict = "reached" if ratio >= target else "MISSED"
        print(f"  book against {side:13} {ratio:6.2f} times as fast, target {target:g}: {verdict}")
    for side, value in measurement.get("seconds_to_prepare", {}).items():
        print(f"  once before, {side}: {value:.3f} s")
    if above := measurement.get("seconds_above_import_torch"):
        verdict = "reached" if above["value"] <= above["limit"] else "MISSED"
        print(f"  above import torch: {above['value']:.3f} s, at most {above['limit']:g} s: {verdict}")
    for side, same in measurement.get("same_labels", {}).items():
        texts, seconds = measurement["texts"], measurement["seconds"][side]
        print(f"  {side:13} {texts / seconds:9.1f} texts a second, {same} of {texts} labels as in float32")
    limits = measurement.get("peak_memory_limit_gb", {})
    for side, value in measurement.get("peak_memory_gb", {}).items():
        if value is None:  # not every system tells it
            continue
        verdict = ""
        if side in limits:
            verdict = f", at most {limits[side]:g} GB: {'reached' if value <= limits[side] else 'MISSED'}"
        print(f"  peak memory, {side}: {value:.2f} GB{verdict}")
    for entry in measurement["differences"]:
        verdict = "same" if entry["value"] <= entry["limit"] else "DIFFERENT"
        print(f"  {entry['what']}: {entry['value']:.1e}, limit {entry['limit']:g}: {verdict}")
