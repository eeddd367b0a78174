# What continuous integration runs, a word each; `make` alone lists them. ARGS="…" goes on to the command.

ARGS ?=
BASE ?= f33cc75
PYTHON := .venv/bin/python

.PHONY: help setup up dev demo fast test nightly lint bench

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' Makefile | expand -t 10

setup: ## make .venv, or bring it up to date, with all tools
	bash -c '. deploy/_lib.sh && need_venv dev'

up: setup ## all of Ketter on this machine, until Ctrl-C
	$(PYTHON) manage.py up $(ARGS)

dev: setup ## the same; the web server reloads changed code and shows debug pages
	$(PYTHON) manage.py up --dev $(ARGS)

demo: ## Ketter on this machine, and a real transfer to watch
	bash deploy/demo.sh $(ARGS)

fast: ## the fast lane: under 2 minutes, before every commit
	bash deploy/test.sh fast $(ARGS)

test: ## the whole, as continuous integration runs it
	bash deploy/test.sh $(ARGS)

nightly: ## everything: the largest matrices, the soak of 30 minutes
	bash deploy/test.sh nightly $(ARGS)

lint: ## all that .ci/run checks before the tests
	bash .ci/run lint

bench: setup ## is anything slower than commit BASE? 15 to 35 minutes on a quiet machine
	$(PYTHON) -m tests.bench against $(BASE) $(ARGS)
