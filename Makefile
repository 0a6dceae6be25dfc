# Needs Python 3.11 or later and make; everything else goes into .venv, pinned by hash.
#   make run      start Driftline on this machine
#   make check    linters, types and the tests that need no Kafka, browser, server or other process: about a minute and a half
#   make test     linters, types and all tests
#   make torture  the long form of the tests that have one, over two hours with the soak, and a table of what was tried;
#                 ONLY=test_kill for one file, ONLY="not test_soak" for all but one, TALLY=file.jsonl for the counts
#   make mutants  which changes of the code no test notices: a sample; MUTANTS="stream/join/window --each 100" for more of one
#   make bench    quality and speed beside the peers, into bench/out; BENCH="--quick" or files and options
#   make pictures the page's pictures in docs/; needs Chromium
#   make docs     docs/ as a site, in dist/docs/site: no network is needed to read it
#   make lock     take newer versions of the dependencies
#   make wheel    the sdists and the wheels, driftline's and the client's, into dist/, tried in bare Pythons: each from 3.11 on
#                 that is here; needs a network
#   make image    the container image, with its version in a label
#   make images   whether a tag in Dockerfile or docker-compose.yml has moved on from its digest; needs Docker, a network
#   make manifests  the plain manifests of deploy/kustomize, from the chart; builds Helm with Go (two minutes, once)
#   make sbom     what ships, as CycloneDX (dist/driftline.cdx.json), and docs/licences.md

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# For the bench: the last scikit-multiflow needs Python 3.8. One that runs, on the path or where pyenv keeps it.
PYTHON38 ?= $(shell for p in python3.8 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.8*/bin/python3.8; do \
	"$$p" -c '' 2>/dev/null && echo "$$p" && break; done)
