# Fine-tuning GPT-2 into a text classifier: the commands of this book. `make help` lists them.

# The edition: mini (embedded checkpoint and sample, no network), or 124M, 355M, 774M, 1558M
# (OpenAI's weights and the UCI data, downloaded once).
CHECKPOINT ?= mini

# PYTHON is the interpreter that makes the environment: Python 3.10 to 3.13.
# The recipes are for a POSIX shell. On Windows, GNU make takes that of Git Bash when called there.
ifeq ($(OS),Windows_NT)
  PYTHON ?= python
  BIN := .venv/Scripts
  export PYTHONUTF8 := 1
else
  PYTHON ?= python3
  BIN := .venv/bin
endif

# Python keeps what it has compiled, also where the surroundings say no: the tests start many processes.
export PYTHONDONTWRITEBYTECODE :=

MODEL_mini  := gpt2-mini (10M)
MODEL_124M  := gpt2-small (124M)
MODEL_355M  := gpt2-medium (355M)
MODEL_774M  := gpt2-large (774M)
MODEL_1558M := gpt2-xl (1558M)
export CHOOSE_MODEL := $(MODEL_$(CHECKPOINT))
ifeq ($(CHOOSE_MODEL),)
  $(error Unknown CHECKPOINT=$(CHECKPOINT). Choose one of: mini 124M 355M 774M 1558M)
endif
ifeq ($(CHECKPOINT),mini)
  export CHOOSE_DATA := sample
  NBVAL := --nbval
  TEST_PROCESSES ?= 2
else
  export CHOOSE_DATA := uci
  # The stored outputs are those of the embedded edition: run every cell, compare none of them
  # (the notebooks assert the published numbers themselves).
  NBVAL := --nbval-lax --nbval-cell-timeout=7200
  TEST_PROCESSES ?= 1
endif

# No progress bars on the pages; solutions pass their checks. (tools/execute.py and notebooks/conftest.py
# set this themselves.)
book: export TQDM_DISABLE := 1
book: export CHECKS_MUST_HOLD := 1

BOOK_READY := .venv/book-ready
TEST_READY := .venv/test-ready

.PHONY: help install book pdf test no-avx lint notebooks bench page-speed repository lab clean

help:
	@echo "make install    make the environment in .venv; the other commands do so when it is missing"
	@echo "make book       build the book in _build/html, every notebook executed"
	@echo "make pdf        the whole book as one file, _build/pdf/book.pdf (needs Chromium or a relative)"
	@echo "make test       run the tests and check every stored output"
	@echo "make no-avx     check the stored outputs as a processor without AVX computes them"
	@echo "make lint       check the code of modules, tests and notebooks"
	@echo "make notebooks  execute all notebooks and store their outputs"
	@echo "make bench      measure the speed beside transformers, ONNX Runtime and others: results/*.json"
	@echo "make page-speed measure the built pages with Lighthouse (needs Node and Chromium): results/page_speed.json"
	@echo "make repository URL=https://github.com/OWNER/NAME   set where the book is published: buttons, badges, Colab"
	@echo "make lab        open JupyterLab"
	@echo "make clean      remove what was built (not the environment)"
	@echo "CHECKPOINT=124M make ...   the same with OpenAI's weights and the UCI data"

$(BOOK_READY): requirements.txt constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))" || \
	  { echo "Python 3.10 to 3.13 is needed, $(PYTHON) is $$($(PYTHON) --version). Set it: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	@# The pip that comes with Python may be years old: it takes half as long again, and does as well.
	-$(BIN)/python -m pip install --quiet --upgrade pip
	@# A quarter of the modules is ever imported: Python compiles these when it first does.
	$(BIN)/python -m pip install --quiet --no-compile -r requirements.txt -c constraints.txt
	@# Errors only: at each start a kernel warns that what it says to this machine is not encrypted.
	@mkdir -p .venv/etc/ipython
	@echo 'c.IPKernelApp.log_level = "ERROR"' > .venv/etc/ipython/ipython_kernel_config.py
	@touch $@

$(TEST_READY): $(BOOK_READY) tests/requirements.txt
	$(BIN)/python -m pip install --quiet --no-compile -r tests/requirements.txt -c constraints.txt
	@touch $@

install: $(TEST_READY)

book: $(BOOK_READY)
	$(BIN)/jupyter-book build . -W -n --keep-going
	@$(BIN)/python -c "import pathlib; print('The book is built. Open it:', pathlib.Path('_build/html/index.html').resolve().as_uri())"

pdf: book $(TEST_READY)
	$(BIN)/python tools/make_pdf.py

# Whole files side by side, in processes that share the cores
test: export OMP_NUM_THREADS ?= $(shell $(PYTHON) -c "import os; print(max(1, os.cpu_count() // $(TEST_PROCESSES)))")
test: $(TEST_READY)
	$(BIN)/python -m pytest $(NBVAL) --outputs-of-the-build --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder tests notebooks
ifeq ($(CHECKPOINT),124M)
	@$(BIN)/python tools/note_full_run.py
endif

# Nothing wider than SSE4.1: the sums of floating-point numbers are rounded in another order.
no-avx: export OMP_NUM_THREADS := 1
no-avx: export ATEN_CPU_CAPABILITY := default
no-avx: export MKL_CBWR := COMPATIBLE
no-avx: export ONEDNN_MAX_CPU_ISA := SSE41
no-avx: $(TEST_READY)
	$(BIN)/python -m pytest $(NBVAL) --numprocesses $(TEST_PROCESSES) --dist loadfile notebooks

lint: $(TEST_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

notebooks: $(BOOK_READY)
	$(BIN)/python tools/execute.py

bench: $(TEST_READY)
	$(BIN)/python -m pip install --quiet --no-compile -r benchmarks/requirements.txt -c constraints.txt
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/ways.py
	$(BIN)/python benchmarks/attention.py

page-speed: $(TEST_READY)
	$(BIN)/python benchmarks/page_speed.py

# The address goes through the environment, unread by make and by the shell.
ifneq ($(origin URL),undefined)
  repository: export BOOK_URL = $(value URL)
  unexport URL
endif
repository:
	@$(PYTHON) tools/set_repository.py

lab: $(BOOK_READY)
	$(BIN)/jupyter lab

clean:
	rm -rf _build .cache
