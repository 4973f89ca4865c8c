# make demo [SEED=1] [DATA=Task04_Hippocampus]   from nothing to a report
# make test | lint | docs | notebooks | bench | bundles | release | clean | test-faults | test-consumers | test-matrix
SHELL := /bin/bash -o pipefail
PYTHON ?= python3
VENV := .venv
AUDIT := .venv/audit
PY := $(CURDIR)/$(VENV)/bin/python
PIP := "$(PY)" -m pip --disable-pip-version-check install --quiet -c constraints.txt

# The demo trains with two losses side by side, corrects both, and shows all on a page. The phantom is small, and its
# networks are trained to the end without augmentation, so that it takes minutes; its true probabilities are known.
DATA ?=
SEED ?= 0
EPOCHS ?= $(if $(DATA),3,6)
NAME := $(if $(DATA),hippocampus,phantom)
RUNS := runs/demo_$(NAME)$(if $(filter-out 0,$(SEED)),_$(SEED))
PHANTOM := --cases 80 --shape 24 32 24 --ambiguity 0.25
SETTINGS := $(if $(DATA),,--set augmentation=False val_interval=$(EPOCHS))

.PHONY: demo test test-faults test-consumers test-matrix lint audit docs notebooks bench bundles release clean
.DELETE_ON_ERROR:

demo: $(VENV)/report.installed $(RUNS)/$(NAME)/datalist.json
	@OMP_NUM_THREADS=1 "$(PY)" -m monai_calib run $(RUNS)/$(NAME) $(RUNS)/run --loss_name dice_ce recommended \
		--epochs $(EPOCHS) --jobs 2 $(SETTINGS)

$(RUNS)/$(NAME)/datalist.json:
	@mkdir -p $(RUNS)
ifeq ($(DATA),)
	"$(PY)" -m monai_calib phantom $(RUNS)/$(NAME) --seed $(SEED) $(PHANTOM)
else
	"$(PY)" data_scripts/msd_hippocampus.py "$(DATA)" $(RUNS)/$(NAME)
endif

test: $(VENV)/dev.installed
	OMP_NUM_THREADS=1 "$(PY)" -m pytest --numprocesses 2 --dist loadfile

# Commands killed at random moments, a new seed each time; added to runs/faults.json.
test-faults: $(VENV)/dev.installed
	OMP_NUM_THREADS=1 "$(PY)" tests/faults/run.py

# MONAI Label, Deploy, NVFlare, MLflow, ...: each in an environment of its own, made and deleted; hours and GBs.
test-consumers: $(VENV)/dev.installed
	OMP_NUM_THREADS=1 "$(PY)" tests/consumers/run.py --page docs/consumers.md

# The suite with the lowest, pinned and highest versions and MONAI's weekly build; an hour and more, and GBs.
test-matrix:
	"$(PYTHON)" tests/matrix/run.py

lint: $(VENV)/dev.installed
	"$(PY)" -m ruff check .
	"$(PY)" -m ruff format --check .
	"$(PY)" -m mypy
	"$(PY)" bundles/render.py --check
	@$(MAKE) --no-print-directory audit

# Known vulnerabilities of what is installed, looked up from an environment beside it; without an index, nothing.
audit: $(VENV)/dev.installed
	@[ -x $(AUDIT)/bin/pip-audit ] || ("$(PY)" -m venv $(AUDIT) && $(AUDIT)/bin/python -m pip install -q pip-audit) \
		> $(VENV)/audit.log 2>&1 || { echo "audit: no package index was reached; nothing was looked up"; exit 0; }; \
	if $(AUDIT)/bin/pip-audit --progress-spinner off --path "$$(echo $(VENV)/lib/python3*/site-packages)" \
		> $(VENV)/audit.log 2>&1; then \
		all=$$(ls -d $(VENV)/lib/python3*/site-packages/*.dist-info | wc -l); \
		unknown=$$(grep -c 'could not be audited' $(VENV)/audit.log); \
		if [ $$unknown -ge $$all ]; then echo "audit: the index knows none of $$all packages; nothing was looked up"; \
		else echo "audit: none known in $$((all - unknown)) of $$all packages; the index does not know the others"; fi; \
	elif grep -q "known vulnerabilit" $(VENV)/audit.log; then cat $(VENV)/audit.log; exit 1; \
	else echo "audit: the index did not answer; nothing was looked up"; fi

# The site of docs/, studies/ and docstrings; it opens from disk. Warnings end it; its last line is the path.
docs: $(VENV)/docs.installed
	@NO_MKDOCS_2_WARNING=1 "$(PY)" -m mkdocs build
	@echo "$(CURDIR)/build/site/index.html"

# The notebooks of docs/notebooks, run in empty folders; their outputs are kept in them.
notebooks: $(VENV)/dev.installed
	"$(PY)" docs/notebooks/execute.py

bench: $(VENV)/dev.installed
	"$(PY)" benchmarks/losses.py
	"$(PY)" benchmarks/metrics.py
	"$(PY)" benchmarks/training_step.py

# A zip a bundle in dist/, for monai.bundle.download --url file:///...; without weights.
bundles: $(VENV)/dev.installed
	"$(PY)" -m monai_calib pack bundles/*_segmentation_*d --output dist

# Wheel and source distribution in dist/, of what is committed, after the tests that look into such a pair.
release: $(VENV)/dev.installed
	"$(PY)" -m pytest tests/docs/test_release_files.py tests/docs/test_version.py tests/docs/test_wheel.py
	@[ -x $(VENV)/build/bin/pyproject-build ] || \
		("$(PY)" -m venv $(VENV)/build && $(VENV)/build/bin/python -m pip install -q build)
	rm -rf build/release && mkdir -p build/release && git archive HEAD | tar x -C build/release
	$(VENV)/build/bin/pyproject-build --outdir dist build/release

clean:
	rm -rf $(VENV) runs build dist *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch first: it is the large one, and what depends on it then finds it there.
$(VENV)/%.installed: setup.cfg constraints.txt | $(VENV)/bin/python
	$(PIP) torch
	$(PIP) -e ".[$*]"
	@touch $@
