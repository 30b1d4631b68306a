# Test processes side by side, each with PostgreSQL and Redis of its own. One: make test PYTEST_FLAGS=
PYTEST_FLAGS ?= -n auto --maxprocesses 4 --dist worksteal

.PHONY: help install demo up test test-fast check format

help:
	@echo "make demo       start everything, train the first run, show before and after, stop"
	@echo "make up         run the service in the foreground; Ctrl-C stops it"
	@echo "make test       all tests"
	@echo "make test-fast  the tests that are not marked slow"
	@echo "make check      linters, types, import borders, compose file"
	@echo "make format     format the code"

install:
	@scripts/install

demo: install
	@.venv/bin/mhpo demo

up: install
	@.venv/bin/mhpo up

test: install
	.venv/bin/python -m pytest $(PYTEST_FLAGS)

test-fast: install
	.venv/bin/python -m pytest $(PYTEST_FLAGS) -m "not slow"

check: install
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy --strict
	.venv/bin/lint-imports
	@if docker compose version >/dev/null 2>&1; then \
	  echo "docker compose config"; docker compose --env-file .env.example config --quiet; \
	else echo "check: no docker compose here; docker-compose.yml is checked by tests/cli only"; fi

format: install
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
