# The project's commands. Each says what it does, works as root or not, and may be run again at any time.
.DEFAULT_GOAL := help
.PHONY: help quickstart seed test calibration faults soak lint clean
.NOTPARALLEL:

help:
	@echo 'make quickstart   .venv, packages, data, then the quickstart sweep into runs/quickstart: verdicts and a report'
	@echo 'make seed         the example of d2l.ai 8.8 as the book has it: its layers, then its training, into runs/seed'
	@echo 'make test         .venv, packages, data, then all tests'
	@echo 'make calibration  do verdicts err as rarely as they say? REPETITIONS (1000); about half an hour; writes the page'
	@echo 'make faults       every fault of the README, ROUNDS times each (5), and its table; as root, for small disks and hosts'
	@echo 'make soak         MINUTES (60) of sweeps under a random mix of faults'
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

# SMOKE=--smoke: in miniature, within a minute.
seed:
	@bash .ci/setup.sh base
	@.venv/bin/sweep show regnetx32 --resolution 96
	@echo '==> sweep launch seed $(SMOKE) --resume' >&2
	@.venv/bin/sweep launch seed $(SMOKE) --resume
	@echo
	@echo 'Next:  .venv/bin/sweep rerun runs/seed --seeds 1    on all 60,000 images, then the test set, once'

test:
	@bash .ci/setup.sh dev
	@echo '==> pytest, in two processes' >&2
	@.venv/bin/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder --durations=15

REPETITIONS ?= 1000

calibration:
	@bash .ci/setup.sh dev
	@echo '==> $(REPETITIONS) sweeps a row, into sweep/statistics/CALIBRATION.md' >&2
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 .venv/bin/python tests/benchmarks/calibration.py --repetitions $(REPETITIONS)

ROUNDS ?= 5
MINUTES ?= 60
FAULT_RECORD := .faults.jsonl

faults:
	@bash .ci/setup.sh dev
	@rm -f $(FAULT_RECORD)
	@echo '==> pytest tests/faults, $(ROUNDS) rounds' >&2
	@SWEEP_FAULT_ROUNDS=$(ROUNDS) SWEEP_FAULT_RECORD=$(CURDIR)/$(FAULT_RECORD) .venv/bin/python -m pytest -n 2 --dist loadgroup tests/faults; code=$$?; \
		.venv/bin/python tests/faults/table.py $(FAULT_RECORD) && exit $$code

soak:
	@bash .ci/setup.sh dev
	@rm -f $(FAULT_RECORD)
	@SOAK_RECORD=$(CURDIR)/$(FAULT_RECORD) .venv/bin/python tests/faults/soak.py $(MINUTES)
	@.venv/bin/python tests/faults/table.py $(FAULT_RECORD)

lint:
	@bash .ci/setup.sh dev
	@bash .ci/lint.sh

clean:
	@echo '==> removing caches and build outputs (.venv and runs stay)' >&2
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -path ./.venv -prune -o -path ./runs -prune -o -name __pycache__ -type d -exec rm -rf {} +
