# What a developer types. Each target prepares what it needs first (setup.sh) and is quick when that is done.

BIN := .venv/bin
# A find ends the run: undefined behaviour too. Leaks are not looked for: the interpreter itself has some at its end.
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
COMPILED_TESTS := tests/fuzz/test_fuzz_demux.py tests/fuzz/test_fuzz_framing.py tests/fuzz/test_fuzz_relay.py \
	tests/fuzz/test_fuzz_socketloop.py tests/media/test_gcm.py tests/media/test_relay*.py \
	tests/media/test_socketloop.py tests/media/test_socketloop_tcp.py tests/media/test_socketloop_faults.py

.PHONY: help run test test-interop check format fuzz fuzz-asan bench lock clean
.DEFAULT_GOAL := help

help: ## list these targets
	@echo 'make TARGET [ARGS="..."]'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST)

run: ## start the server with a demo room and print its links; ARGS="--lan --tls-self-signed" for a phone
	@./setup.sh run
	@exec $(BIN)/colloque serve --demo $(ARGS)

test: check ## every check, then every test; ARGS="tests/server -k demux" for some of them
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-interop: ## other WebRTC stacks through WHIP and WHEP: GStreamer, Pion, FFmpeg, aiortc; 500 joins and leaves
	@./setup.sh stacks
	@$(BIN)/python -m pytest tests/stacks $(ARGS)
	@COLLOQUE_JOINS=500 $(BIN)/python -m pytest tests/interop/test_media_leaks.py

check: ## formatting, lint, types of Python and of the browser's JavaScript
	@./setup.sh test
	@echo 'Checking format, lint and types'
	@$(BIN)/ruff format --check --quiet . || { echo 'Run `make format`.'; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@node_modules/.bin/tsc -p web

format: ## put the Python sources in shape
	@./setup.sh test
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

fuzz: ## the fuzz targets for longer than `make test` runs them; FUZZ_EXAMPLES=1000000
	@./setup.sh test
	@FUZZ_EXAMPLES=$(or $(FUZZ_EXAMPLES),200000) $(BIN)/python -m pytest --timeout=0 tests/fuzz $(ARGS)

fuzz-asan: ## the compiled parts under AddressSanitizer and UBSan, in a copy in build/asan; FUZZ_EXAMPLES=1000000
	@./setup.sh test
	@rm -rf build/asan && mkdir -p build/asan && cp -r server tests setup.py pyproject.toml build/asan
	@rm -f build/asan/server/media/fastpath/*.so build/asan/server/media/fastpath/*.c
	@echo 'Compiling server/media/fastpath with the sanitizers'
	@cd build/asan && CFLAGS='-g -O1 $(SANITIZE)' LDFLAGS='$(SANITIZE)' \
		../../$(BIN)/python setup.py --quiet build_ext --inplace
	@cd build/asan && FUZZ_EXAMPLES=$(or $(FUZZ_EXAMPLES),20000) PYTHONMALLOC=malloc \
		ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=32 UBSAN_OPTIONS=print_stacktrace=1 \
		LD_PRELOAD="$$(cc -print-file-name=libasan.so) $$(cc -print-file-name=libubsan.so)" \
		../../$(BIN)/python -m pytest -p no:cacheprovider --timeout=0 $(or $(ARGS),$(COMPILED_TESTS))

bench: ## benchmarks: ARGS="signalling --json FILE"; without ARGS, lists them
	@./setup.sh bench
	@$(BIN)/python -m benchmarks $(or $(ARGS),--help)

lock: ## rewrite constraints.txt from what is installed here
	@./setup.sh test
	@./setup.sh lock

clean: ## remove what was built; keeps colloque-data
	rm -rf .venv node_modules build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis test-output
	rm -f server/media/fastpath/*.so server/media/fastpath/*.c loadtest/*.so loadtest/*.c
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
