# Every target that needs Python sets up .venv by itself, from requirements.lock.
# Paths are relative to this file on purpose: a checkout may have spaces in its path.

PYTHON  ?= python3
PROFILE ?= toybox
WORKERS ?= 2
ARGS    ?=

VENV := .venv/bin/python
UV   := .venv/bin/uv

# Voila leaves a kernel behind each closed page: a minute without a page, and it ends.
CULL := --MappingKernelManager.cull_idle_timeout=60 --MappingKernelManager.cull_interval=20

# The caller's environment must not leak into ours.
unexport VIRTUAL_ENV CONDA_PREFIX PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET UV_PYTHON UV_SYSTEM_PYTHON

# pip reads PIP_FIND_LINKS, split at spaces; uv reads only its own, split at commas.
empty :=
comma := ,
ifneq ($(strip $(PIP_FIND_LINKS)),)
export UV_FIND_LINKS ?= $(subst $(empty) $(empty),$(comma),$(strip $(PIP_FIND_LINKS)))
endif
export UV_HTTP_TIMEOUT ?= 180

.DEFAULT_GOAL := help
.PHONY: help figures test mutants lab serve app train bench lint lock clean distclean

help: ## list the targets
	@echo 'make TARGET [ARGS="..."]'
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' Makefile | while IFS='|' read -r target does; \
		do printf '  %-10s %s\n' "$$target" "$$does"; done

figures: .venv/.stamp ## run the notebooks of a profile and draw their figures (PROFILE=toybox)
	$(VENV) -m regionlab.cli run notebooks/$(PROFILE).yaml $(ARGS)

test: .venv/.stamp ## run the tests, offline (ARGS="-k words" for some of them)
	$(VENV) -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

mutants: .venv/.stamp ## change the code bit by bit and count what tests notice (ARGS="metrics rle --most 40")
	OMP_NUM_THREADS=1 $(VENV) tests/mutants.py $(ARGS)

lab: .venv/.stamp ## open the notebooks in JupyterLab
	$(VENV) -m jupyterlab $(ARGS)

serve: .venv/.stamp ## serve the page to search with (ARGS="--images FOLDER" for pictures of your own)
	$(VENV) -m regionlab.cli serve $(ARGS)

app: .venv/.stamp ## show notebook 03 as an application to one user of this machine
	$(VENV) -m voila notebooks/03_search_by_region.ipynb --Voila.ip=127.0.0.1 $(CULL) $(ARGS)

train: .venv/.stamp ## train the Toybox models
	$(VENV) -m regionlab.cli train $(ARGS)

bench: .venv/.stamp ## measure speed and write figures/bench.json
	$(VENV) -m regionlab.cli bench $(ARGS)

lint: .venv/.stamp ## check style, format and imports, and that notebooks are stripped
	$(VENV) -m ruff check
	$(VENV) -m ruff format --check
	$(VENV) -c 'from importlinter.cli import lint_imports_command as lint; lint()'
	$(if $(wildcard notebooks/*.ipynb),$(VENV) -m nbstripout --verify --keep-id notebooks/*.ipynb)

lock: ## renew requirements.lock from pyproject.toml (ARGS=--upgrade for newer versions)
	$(create_venv)
	@$(VENV) -m pip install --quiet uv
	@cp requirements.lock .venv/lock
	$(UV) pip compile pyproject.toml --extra dev --python $(VENV) --quiet --no-header \
		--no-annotate --no-emit-index-url --no-emit-find-links -o .venv/lock $(ARGS)
	@{ echo '# Made by `make lock` from pyproject.toml and its dev extra; every other target installs it.'; \
		echo '# Neither +cpu nor CUDA libraries: the package index decides which build of torch arrives.'; \
		sed -E -e '/^(#|cuda-|nvidia-|triton)/d' -e 's/\+[a-z0-9.]+//' .venv/lock; } > requirements.lock

clean: ## remove generated data and caches, but no models and no .venv
	rm -rf data/runs data/toybox/*/ .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) \
		-prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv
	rm -rf .venv lib/*.egg-info

define create_venv
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo 'regionlab needs Python 3.11 or newer: make PYTHON=/path/to/python3' >&2; exit 1; }
@$(PYTHON) -m venv .venv
endef

# Compiled at once, as pip does it: else every process compiles torch anew where Python is told to
# write no bytecode, and the first one everywhere.
define install_with_uv
$(VENV) -m pip install --quiet uv \
	&& $(UV) pip install --compile-bytecode --python $(VENV) -r requirements.lock \
	&& $(UV) pip install --python $(VENV) --no-deps -e .
endef

define install_with_pip
$(VENV) -m pip install -r requirements.lock && $(VENV) -m pip install --no-deps -e .
endef

# The stamp comes last, so an interrupted install is taken up again.
.venv/.stamp: requirements.lock pyproject.toml
	$(create_venv)
	@$(install_with_uv) || { echo 'uv did not manage; trying pip' >&2; $(install_with_pip); }
	@touch $@