# Those that a wheel is tried in, found in the same way.
PYTHONS ?= $(shell for v in 3.11 3.12 3.13 3.14; do for p in python$$v "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$v*/bin/python$$v; do \
	"$$p" -c '' 2>/dev/null && echo "$$p" && break; done; done; :)
BIN := .venv/bin
TALLY ?= torture.jsonl
# Ours, in place: the client, which has a wheel of its own, and all else.
OURS := --editable ./client --editable .
INSTALL := $(BIN)/python -m pip --disable-pip-version-check --quiet install
BENCH_INSTALL := .venv-bench/bin/python -m pip --disable-pip-version-check --quiet install

# Where this is set nothing of ours stays compiled: each of some hundred processes would compile all of it again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run check test kernels torture mutants lint bench docs pictures lock wheel image images manifests sbom clean
.DEFAULT_GOAL := run

run: .venv/run.done
	$(BIN)/driftline up

# The kernels are compiled while the linters read.
check: .venv/test.done
	@$(MAKE) --no-print-directory -j 2 lint kernels
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not beyond" $(addprefix --ignore=tests/,faults whole $(addprefix learner/,cluster follow foreign rebuild shared))

# More workers than processors: many tests wait, for a page, a broker, another process.
test: .venv/test.done
	@$(MAKE) --no-print-directory -j 2 lint kernels
	$(BIN)/python -m pytest -n 4 --dist worksteal

kernels: .venv/run.done
	$(BIN)/python -m driftline.learner.loop.warm

torture: .venv/test.done
	@rm -f $(TALLY)
	DRIFTLINE_TORTURE=1 DRIFTLINE_TALLY=$(TALLY) DRIFTLINE_SOAK_CURVE=soak.csv \
		$(BIN)/python -m pytest -m long --timeout=0 -ra $(if $(ONLY),-k "$(ONLY)"); \
		code=$$?; $(BIN)/python -m tests.faults.tally $(TALLY); exit $$code

mutants: .venv/test.done
	$(BIN)/python -m tests.mutants $(MUTANTS)

lint: .venv/test.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

pictures: .venv/test.done
	$(BIN)/python -m docs.screenshots

docs: .venv/run.done .venv-docs/done
	$(BIN)/python -m docs.commands
	.venv-docs/bin/python -m docs.build

.venv-docs/done: requirements-docs.lock
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements-docs.lock
	@touch $@

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Driftline needs Python 3.11 or later; none was found. Name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/run.done: requirements.lock pyproject.toml client/pyproject.toml | .venv/bin/python
	@echo "Installing Driftline into .venv (about a minute, once) ..."
	$(INSTALL) --require-hashes -r requirements.lock
	$(INSTALL) --no-deps --no-build-isolation $(OURS)
	@touch $@

.venv/test.done: .venv/run.done requirements-dev.lock
	@echo "Installing the test tools into .venv ..."
	$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

bench: .venv-bench/install.done
	.venv-bench/bin/python -m bench $(BENCH)

# The peers are not pinned: the newest are measured, and the report says which. One that cannot be had is left out.
# CapyMOA runs in Java: where there is none, its run says so.
.venv-bench/install.done: requirements.lock pyproject.toml client/pyproject.toml
	@test -n "$(PYTHON)" || { echo "Driftline needs Python 3.11 or later; none was found. Name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "Installing Driftline and its peers into .venv-bench ..."
	$(PYTHON) -m venv .venv-bench
	$(BENCH_INSTALL) --require-hashes -r requirements.lock
	$(BENCH_INSTALL) --no-build-isolation $(OURS)
	@for peer in bench-river bench-sklearn bench-vw; do \
		$(BENCH_INSTALL) --no-build-isolation --editable ".[$$peer]" || echo "left out: $$peer"; done
	@if [ -n "$(PYTHON38)" ]; then \
		"$(PYTHON38)" -m venv .venv-bench38 && \
		.venv-bench38/bin/python -m pip --disable-pip-version-check --quiet install scikit-multiflow "numpy<1.24" || echo "left out: scikit-multiflow"; \
	else echo "left out: scikit-multiflow, for want of python3.8 (name one: make PYTHON38=/path/to/python3.8)"; fi
	@$(PYTHON) -m venv .venv-bench-capymoa && \
		.venv-bench-capymoa/bin/python -m pip --disable-pip-version-check --quiet install "capymoa>=0.15" || \
		echo "left out: CapyMOA"
	@touch $@

lock:
	$(PYTHON) -m venv .venv/lock && .venv/lock/bin/pip --quiet install uv
	.venv/lock/bin/uv pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 pyproject.toml --extra plots --group dev --no-emit-package driftline-client --output-file requirements-dev.lock
	.venv/lock/bin/uv pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 pyproject.toml --extra plots --group build --no-emit-package driftline-client --constraint requirements-dev.lock --output-file requirements.lock
	.venv/lock/bin/uv pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --group docs --output-file requirements-docs.lock

wheel: .venv/run.done
	rm -f dist/driftline*.whl dist/driftline*.tar.gz
	$(BIN)/python -m hatchling build -d dist
	cd client && ../$(BIN)/python -m hatchling build -d ../dist
	$(BIN)/python -m tests.wheel dist $(PYTHONS)

image: .venv/run.done
	docker build --build-arg VERSION="$$($(BIN)/driftline --version | cut -d ' ' -f 2)" --tag driftline .

images:
	@sed -nE 's/.*[=-]([a-z/]+:[^@ ]+)@(sha256:[0-9a-f]{64}).*/\1 \2/p' Dockerfile docker-compose.yml | { moved=0; \
	while read -r tag digest; do \
		now=$$(docker buildx imagetools inspect "$$tag" --format '{{.Manifest.Digest}}') || exit 2; \
		if [ "$$now" = "$$digest" ]; then echo "$$tag: as it is here"; else echo "$$tag: now $$now"; moved=1; fi; \
	done; exit $$moved; }

# Those on the path are taken before these.
manifests: .venv/test.done
	helm=$$(command -v helm) || { $(MAKE) .tools/helm && helm=.tools/helm; }; $(BIN)/python deploy/kustomize/make.py --helm "$$helm"

.tools/helm:
	GOBIN=$(CURDIR)/.tools go install helm.sh/helm/v3/cmd/helm@v3.19.4

.tools/kustomize:
	GOBIN=$(CURDIR)/.tools go install sigs.k8s.io/kustomize/kustomize/v5@v5.8.1

# An environment with what ships and nothing else, made as the Dockerfile makes it. The tools stand beside it.
sbom: .venv-ships/done
	@mkdir -p dist
	.venv-ships/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --spec-version 1.6 --output-reproducible \
		--validate --output-file dist/driftline.cdx.json .venv-ships/ships/bin/python
	.venv-ships/tools/bin/pip-licenses --python .venv-ships/ships/bin/python --from mixed --with-system --order license \
		--format json --with-urls | $(PYTHON) docs/licences.py >docs/licences.md

.venv-ships/done: requirements.lock pyproject.toml client/pyproject.toml
	rm -rf .venv-ships
	$(PYTHON) -m venv .venv-ships/tools
	.venv-ships/tools/bin/python -m pip --disable-pip-version-check --quiet install cyclonedx-bom==7.5.0 pip-licenses==5.5.5
	.venv-ships/tools/bin/python -m pip --disable-pip-version-check --quiet download --require-hashes --dest .venv-ships/wheels -r requirements.lock
	$(PYTHON) -m venv --without-pip .venv-ships/ships
	.venv-ships/tools/bin/python -m pip --disable-pip-version-check --quiet --python .venv-ships/ships/bin/python \
		install --no-index --find-links .venv-ships/wheels ./client .
	@touch $@

clean:
	rm -rf .venv .venv-bench .venv-bench38 .venv-bench-capymoa .venv-docs .venv-ships .tools dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
