# make demo [DATA=Task04_Hippocampus]   from nothing to a report
# make test | lint | bench | clean
SHELL := /bin/bash -o pipefail
PYTHON ?= python3
VENV := .venv
PY := $(CURDIR)/$(VENV)/bin/python
PIP := "$(PY)" -m pip --disable-pip-version-check install --quiet -c constraints.txt

# The demo trains two losses side by side, one thread each.
DATA ?=
LOSSES ?= ce nacl
EPOCHS ?= $(if $(DATA),6,16)
RUNS := runs/demo_$(if $(DATA),hippocampus,phantom)
BUNDLE := bundles/msd_hippocampus_segmentation_3d

.PHONY: demo demo-runs test test-faults lint bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/report.installed $(RUNS)/data/datalist.json
	@$(MAKE) --no-print-directory -j 2 demo-runs
	@"$(PY)" -m monai_calib report $(LOSSES:%=$(RUNS)/%) --output $(RUNS)/report.html
	@echo "The report: $(CURDIR)/$(RUNS)/report.html"

demo-runs: $(LOSSES:%=$(RUNS)/%/eval/calibration.json)

$(RUNS)/data/datalist.json:
	@mkdir -p $(RUNS)
ifeq ($(DATA),)
	"$(PY)" -m monai_calib phantom $(RUNS)/data
else
	"$(PY)" data_scripts/msd_hippocampus.py "$(DATA)" $(RUNS)/data
endif

$(RUNS)/%/eval/calibration.json: $(RUNS)/data/datalist.json
	@mkdir -p $(RUNS)/$*
	@echo "training with $*: $(CURDIR)/$(RUNS)/$*/train.log"
	@cd $(BUNDLE) && export OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore && \
	settings=(--dataset_dir "$(CURDIR)/$(RUNS)/data" --run_dir "$(CURDIR)/$(RUNS)/$*") && \
	log="$(CURDIR)/$(RUNS)/$*/train.log" && \
	{ "$(PY)" -m monai.bundle run --config_file configs/train.json "$${settings[@]}" \
	    --loss_name $* --epochs $(EPOCHS) 2>&1 && \
	  "$(PY)" -m monai.bundle run --config_file "['configs/train.json','configs/evaluate.json']" "$${settings[@]}" 2>&1; } \
	| tee "$$log" | sed -un 's/.*\(epoch .*\)/$*: \1/p' || { tail -n 40 "$$log"; exit 1; }

test: $(VENV)/dev.installed
	OMP_NUM_THREADS=1 "$(PY)" -m pytest --numprocesses 2 --dist loadfile

# Commands killed at random moments, a new seed each time; added to runs/faults.json.
test-faults: $(VENV)/dev.installed
	OMP_NUM_THREADS=1 "$(PY)" tests/faults/run.py

lint: $(VENV)/dev.installed
	"$(PY)" -m ruff check .
	"$(PY)" -m ruff format --check .
	"$(PY)" -m mypy
	"$(PY)" bundles/render.py --check

bench: $(VENV)/dev.installed
	"$(PY)" benchmarks/losses.py
	"$(PY)" benchmarks/metrics.py
	"$(PY)" benchmarks/training_step.py

clean:
	rm -rf $(VENV) runs build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch first: it is the large one, and what depends on it then finds it there.
$(VENV)/%.installed: setup.cfg constraints.txt | $(VENV)/bin/python
	$(PIP) torch
	$(PIP) -e ".[$*]"
	@touch $@
