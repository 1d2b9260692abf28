# Targets set everything up in .venv first; a second run installs nothing.
PYTHON ?= python3
BIN := .venv/bin

# Installing compiles nothing, since most modules are never imported; the others are compiled once, and kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow lint docs guarantees mutants gpu clean

demo: .venv/demo
	$(BIN)/python examples/mnist.py

test: .venv/compiled
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

# Only files that have slow tests: importing the others takes each worker 15 seconds.
test-slow: .venv/compiled
	$(BIN)/python -m pytest -n auto --dist worksteal -m slow $$(grep -rl --include='test_*.py' mark.slow tests)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/installed
	$(BIN)/codespell *.md docs examples smoothcert
	$(BIN)/sphinx-build -n -W --keep-going -q -d docs/_build/doctrees docs docs/_build/html
	$(BIN)/python docs/check_site.py docs/_build/html

guarantees: .venv/installed
	$(BIN)/python -m tests.guarantees

mutants: .venv/installed
	$(BIN)/pip install --quiet -c constraints.txt -e ".[mutants]"
	$(BIN)/python -m tests.mutants

# Runs on the torch of the machine, which knows its GPU, and not on that of .venv.
gpu:
	PYTHONPATH=. $(PYTHON) benchmarks/gpu.py

.venv/demo: pyproject.toml constraints.txt
	@echo "Setting up .venv for the demo: this takes a minute or two."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt --upgrade pip
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e ".[examples]"
	touch $@

.venv/installed: pyproject.toml constraints.txt
	@echo "Setting up .venv: this takes a few minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt --upgrade pip
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e ".[examples,test]"
	touch $@ .venv/demo

# One process compiles modules, tests and kernels: otherwise, each worker of the tests would compile them all.
.venv/compiled: .venv/installed
	$(BIN)/python -m pytest --quiet -k "reference_bit_for_bit and 77"
	touch $@

clean:
	rm -rf .venv examples/output docs/_build docs/api docs/auto_examples docs/_static/start_*.svg
