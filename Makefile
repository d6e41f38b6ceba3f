# Each target makes .venv when it is missing; a second call starts at once.
PYTHON ?= python3
BIN := .venv/bin

# Python keeps what it has compiled, also where the shell says no: else every process compiles Ray, torch and MLflow anew.
unexport PYTHONDONTWRITEBYTECODE

# A first result in minutes on two cores: few frames, a narrow model, a small budget. On a GPU leave it all out:
#   make sweep SWEEP="--dataset boxing --trials 40"
SWEEP ?= --dataset boxing --data.frames 2400 --trials 10 --images 5000 \
	--model.hidden 32 --model.code_dim 32 --train.batch_size 16 \
	--model.quantizer ema --model.codebook_init data --model.restart_below 0.1

.PHONY: sweep test test-slow lint bench chaos clean

sweep: .venv/installed-all
	$(BIN)/python sweeps/beta_lr.py $(SWEEP)

test: .venv/installed-dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not slow" $(TESTS)

# Whole programs: Ray, trackers, browsers, kills. One after the other, for each takes all cores that it finds.
test-slow: .venv/installed-dev
	$(BIN)/python -m pytest -m slow --durations 15 $(TESTS)

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed-dev
	$(BIN)/python -m benchmarks

# Twenty kills of a sweep's driver and its processes; CHAOS="--what raylet --rounds 5" for another victim.
chaos: .venv/installed-dev
	$(BIN)/python -m benchmarks.chaos $(CHAOS)

.venv/installed-all: pyproject.toml constraints.txt bootstrap.py
	$(PYTHON) bootstrap.py all
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt bootstrap.py
	$(PYTHON) bootstrap.py dev
	@touch .venv/installed-all $@

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
