# SPDX-License-Identifier: MIT
# A menu. What is built, and how, is said in meson.build.

ifeq ($(origin CC),default)
CC := gcc
endif
PREFIX ?= /usr/local
DESTDIR ?=
SOAK_SECONDS ?= 600
FUZZ_SECONDS ?= 600
# The interpreter that the Python package is built for: make PYTHON=python3.12
PYTHON ?= python3
# Handed to meson when a build directory is set up: -Dexamples=false ...
MESON_FLAGS ?=

BUILD := build/$(notdir $(firstword $(CC)))
CONFIGURE := MESON_FLAGS='$(MESON_FLAGS)' tools/configure
RUN := python3 tools/run_tests.py
# The extension lands beside the package, for PYTHONPATH=python.
PLACE = @for so in $(1)/python/_core*.so; do \
	cmp -s "$$so" "python/allcores/$${so\#\#*/}" || \
	cp --remove-destination "$$so" python/allcores/; done
ASAN := -Dtests=true -Db_sanitize=address,undefined
TSAN := -Dtests=true -Db_sanitize=thread

# Run under valgrind too by make test: programs that neither fork for long nor race.
VALGRIND_TESTS := test_err test_ring test_task test_map
VALGRIND_RUN := valgrind@build/gcc:$(subst $() ,$(),$(foreach t,$(VALGRIND_TESTS),$(t),))

export CC

.PHONY: all demo test bench lint asan tsan soak fuzz musl install clean help

all: ## build the library, the Python package, the examples, the benchmarks
	@PYTHON=$(PYTHON) tools/setup python
	@$(CONFIGURE) $(BUILD) -Dpython=$(PYTHON)
	@ninja -C $(BUILD)
	$(call PLACE,$(BUILD))

demo: ## show what it does
	@echo "make demo: a build, then measurements for 45 seconds"
	@PYTHON=$(PYTHON) tools/setup python
	@$(CONFIGURE) $(BUILD) -Dpython=$(PYTHON)
	@tools/quiet ninja -C $(BUILD)
	$(call PLACE,$(BUILD))
	@PYTHONPATH=python $(PYTHON) examples/python/demo.py $(BUILD)/examples/allcores-demo $(BUILD)/allcores-demo.svg

test: export CC := gcc
test: ## run all tests: gcc, clang, sanitizers, valgrind, every Python that is found
	@echo "make test: builds with gcc, clang and sanitizers, then all tests: 8 to 9 minutes on 2 idle cores"
	@CC=gcc PYTHON=$(PYTHON) tools/setup test
	@echo "interpreters: $$(tools/pythons --versions $(PYTHON))"
	@CC=gcc $(CONFIGURE) build/gcc -Dtests=true -Dpython="$$(tools/pythons $(PYTHON))"
	@CC=gcc $(CONFIGURE) build/asan $(ASAN)
	@if command -v clang >/dev/null; then CC=clang $(CONFIGURE) build/clang -Dtests=true; fi
	@tools/quiet ninja -C build/gcc
	$(call PLACE,build/gcc)
	@$(RUN) build/gcc $$(! command -v clang >/dev/null || echo build/clang:unit) \
		build/asan:unit,crash $(VALGRIND_RUN)

bench: ## measure against the alternatives, from C and from Python
	@PYTHON=$(PYTHON) tools/setup python
	@$(CONFIGURE) $(BUILD) -Dpython=$(PYTHON)
	@ninja -C $(BUILD)
	$(call PLACE,$(BUILD))
	@ninja -C $(BUILD) bench
	@$(PYTHON) bench/pool_bench.py --quick

lint: ## warnings as errors, clang-tidy, floors, comments, spelling, man page
	@tools/setup lint
	@tools/lint

asan: ## all suites but sweeps under address and undefined behaviour sanitizers
	@tools/setup sanitize
	@$(CONFIGURE) build/asan $(ASAN)
	@$(RUN) build/asan:unit,crash,model,programs

tsan: ## all suites but sweeps under the thread sanitizer
	@tools/setup sanitize
	@$(CONFIGURE) build/tsan $(TSAN)
	@$(RUN) build/tsan:unit,crash,programs

soak: ## long random runs, all sweeps in full, and what make test leaves out for other Pythons; SOAK_SECONDS=600
	@PYTHON=$(PYTHON) tools/setup soak python
	@$(CONFIGURE) $(BUILD) -Dtests=true -Dpython="$$(tools/pythons $(PYTHON))"
	@tools/quiet ninja -C $(BUILD)
	$(call PLACE,$(BUILD))
	@ALLCORES_SOAK_SECONDS=$(SOAK_SECONDS) $(RUN) $(BUILD):stress

fuzz: ## coverage-guided, over what the owner reads; FUZZ_SECONDS=600
	@tools/setup fuzz
	@tests/fuzz/fuzz.sh $(abspath build/fuzz) $(FUZZ_SECONDS)

musl: ## build with musl in place of glibc, run the examples
	@CC=musl-gcc tools/setup musl
	@CC=musl-gcc $(CONFIGURE) build/musl
	@tools/quiet ninja -C build/musl
	@$(RUN) build/musl:programs

install: ## PREFIX=/usr/local DESTDIR=
	@tools/setup build
	@$(CONFIGURE) $(BUILD) -Dprefix=$(abspath $(PREFIX))
	@DESTDIR='$(DESTDIR)' meson install -C $(BUILD)
	@if [ -z '$(DESTDIR)' ] && [ "$$(id -u)" = 0 ]; then ldconfig || :; fi

clean: ## remove what was built
	rm -rf build

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile
	@echo "make CC=clang ... uses another compiler, in its own directory"
