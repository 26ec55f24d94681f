# `make help` lists what there is.

WEB_SOURCES := $(shell find web -path web/node_modules -prune -o -path web/dist -prune -o -path web/test -prune -o -type f -print)
# What npm writes last: where it is, the packages are whole.
WEB_PACKAGES := web/node_modules/.package-lock.json
TEST_PACKAGES := tests/npm/node_modules/.package-lock.json

.PHONY: help demo test test-pgbouncer planted-bugs check check-deploy check-queries web sqlx manifest schema schema-changes bench backup-drill

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: ## Start everything on this machine with sample data; ARGS="--fresh" starts over
	@scripts/install-dependencies.sh run
	@$(MAKE) --no-print-directory web
	cargo build
	@target/debug/whitemonday demo $(ARGS)

test: ## Run all tests, with a database and Redis of their own; ARGS="name" runs some
	@scripts/install-dependencies.sh test
	@$(MAKE) --no-print-directory web $(TEST_PACKAGES)
	$(if $(ARGS),,scripts/check-deploy.sh)
	cargo build
	target/debug/whitemonday test-services -- cargo nextest run $(ARGS)

test-pgbouncer: ## Run what buyers do through PgBouncer in transaction mode; ARGS="test(name)" runs some
	@scripts/install-dependencies.sh test
	@$(MAKE) --no-print-directory web $(TEST_PACKAGES)
	cargo build
	target/debug/whitemonday test-services -- scripts/test-pgbouncer.sh $(ARGS)

planted-bugs: ## Plant known bugs, one at a time, that the tests must catch; ARGS="no-fence" plants some
	@scripts/install-dependencies.sh test
	@$(MAKE) --no-print-directory web $(TEST_PACKAGES)
	cargo build
	target/debug/whitemonday test-services -- scripts/planted-bugs.sh $(ARGS)

bench: ## Measure the standard form: a stampede of 30 s, its ceilings, other designs, then reads; ARGS="--chart FILE.svg" adds to the first
	@scripts/install-dependencies.sh run
	@$(MAKE) --no-print-directory web
	cargo build --release
	@target/release/whitemonday stampede --compare $(ARGS)
	@target/release/whitemonday browse

backup-drill: ## Back up and restore a database in mid-stampede, and audit what comes out
	@scripts/install-dependencies.sh test
	@$(MAKE) --no-print-directory web
	cargo build
	target/debug/whitemonday test-services --durable -- scripts/backup-drill.sh

check: ## Formatting, lints, dependencies
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	scripts/check-dependencies.sh

check-deploy: ## Check alert rules, dashboards, docker-compose.yml, manifests and load scripts
	@scripts/install-dependencies.sh test
	scripts/check-deploy.sh

web: $(WEB_PACKAGES) web/dist/index.html ## Build the program's pages

%/node_modules/.package-lock.json: %/package.json %/package-lock.json
	cd $* && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

web/dist/index.html: $(WEB_PACKAGES) $(WEB_SOURCES)
	cd web && npm run --silent build
	@touch $@

check-queries: ## Compile the queries against a freshly migrated database: .sqlx must be what they need
	cargo build
	target/debug/whitemonday test-services -- scripts/prepare-queries.sh --check

sqlx: target/debug/whitemonday ## Renew .sqlx, which the checked queries compile against
	target/debug/whitemonday test-services -- scripts/prepare-queries.sh

# Any earlier build will do for that: it only starts the database and applies the migrations' files.
target/debug/whitemonday:
	cargo build

manifest: ## Add the operations of frontend-queries/ to its manifest, which only grows
	node scripts/manifest.mjs

schema: ## Renew schema/schema.graphql
	cargo build
	@mkdir -p schema
	target/debug/whitemonday schema > schema/schema.graphql.new
	@mv schema/schema.graphql.new schema/schema.graphql

BASE ?= origin/main
schema-changes: ## Tell what changes for clients since BASE; fails when something they use is taken away
	@mkdir -p target
	git show $(BASE):schema/schema.graphql > target/schema-before.graphql
	npx --yes --package graphql@16.15.0 --package @graphql-inspector/cli@7.0.0 graphql-inspector diff target/schema-before.graphql schema/schema.graphql
