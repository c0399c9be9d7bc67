# The project's commands. Each says what it does, works as root or not, and may be run again at any time.
.DEFAULT_GOAL := help
.PHONY: help quickstart test lint clean
.NOTPARALLEL:

help:
	@echo 'make quickstart   .venv, packages, data, then the quickstart sweep into runs/quickstart: verdicts and a report'
	@echo 'make test         .venv, packages, data, then all tests'
	@echo 'make lint         ruff, mypy and the layers of the imports'
	@echo 'make clean        removes caches and build outputs; keeps .venv and runs'

quickstart:
	@bash .ci/setup.sh base
	@echo '==> sweep launch quickstart --run-dir runs/quickstart --resume' >&2
	@.venv/bin/sweep launch quickstart --run-dir runs/quickstart --resume
	@echo
	@echo 'Next:  .venv/bin/sweep ui runs/quickstart       every run in the MLflow UI'
	@echo '       .venv/bin/sweep rerun runs/quickstart    the best network, trained at full scale'
	@echo '       .venv/bin/sweep plan rules_small         what a larger sweep would cost'

test:
	@bash .ci/setup.sh dev
	@echo '==> pytest' >&2
	@.venv/bin/python -m pytest --durations=10

lint:
	@bash .ci/setup.sh dev
	@bash .ci/lint.sh

clean:
	@echo '==> removing caches and build outputs (.venv and runs stay)' >&2
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -path ./.venv -prune -o -path ./runs -prune -o -name __pycache__ -type d -exec rm -rf {} +
