# `make demo` distils, exports and evaluates the digits; `make test` runs the suite. Both set everything up themselves.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test check fuzz reproduce relock install clean

install: $(VENV)/installed
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "dmgd needs Python 3.10 or later; try make $(MAKECMDGOALS) PYTHON=python3.12")'
	@echo "Installing dmgd, torch and the tools for tests into $(VENV). With torch for CPUs 0.4 GB are downloaded and"
	@echo "2 GB installed, which takes a few minutes; with CUDA (pip's choice on Linux) it is several times as much."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --progress-bar on -c constraints.txt -e '.[test]'
	touch $@

test: install
	$(BIN)/python -m pytest -n auto --dist loadfile

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: install
	rm -rf demo
	$(BIN)/dmgd fit-stats --source digits --k 20 --out demo/stats.safetensors
	$(BIN)/dmgd distill --source digits --ipc 10 --stats demo/stats.safetensors --out demo/run
	$(BIN)/dmgd export demo/run --format webdataset --out demo/webdataset
	$(BIN)/dmgd export demo/run --format parquet --out demo/huggingface
	$(BIN)/dmgd evaluate demo/run

# Two minutes of seeded mutations of every kind of file that is read; longer by hand: tools/mutate.py --help.
fuzz: install
	$(BIN)/python tools/mutate.py --seed 1 --minutes 2

# Distils a small set and compares it with the committed lock file; `make relock` updates that after intended changes.
REPRODUCE := --source digits --ipc 2 --method dmgd-paper --guidance-scale 1.5
reproduce relock: install
	rm -rf build/reproduce
	$(BIN)/dmgd distill $(REPRODUCE) --out build/reproduce
	$(BIN)/dmgd verify build/reproduce $(if $(filter relock,$@),--write-lock,--regenerate 4 --lock) .ci/digits.lock.json

clean:
	rm -rf $(VENV) demo build *.egg-info
