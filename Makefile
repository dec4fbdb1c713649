# SPDX-License-Identifier: GPL-3.0-or-later
# Every target works as the only command on a fresh clone. The work is done by tools/make.py, which runs with
# any Python 3.11 or newer and also without make:  python tools/make.py demo

ifndef PYTHON
# Tried by running them: a version manager's stand-in on PATH may exist and yet fail.
PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$p" && break; done)
endif

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint extension repository messages examples screenshots env tiny clean distclean python

help:
	@echo 'make demo        a Blender scene becomes a 48-frame video with koshi-tiny (out/), nothing to download by hand'
	@echo 'make test        every test, in real Blender too;  PYTEST_ARGS="-k schedules -x" goes to pytest'
	@echo 'make lint        ruff and mypy'
	@echo 'make extension   dist/koshi-0.1.0.zip, made by the builder that comes with Blender'
	@echo 'make repository  dist/repository: the zip with an index, to install and update from;  FOLDER=... for another place'
	@echo 'make messages    panels/locale: the texts for translators, and what the translations lack'
	@echo 'make examples    out/examples: four .blend files to render and learn from;  FOLDER=... for another place'
	@echo 'make screenshots docs/images: the pictures of the guide, taken in the window of KOSHI_BLENDER (CONTRIBUTING.md)'
	@echo 'make env         only the Python environment of the backend: .venv'
	@echo 'make tiny        trains koshi-tiny from nothing into training/run (6 hours, with a GPU less);  MINUTES=20 for less'
	@echo 'make clean       remove what was made (out, dist, caches);  make distclean: the environments too'
	@echo
	@echo 'BLENDER=/path/to/blender   use this Blender (4.2 or newer) for demo and extension'
	@echo 'PYTHON311=, PYTHON313=     use these Python interpreters for the environments'

demo test lint extension repository messages examples screenshots env tiny: python
	@"$(PYTHON)" tools/make.py $@ $(if $(filter test,$@),$(PYTEST_ARGS)) $(if $(filter tiny,$@),$(if $(MINUTES),--minutes $(MINUTES))) $(if $(filter repository examples screenshots,$@),$(if $(FOLDER),"$(FOLDER)"))

clean:
	rm -rf out dist build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv .venv-blender-*

python:
	@test -n "$(PYTHON)" || { echo 'Koshi needs Python 3.11, 3.12 or 3.13: install python3.11 and python3.11-venv, or name one: make PYTHON=/path/to/python3.11'; exit 1; }
