# One target a task.  Each does its own set-up in .venv and build/, without root.
#   PYTHON=…  the interpreter (3.11 or newer) instead of the one on PATH
#   CC=…      the C compiler
#   ARGS=…    further arguments of the task, e.g. make test ARGS="-k relocation -x"
MAKEFLAGS += --no-print-directory
# Nothing is written to, or run from, /tmp, which may be mounted noexec.
export TMPDIR := $(CURDIR)/build/tmp
export PYTHONDONTWRITEBYTECODE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# What is missing is found before anything starts.  A failed recipe would end with
# make's status 2; asked a question (-q), make runs nothing and ends with 1.
ifneq ($(filter-out help clean,$(MAKECMDGOALS)),)
  INTERPRETER := $(shell mkdir -p build/tmp && \
    TMPDIR=build/tmp PYTHON='$(PYTHON)' CC='$(if $(filter-out default,$(origin CC)),$(CC))' \
    sh tools/check_prerequisites)
  ifeq ($(INTERPRETER),)
    MAKEFLAGS += -q
  endif
endif

# Programs of the environment run as modules: their scripts' first lines hold a
# path, which may be too long for the kernel or hold a space.
RUN := .venv/bin/python
PREPARE := @sh tools/environment '$(INTERPRETER)'

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help build demo test test-arch test-arch-python test-glibc lint types bench bench-full bench-docs bench-check differential differential-docs machines machines-docs packages programs debug sanitize faults fuzz stress race zipapp docs wheel clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' Makefile

build: ## the package, into .venv
	$(PREPARE) build
	@$(RUN) tools/install.py release

demo: build ## load a real library of this system from its bytes, call it, unload it
	@$(RUN) tools/demo.py $(ARGS)

test: build ## the tests: C always; C++, Rust, Go and Fortran where there is a compiler
	$(PREPARE) test libraries
	@$(RUN) -m pytest -m "not slow" $(if $(ARGS),,--results=build/results/$(shell uname -m)/system.json) $(ARGS)

test-glibc: ## demo and tests in Debian's userland RELEASE=trixie, or sid; as root; RENEW=1 makes it anew; TASK=packages: that, with each Python there; with ARCH=: test-arch with its libc
	@$(if $(ARCH),$(MAKE) test-arch ARCH='$(ARCH)' ARGS='--release=$(RELEASE) $(ARGS)',$(INTERPRETER) tools/test_glibc.py $(if $(RENEW),--renew) $(if $(TASK),--task '$(TASK)') -- '$(RELEASE)')

test-arch: build ## the C tests for other machines, under qemu-user: ARCH=aarch64, riscv64 or loongarch64; all of them by default; PAGE=65536: with such pages
	$(PREPARE) test libraries
	@$(RUN) tools/machines.py $(ARCH) $(if $(PAGE),--page $(PAGE)) $(ARGS)

differential: build ## every relocated place of all system libraries, compared with the system's loader; ARCH=aarch64: of Debian's for that
	$(PREPARE) test
	@$(RUN) $(if $(ARCH),tools/machine_differential.py $(ARCH),-m pytest -m "slow or not slow" tests/differential) $(ARGS)

test-arch-python: build ## the tests of the Python package for ARCH=aarch64 or riscv64, by its Python under qemu-user
	$(PREPARE) build test
	@$(RUN) tools/machine_python.py $(or $(ARCH),aarch64) $(ARGS)

differential-docs: ## tables of relocated places in docs/machines.md, from the last make differential of each machine
	$(PREPARE) test
	@$(RUN) tools/differential_page.py

machines-docs: ## tables of docs/machines.md, from the last make test and make test-arch
	$(PREPARE) test
	@$(RUN) tools/machines_page.py

machines: build ## Debian's libraries of all machines that are known, compared with readelf; fetches them once
	$(PREPARE) test
	@$(RUN) tools/debian_libraries.py build/libraries amd64 arm64 riscv64 loong64
	@$(RUN) -m pytest -s -m "slow or not slow" tests/core/arch $(ARGS)

programs: build ## programs of Debian, and test suites of others, under the preload; installs them, with sudo; ARCH=…: that machine's, under qemu-user
	$(PREPARE) test $(if $(ARCH),,programs)
ifdef ARCH
	@PYTHONPATH=tests $(RUN) tools/machine_programs.py $(ARCH) $(ARGS)
else
	@sh tests/programs/install
	@$(RUN) -m pytest -m "slow or not slow" tests/programs $(ARGS)
