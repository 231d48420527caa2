"""The workflows of GitHub Actions: what each may do, which make targets it calls, and what it needs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# BaseLoader: every value is a text, also the key "on", which YAML else takes for "true"
WORKFLOWS = {path.stem: yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader) for path in FILES}
JOBS = {f"{name}/{key}": job for name, workflow in WORKFLOWS.items() for key, job in workflow["jobs"].items()}
STEPS = [(name, step) for name, job in JOBS.items() for step in job["steps"]]
# What a job may do beyond reading the repository's files, and why.
MAY = {
    "publish/address": {"contents": "write", "pages": "read"},  # commits the address once
    "publish/deploy": {"pages": "write", "id-token": "write"},  # GitHub Pages asks for both
}

each_workflow = pytest.mark.parametrize("name", WORKFLOWS)
each_job = pytest.mark.parametrize("name", JOBS)


def commands(name):
    """The commands of one job, as lines."""
    return [line.strip() for step in JOBS[name]["steps"] for line in step.get("run", "").splitlines()]


def actions(name):
    """The actions that one job uses: {action without its version: inputs of its first use}."""
    uses = [step for step in reversed(JOBS[name]["steps"]) if "uses" in step]
    return {step["uses"].split("@")[0]: step.get("with", {}) for step in uses}


def test_there_are_the_four_workflows():
    assert set(WORKFLOWS) == {"tests", "gpu", "weekly", "publish"}


# ---------------------------------------------------------------------------------
# Every workflow
# ---------------------------------------------------------------------------------


@each_workflow
def test_workflow_may_only_read_unless_a_job_says_more(name):
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    for key, job in WORKFLOWS[name]["jobs"].items():
        assert job.get("permissions") == MAY.get(f"{name}/{key}")


@each_workflow
def test_runs_of_a_workflow_do_not_overlap(name):
    assert "github.workflow" in WORKFLOWS[name]["concurrency"]["group"]


@each_workflow
def test_workflow_uses_no_secret_but_to_ask_for_the_state_of_pages(name):
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    tokens = re.findall(r".*(?:secrets\.|github\.token|GITHUB_TOKEN).*", text)
    assert [token.strip() for token in tokens] == (
        ["GH_TOKEN: ${{ github.token }}"] if name == "publish" else []
    )


@each_job
def test_job_ends_after_a_stated_time(name):
    assert 0 < int(JOBS[name]["timeout-minutes"]) < 360  # GitHub's own limit


def test_each_action_is_of_github_and_has_a_version():
    uses = [step["uses"] for _, step in STEPS if "uses" in step]
    assert uses and [use for use in uses if not re.fullmatch(r"actions/[a-z-]+@v\d+", use)] == []


def test_each_action_has_one_version():
    uses = {step["uses"] for _, step in STEPS if "uses" in step}
    assert len(uses) == len({use.split("@")[0] for use in uses})


def test_no_expression_is_pasted_into_a_script():
    # such a text becomes part of the script, whatever it holds
    assert [step["run"] for _, step in STEPS if "${{" in step.get("run", "")] == []


@each_job
def test_python_of_a_job_caches_its_packages_by_the_pins(name):
    python = actions(name).get("actions/setup-python")
    assert (python is not None) == (
        any(word in " ".join(commands(name)) for word in (".venv", "make test", "make no-avx"))
    )
    if python:
        assert (python["cache"], python["cache-dependency-path"]) == ("pip", "constraints.txt")


def test_only_the_job_that_commits_keeps_the_right_to_push():
    keeping = [
        name
        for name in JOBS
        if "actions/checkout" in actions(name)
        and actions(name)["actions/checkout"].get("persist-credentials") != "false"
    ]
    assert keeping == ["publish/address"]


@each_job
def test_files_that_decide_a_cache_exist(name):
    for step in JOBS[name]["steps"]:
        if step.get("uses", "").startswith("actions/cache@"):
            (patterns,) = re.findall(r"hashFiles\((.*?)\)", step["with"]["key"])
            for pattern in re.findall(r"'(.*?)'", patterns):
                assert list(ROOT.glob(pattern)), pattern
            ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
            assert f"{step['with']['path'].split('/')[0]}/" in ignored  # nothing of the repository


# ---------------------------------------------------------------------------------
# Each for itself
# ---------------------------------------------------------------------------------


def test_matrix_has_every_python_of_the_makefile_on_three_systems():
    matrix = WORKFLOWS["tests"]["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["system"] == ["ubuntu-latest", "macos-latest", "windows-latest"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    first, last = re.search(r"\(3, (\d+)\) <= sys.version_info\[:2\] <= \(3, (\d+)\)", makefile).groups()
    assert matrix["python"] == [f"3.{minor}" for minor in range(int(first), int(last) + 1)]
    head = (ROOT / "constraints.txt").read_text(encoding="utf-8").split("absl-py")[0]
    resolved = re.search(r"Python ([\d.]+) to ([\d.]+)", head).groups()
    assert resolved == (matrix["python"][0], matrix["python"][-1])


def test_single_python_is_the_one_of_the_stored_outputs():
    head = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (stored,) = re.findall(r"stored outputs were made with \(there: Python ([\d.]+)\)", head)
    single = [
        actions(name)["actions/setup-python"]["python-version"]
        for name in JOBS
        if "actions/setup-python" in actions(name) and name != "tests/test"
    ]
    assert [Version(version) for version in single] == [Version(stored)] * 4


def test_pull_requests_and_pushes_are_tested():
    assert set(WORKFLOWS["tests"]["on"]) == {"push", "pull_request"}
    assert commands("tests/test") == ["make lint", "make book", "make test"]
    assert JOBS["tests/test"]["defaults"]["run"]["shell"] == "bash"


def test_gpu_runs_where_a_runner_is_named_and_never_on_a_pull_request():
    assert "pull_request" not in WORKFLOWS["gpu"]["on"]
    assert JOBS["gpu/test"]["runs-on"] == "${{ vars.GPU_RUNNER }}"
    assert JOBS["gpu/test"]["if"] == "vars.GPU_RUNNER != ''"
    assert JOBS["gpu/no-runner"]["if"] == "vars.GPU_RUNNER == ''"
    assert "::notice::" in commands("gpu/no-runner")[0]
    assert "PIP_EXTRA_INDEX_URL" not in str(WORKFLOWS["gpu"])  # PyTorch with CUDA
    assert "torch.cuda.get_device_name()" in commands("gpu/test")[2]
    assert commands("gpu/test")[-1] == "make test"


def test_full_edition_runs_once_a_week():
    (schedule,) = WORKFLOWS["weekly"]["on"]["schedule"]
    minute, hour, day, month, weekday = schedule["cron"].split()
    assert (day, month) == ("*", "*") and int(weekday) in range(7)
    assert "make test CHECKPOINT=124M" in commands("weekly/full-edition")
    assert commands("weekly/no-avx") == ["make no-avx"]


def test_nothing_is_deployed_unless_every_step_before_succeeded():
    assert JOBS["publish/build"]["needs"] == "address"
    assert JOBS["publish/deploy"]["needs"] == "build"
    for name, job in JOBS.items():
        for part in (job, *job["steps"]):
            assert "continue-on-error" not in part
            assert not re.search(r"always\(|failure\(|cancelled\(", part.get("if", "")), name
    order = [step.get("run", step.get("uses")) for step in JOBS["publish/build"]["steps"]]
    assert order[-1].startswith("actions/upload-pages-artifact@")
    assert order.index("make pdf CHECKPOINT=124M") < order.index("make test")
    assert [list(actions(name)) for name in JOBS if "deploy" in name] == [["actions/deploy-pages"]]


@pytest.mark.skipif(sys.platform == "win32", reason="the job runs on Linux")
def test_a_fork_without_pages_or_the_right_to_push_is_told_what_to_set_and_does_not_fail(tmp_path):
    """The two scripts of the job run here, with programs that answer as GitHub does."""
    steps = {step.get("id"): step for step in JOBS["publish/address"]["steps"]}
    programs, output = tmp_path / "programs", tmp_path / "output"
    programs.mkdir()

    def run(step, gh="", git_push=0):
        (programs / "gh").write_text(f"#!/bin/sh\n{gh}\n")
        (programs / "git").write_text(
            f"#!/bin/sh\ncase $1 in diff) exit 1;; push) exit {git_push};; rev-parse) echo 1234;; esac\n"
        )
        for program in programs.iterdir():
            program.chmod(0o755)
        output.write_text("")
        variables = {
            "GITHUB_OUTPUT": str(output),
            "GITHUB_REPOSITORY": "a/b",
            "GITHUB_SERVER_URL": "https://github.com",
        }
        process = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", steps[step]["run"]],
            env={**os.environ, **variables, "PATH": f"{programs}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        return process.stdout, output.read_text()

    assert run("pages", gh="echo workflow") == ("", "on=true\n")
    notice, written = run("pages", gh='echo \'{"message": "Not Found"}\'; exit 1')
    assert "Settings > Pages" in notice and written == ""
    notice, written = run("pages", gh="echo legacy")  # Pages from a branch
    assert "Settings > Pages" in notice and written == ""
    assert run("commit") == ("", "commit=1234\n")
    notice, written = run("commit", git_push=1)
    assert "make repository URL=https://github.com/a/b" in notice and written == ""
    later = [step["if"] for step in JOBS["publish/address"]["steps"][1:]]
    assert set(later) == {"steps.pages.outputs.on"}
    assert JOBS["publish/build"]["if"] == "needs.address.outputs.commit"  # skipped, and deploy with it


def test_published_book_has_the_address_of_its_own_repository():
    assert 'make repository URL="$GITHUB_SERVER_URL/$GITHUB_REPOSITORY"' in commands("publish/address")
    commit = actions("publish/build")["actions/checkout"]["ref"]
    assert commit == "${{ needs.address.outputs.commit }}"
    assert JOBS["publish/address"]["outputs"] == {"commit": "${{ steps.commit.outputs.commit }}"}
