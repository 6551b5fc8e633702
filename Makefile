# What a developer types. Each target prepares what it needs first (setup.sh) and is quick when that is done.

BIN := .venv/bin

.PHONY: help run test check format fuzz bench lock clean
.DEFAULT_GOAL := help

help: ## list these targets
	@echo 'make TARGET [ARGS="..."]'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST)

run: ## start the server with a demo room and print its links; ARGS="--lan --tls-self-signed" for a phone
	@./setup.sh run
	@exec $(BIN)/colloque serve --demo $(ARGS)

test: check ## every check, then every test; ARGS="tests/server -k demux" for some of them
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

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
