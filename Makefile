# The two commands of the README; each does all the set-up that it needs.
#
#   make demo    run the main job on a sample image, results in demo-output/
#   make test    run the linters and the tests, build the documentation, through tox
#
# Another Python than python3: rm -rf .venv, then make test PYTHON=python3.12

SHELL := /bin/bash
PYTHON ?= python3
UV := .venv/bin/uv

# What a headless Qt window with OpenGL needs, by Debian's names.
WINDOW_PACKAGES := \
	xvfb xauth libgl1 libegl1 libglx-mesa0 libgl1-mesa-dri libglib2.0-0 \
	libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 \
	libxcb-render-util0 libxcb-xinerama0 libxcb-shape0 libxcb-randr0 libdbus-1-3 \
	libfontconfig1

# Linux without a display: a virtual one.
ifeq ($(shell uname -s)$(DISPLAY),Linux)
XVFB := xvfb-run -a -s "-screen 0 1400x900x24"
endif

# uv does not read pip's settings: where only pip knows the registry, it is told.
define KNOW_REGISTRY
index="$${UV_DEFAULT_INDEX:-$${UV_INDEX_URL:-$${PIP_INDEX_URL:-$$( \
	.venv/bin/python -m pip config get global.index-url 2>/dev/null)}}}"; \
[ -z "$$index" ] || export UV_DEFAULT_INDEX="$$index"
endef

.PHONY: help demo test system
.DEFAULT_GOAL := help

help:
	@echo "make demo    run the main job on a sample image, results in demo-output/"
	@echo "make test    run the linters and the tests, build the documentation"

demo: .venv/installed
	.venv/bin/napari-sac demo --output demo-output

test: .venv/tools
	@$(KNOW_REGISTRY); \
	$(XVFB) .venv/bin/tox run

# Debian's Python comes without ensurepip. Later releases than 12 add t64 to some names.
system:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "napari-sac needs Python 3.11 or later; $(PYTHON) is not."; exit 1; }
	@[ "$$(uname -s)" = Linux ] || exit 0; \
	missing=(); \
	if command -v dpkg-query >/dev/null; then \
		for name in $(WINDOW_PACKAGES); do \
			dpkg-query -W -f '$${db:Status-Status}\n' $$name $${name}t64 2>/dev/null \
				| grep -qx installed || missing+=($$name); \
		done; \
		"$(PYTHON)" -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv); \
	elif ! command -v xvfb-run >/dev/null; then \
		missing=($(WINDOW_PACKAGES)); \
	fi; \
	[ $${#missing[@]} -gt 0 ] || exit 0; \
	if [ "$$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing system packages: $${missing[*]}"; \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get -qq update && \
		apt-get -qq install -y --no-install-recommends "$${missing[@]}" >/dev/null; \
	else \
		echo "Please install (Debian's names): $${missing[*]}"; \
		[ -n "$$DISPLAY" ]; \
	fi

.venv/tools: | system
	@echo "Setting up .venv"
	"$(PYTHON)" -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(KNOW_REGISTRY); \
	$(UV) pip install --quiet --python .venv tox tox-uv
	@touch $@

.venv/installed: setup.cfg pyproject.toml .venv/tools | system
	@$(KNOW_REGISTRY); \
	$(UV) pip install --python .venv --editable ".[all]"
	@touch $@
