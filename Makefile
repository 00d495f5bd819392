# One machine, two commands: `make demo` runs the whole loop, `make test` proves it.
# Every target depends on `setup`, which is quick when nothing has changed.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export OMP_NUM_THREADS ?= 1
export RECSYS_DATA ?= $(realpath ../shared/data)

DATA ?= movielens
MINUTES ?= 30
RATE ?= 7000
PACKAGES := recsys streaming feature_store training serving infra
CORE := $(wildcard recsys/table/cpp/*.h recsys/table/cpp/*.inl recsys/table/cpp/*.cpp) CMakeLists.txt
PROTOS := $(wildcard streaming/proto/*.proto serving/proto/*.proto)
DEPS := $(VENV)/.dependencies
BUILT := $(VENV)/.built

.PHONY: FORCE help setup lock proto proto-fresh lint format type test faults soak native bench check check-rest demo clean

help: ## say what each target does
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(BUILT) ## make .venv, install the pinned packages, build the native table

# torch comes first and with its own dependencies (a CPU build where one is on offer). All else is
# pinned and installed without dependencies: torchrec asks for the CUDA build of fbgemm-gpu, which
# would overwrite the CPU build in the same folder.
$(DEPS): requirements/lock.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import importlib.metadata as m; assert m.version("torch").startswith("2.13.0")' 2>/dev/null \
	  || $(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements/lock.txt
	@touch $@

# An editable install knows modules by name, so a moved or new file asks for another one.
build/.modules: FORCE
	@mkdir -p build && find $(PACKAGES) -name '*.py' | LC_ALL=C sort > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

FORCE:

$(BUILT): $(DEPS) build/.modules pyproject.toml $(CORE)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

lock: $(DEPS) ## pin every package anew from pyproject.toml
	@command -v uv >/dev/null || $(BIN)/pip install --quiet uv
	uv pip compile --quiet --no-header --no-annotate --python-version 3.11 --extra dev \
	  --override requirements/overrides.txt pyproject.toml \
	  | grep -v -E '^(torch==|triton==|nvidia-|cuda-)' > requirements/lock.txt

proto: setup ## generate the wire twins from the .proto files
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. $(PROTOS)
	$(BIN)/python -m grpc_tools.protoc -I. --grpc_python_out=. serving/proto/recommender.proto

proto-fresh: proto
	@git diff --exit-code --stat -- '*_pb2*' || (echo 'the generated wire files are stale: commit what make proto wrote' >&2; exit 1)

format: setup ## format and sort imports in place
	$(BIN)/ruff check --quiet --select I --fix . ; $(BIN)/ruff format --quiet .

lint: setup ## formatting, lint and import contracts
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/lint-imports

type: setup ## mypy --strict
	$(BIN)/mypy

test: setup ## the whole test suite
	$(BIN)/pytest -q

faults: setup ## the long fault tests: kills, outages, full disks (about half an hour)
	$(BIN)/pytest -q -m faults --timeout 1800

soak: setup ## the whole loop at a steady rate (MINUTES=30 RATE=7000): nothing may grow
	@mkdir -p build
	$(BIN)/python benchmarks/soak.py --minutes $(MINUTES) --rate $(RATE) \
	  $(if $(RECSYS_DATA),--data-dir $(RECSYS_DATA),--recipe movielens) > build/soak.json; \
	  status=$$?; cat build/soak.json; exit $$status

native: setup ## C++ tests: plain, under AddressSanitizer and under ThreadSanitizer
	@for sanitizer in none address thread; do \
	  $(BIN)/cmake -S . -B build/native-$$sanitizer -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja \
	    -DHEADRACE_TESTS=ON -DHEADRACE_SANITIZER=$$sanitizer > build/native-$$sanitizer.log 2>&1 \
	  && $(BIN)/cmake --build build/native-$$sanitizer >> build/native-$$sanitizer.log 2>&1 \
	  && $(BIN)/ctest --test-dir build/native-$$sanitizer --output-on-failure || { cat build/native-$$sanitizer.log; exit 1; }; done

bench: setup ## quick benchmarks, one JSON document each, into build/bench
	@mkdir -p build/bench
	@for script in benchmarks/bench_*.py; do $(BIN)/python $$script --quick > build/bench/$$(basename $$script .py).json || exit 1; done
	$(BIN)/python benchmarks/compare.py build/bench

check: test check-rest ## the one door: everything that CI asks, and a soak of three minutes
	$(MAKE) soak MINUTES=3 RATE=3000

check-rest: proto-fresh lint type native

demo: setup ## run the main job: stream, learn, sync, serve, report (DATA=movielens|kuairand)
	$(BIN)/headrace demo --data $(DATA) $(if $(DATA_DIR),--data-dir $(DATA_DIR)) --report build/demo/report.json

clean: ## remove what was built (not .venv, not the data cache)
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache recsys/table/_core*.so
