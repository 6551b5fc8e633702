# What a developer types. Each target prepares what it needs first (setup.sh) and is quick when that is done.

BIN := .venv/bin

.PHONY: help run test check format fuzz fuzz-asan bench lock clean
.DEFAULT_GOAL := help

help: ## list these targets
	@echo 'make TARGET [ARGS="..."]'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST)

run: ## start the server with a demo room and print its links; ARGS="--lan --tls-self-signed" for a phone
	@./setup.sh run
	@exec $(BIN)/colloque serve --demo $(ARGS)

test: check ## every check, then every test; ARGS="tests/server -k demux" for some of them
	@$(BIN)/python -m pytest $(ARGS)

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

fuzz-asan: ## the compiled parts' tests and fuzz targets under AddressSanitizer, in a copy in build/asan
	@./setup.sh test
	@rm -rf build/asan && mkdir -p build/asan && cp -r server tests setup.py pyproject.toml build/asan
	@rm -f build/asan/server/media/fastpath/*.so
	@cd build/asan && CFLAGS='-g -fsanitize=address,undefined -fno-omit-frame-pointer' LDFLAGS=-fsanitize=address,undefined \
		../../$(BIN)/python setup.py --quiet build_ext --inplace
	@cd build/asan && ASAN_OPTIONS=detect_leaks=0 FUZZ_EXAMPLES=$(or $(FUZZ_EXAMPLES),20000) \
		LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
		../../$(BIN)/python -m pytest -p no:cacheprovider --timeout=0 tests/fuzz/test_fuzz_demux.py \
		tests/fuzz/test_fuzz_relay.py tests/media/test_relay.py tests/media/test_relay_rewriting.py tests/media/test_socketloop.py $(ARGS)

bench: ## benchmarks: ARGS="signalling --json FILE"; without ARGS, lists them
	@./setup.sh test
	@$(BIN)/python -m benchmarks $(or $(ARGS),--help)

lock: ## rewrite constraints.txt from what is installed here
	@./setup.sh test
	@./setup.sh lock

clean: ## remove what was built; keeps colloque-data
	rm -rf .venv node_modules build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis test-output
	rm -f server/media/fastpath/*.so server/media/fastpath/*.c
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