endif

packages: build ## packages of PyPI imported from their wheels, unextracted, compared with their installed selves, with each Python that there is; fetches them once
	$(PREPARE) test
	@$(RUN) -m pytest -m "slow or not slow" tests/packages $(ARGS)

lint: ## style of Python and Cython, and the traps that neither Cython nor the C compiler sees
	$(PREPARE) lint
	@$(RUN) -m ruff check . $(ARGS)
	@$(RUN) -m ruff format --check .
	@PATH="$(CURDIR)/.venv/bin:$$PATH" $(RUN) -m cython_lint.cython_lint src
	@$(RUN) tools/lint_cython_traps.py src

types: ## mypy, strict
	$(PREPARE) types
	@$(RUN) -m mypy $(ARGS)

bench: build ## against the system's loader and others, in minutes; JSON in build/benchmarks
	$(PREPARE) bench
	@$(RUN) benchmarks/run.py $(ARGS)

bench-full: build ## the same with more rounds, big libraries, and up to 12,000 at once
	$(PREPARE) bench-full
	@$(RUN) benchmarks/run.py --full $(ARGS)

bench-docs: build ## tables and pictures of docs/performance.md, from the JSON of bench-full; ARGS=PATH: of another run
	@$(RUN) benchmarks/document.py $(ARGS)

bench-check: build ## has it become slower? by instructions, system calls, page faults; ARGS=--renew: these are the limits
	@$(RUN) benchmarks/check.py $(ARGS)

debug: ## a build for gdb, with the lines of the Cython source, in build/debug/site
	$(PREPARE) build
	@$(RUN) tools/install.py debug
	@echo 'Try: PYTHONPATH=build/debug/site gdb -ex "set breakpoint pending on" -ex "break DLOPEN_open" --args .venv/bin/python …'

sanitize: build ## the tests with malformed files under AddressSanitizer and UBSan
	$(PREPARE) test
	@$(RUN) tools/install.py sanitize
	@DLOPEN_SANITIZED_SITE="$(CURDIR)/build/sanitize/site" $(RUN) -m pytest -m "slow or not slow" tests/malformed $(ARGS)

faults: build ## each allocation and kernel call of the linker fails in turn; SAMPLE=N: each N-th, without AddressSanitizer
	$(PREPARE) test
	@for variant in faults $(if $(SAMPLE),,faults-sanitized); do \
	  $(RUN) tools/install.py $$variant && \
	  DLOPEN_FAULTS_SITE="$(CURDIR)/build/$$variant/site" DLOPEN_FAULTS_STRIDE=$(or $(SAMPLE),1) \
	    $(RUN) -m pytest -s -m "slow or not slow" tests/faults $(ARGS) || exit; \
	done

SECONDS := 60
fuzz: ## the linker under libFuzzer (clang): SECONDS=60 for each target; TARGETS="map files" a few
	$(PREPARE) build test
	@$(RUN) tests/fuzz/run.py --seconds $(SECONDS) $(TARGETS) $(ARGS)

stress: build ## eight threads at random for DLOPEN_STRESS_SECONDS (300)
	$(PREPARE) test
	@$(RUN) -m pytest -s -m "slow or not slow" tests/stress $(ARGS)

race: build ## the same program and the linker under ThreadSanitizer
	$(PREPARE) test
	@$(RUN) tools/install.py race
	@DLOPEN_RACE_SITE="$(CURDIR)/build/race/site" $(RUN) -m pytest -m "slow or not slow" -k race tests/stress $(ARGS)

zipapp: build ## a server with numpy and Pillow in one file, where dlopen is not installed, beside one that unpacks; fetches them
	$(PREPARE) test
	@$(RUN) -m pytest -s -m "slow or not slow" tests/served $(ARGS)

docs: ## the documentation, in build/docs; warnings are errors
	$(PREPARE) docs
	@$(RUN) -m mkdocs build --strict --site-dir build/docs $(ARGS)

wheel: ## the source archive of the last commit and the wheel from it, in dist; ARCH=aarch64, riscv64 or loongarch64: for that machine
	$(PREPARE) wheel $(if $(ARCH),build)
	@$(RUN) $(if $(ARCH),tools/machine_wheel.py $(ARCH),-m build --outdir dist) $(ARGS)

clean: ## remove all that the tasks made
	rm -rf build dist .venv .mypy_cache .ruff_cache .pytest_cache
