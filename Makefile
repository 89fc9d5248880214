# `make demo` and `make test` do all their own set-up; tools/setup says what it does.
SHELL := /bin/sh
PYTHON := $(or $(PYTHON),$(shell for p in python3 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done))

.PHONY: help setup demo test nano clean

help:
	@echo "make demo    simulated cell, policy and command process over ROS 2, until Ctrl-C or DEMO_S seconds"
	@echo "make test    ruff, mypy, import contract and all tests"
	@echo "make setup   what both begin with: Python packages, ROS 2, messages, into .venv"
	@echo "make nano    teach the small model from nothing, docs/nano.md; hours on two cores, goes on where it was stopped"
	@echo "make clean   remove what set-up made"

setup:
	@test -n "$(PYTHON)" || { echo "set-up: no Python 3.10, 3.11 or 3.12 found; on Debian and Ubuntu type: sudo apt-get install -y python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) tools/setup

demo: setup
	@. .venv/ros_env.sh && exec .venv/bin/internvla-a1 demo

test: setup
	@. .venv/ros_env.sh && exec .venv/bin/python tools/check.py

nano: setup
	@. .venv/ros_env.sh && exec .venv/bin/python tools/nano_recipe.py

clean:
	rm -rf .venv .venv.log .venv.lock ros2_ws/build ros2_ws/install ros2_ws/log
