"""The project's files agree with each other: requirements, pins, Makefile, README, workflows."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from previous_chapters import MODEL_CONFIGS

ROOT = Path(__file__).resolve().parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def requirements_in(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-r"))]


FILES = ("requirements.txt", "tests/requirements.txt", "benchmarks/requirements.txt")
REQUIRED = [requirement for file in FILES for requirement in requirements_in(file)]


@pytest.mark.parametrize("requirement", REQUIRED, ids=lambda requirement: requirement.name)
def test_required_package_is_pinned_within_its_range(requirement):
    pins = [pin for pin in requirements_in("constraints.txt") if pin.name == requirement.name]
    assert pins
    for pin in pins:
        (version,) = pin.specifier
        assert version.operator == "==" and requirement.specifier.contains(version.version)


# ---------------------------------------------------------------------------------
# Makefile
# ---------------------------------------------------------------------------------


def targets():
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.M)
    return phony.split()


def test_each_target_of_the_makefile_has_a_rule():
    assert [name for name in targets() if not re.search(rf"^{name}:", MAKEFILE, re.M)] == []


def test_help_lists_each_target():
    helped = re.findall(r'^\t@echo "make ([a-z-]+) ', MAKEFILE, re.M)
    assert sorted(["help", *helped]) == sorted(targets())


def test_editions_of_the_makefile_are_the_models_of_the_table():
    editions = re.findall(r"^MODEL_\w+ *:= *(.*)$", MAKEFILE, re.M)
    assert editions == list(MODEL_CONFIGS)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_unknown_edition_is_named():
    process = subprocess.run(
        ["make", "--dry-run", "CHECKPOINT=125M", "help"], cwd=ROOT, capture_output=True, text=True
    )
    assert process.returncode != 0
    assert "Unknown CHECKPOINT=125M. Choose one of: mini 124M 355M 774M 1558M" in process.stderr


FENCED = re.compile(r"^```.*?^```", re.M | re.S)


def commands_in(path):
    """A script or workflow, or the code in a text (fenced, or between backticks), without comments."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        text = "\n".join(FENCED.findall(text) + re.findall(r"`([^`\n]+)`", FENCED.sub("", text)))
    return re.sub(r"(^|\s)#.*", "", text)


NAMING_TARGETS = [
    path
    for pattern in ("*.md", "book/*.md", ".ci/run", ".github/workflows/*.yml")
    for path in sorted(ROOT.glob(pattern))
]


def targets_named_in(path):
    return set(re.findall(r"\bmake (?:[A-Z]+=\S+ +)*([a-z-]+)", commands_in(path)))


@pytest.mark.parametrize("path", NAMING_TARGETS, ids=lambda path: str(path.relative_to(ROOT)))
def test_targets_that_a_file_names_exist(path):
    assert targets_named_in(path) <= set(targets())


@pytest.mark.parametrize("name", ["README.md", ".ci/run"])
def test_file_names_the_two_commands(name):
    assert targets_named_in(ROOT / name) >= {"book", "test"}


def test_local_run_does_what_the_workflow_does():
    workflow = targets_named_in(ROOT / ".github" / "workflows" / "tests.yml")
    assert targets_named_in(ROOT / ".ci" / "run") >= workflow == {"lint", "book", "test"}
