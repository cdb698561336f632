# Both goals work on a fresh machine with Python 3.11 or newer and nothing else installed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test results benchmark ablations docs format clean

quickstart: .venv/installed ## certify real images with the shipped model
	$(BIN)/dualrs quickstart

test: .venv/installed-dev ## lint, types, layer contract, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

results: .venv/installed ## make anew what README.md shows of the quickstart
	mkdir -p docs/results/fashion-mnist
	$(BIN)/dualrs quickstart --output docs/results/fashion-mnist > docs/results/fashion-mnist/output.txt
	$(BIN)/python scripts/update_readme.py

benchmark: .venv/installed-bench ## measure anew what benchmarks/README.md shows; wants a machine that does nothing else
	$(BIN)/python benchmarks/cost.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/sequences.py
	$(BIN)/python benchmarks/curves.py
	$(BIN)/python benchmarks/replay.py
	$(BIN)/python benchmarks/analysis.py
	$(BIN)/python benchmarks/reporting.py
	$(BIN)/python benchmarks/writing.py
	$(BIN)/python benchmarks/forecast.py
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/report.py
	$(BIN)/python scripts/update_readme.py

ablations: .venv/installed ## run what docs/results.md has no record of yet; takes hours, and goes on where it was interrupted
	$(BIN)/python benchmarks/ablations.py
	$(BIN)/python benchmarks/results_page.py

docs: .venv/installed-dev ## build the documentation into site/
	$(BIN)/mkdocs build --strict

format: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv runs

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "dualrs needs Python 3.11 or newer; run: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -e .
	touch $@

.venv/installed-dev: pyproject.toml
	@$(MAKE) --no-print-directory .venv/installed
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $@

.venv/installed-bench: pyproject.toml
	@$(MAKE) --no-print-directory .venv/installed
	$(BIN)/pip install --quiet -e '.[bench,serve]'
	touch $@
