# Every target does its own set-up in .venv; a second call is quick.
#   make demo       classify the shipped sample with the shipped model
#   make test       run the tests                   make lint    style, types, floors, the layout of the project
#   make test-fast  run those that are not slow     make bench   the speed, as ratios
#   make gui        napari and the dock
#   make fuzz       try files made to hurt for 5 minutes (MINUTES=60 make fuzz: for an hour)
#   make audit      look up the pinned dependencies in the database of known vulnerabilities
#   make compat     the tests that meet napari, with its oldest and newest release and both Qt bindings
#   make bare       the install steps, demo and test-fast in a bare Debian (as root, with debootstrap)
PYTHON ?= python3
BIN := .venv/bin

# Tests run in several processes: each with one thread, so that they do not hinder each other, and a screen of its own.
WORKERS ?= 2
PYTEST := python -m pytest -n $(WORKERS) --dist worksteal

QT_LIBRARIES := xvfb xauth libgl1 libegl1 libopengl0 libglx-mesa0 libgl1-mesa-dri libxkbcommon-x11-0 libdbus-1-3 \
  libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0 \
  libxcb-xinerama0 libxcb-xkb1 libfontconfig1 libglib2.0-0

# Environments: napari's release, then the Qt binding. What each release bounds itself, constraints.txt does not.
# PySide6 6.12.0 under Python 3.11 loses a reference to None at every call, and ends in a crash.
COMPAT := 0.6.6-pyqt6 0.6.6-pyside6 newest-pyside6
COMPAT_FREE := napari|app-model|vispy
COMPAT_NAPARI = $(patsubst %,==%,$(filter-out newest,$(firstword $(subst -, ,$*))))
COMPAT_BINDING = $(lastword $(subst -, ,$*))
COMPAT_TESTS := tests/plugin tests/test_package.py
test test-fast $(COMPAT:%=compat-%): export OMP_NUM_THREADS := 1

.PHONY: demo test test-fast lint gui bench fuzz audit bare compat $(COMPAT:%=compat-%) constraints clean

demo: .venv/core
	$(BIN)/napari-milcnn demo --out milcnn-demo

test: .venv/dev .venv/screen
	$(BIN)/$(PYTEST)

test-fast: .venv/dev .venv/screen
	$(BIN)/$(PYTEST) -m "not slow"

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry src
	$(BIN)/python tools/check_house.py
	$(BIN)/npe2 validate napari-milcnn
	$(BIN)/validate-pyproject pyproject.toml

gui: .venv/dev
	$(BIN)/napari sample_data/yeast-mitochondria.ome.tif --with napari-milcnn Classify

bench: .venv/dev
	$(BIN)/python -m benchmarks.speed.inference --quick --plot bench.png

MINUTES ?= 5
fuzz: .venv/dev
	$(BIN)/python tests/fuzz/fuzz.py --minutes $(MINUTES) --seed $$(date +%s)

audit: .venv/dev
	$(BIN)/pip install --quiet "pip-audit>=2.10"
	@$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict || { echo \
	  "make audit: a table above lists known vulnerabilities; an ERROR in its place means that the database was not" \
	  "reached, or does not know a package, and so that nothing was found out."; exit 1; }

bare:
	tools/bare.sh

compat: $(COMPAT:%=compat-%)

$(COMPAT:%=compat-%): compat-%: .venv-%/ready .venv/screen
	QT_API=$(COMPAT_BINDING) .venv-$*/bin/$(PYTEST) $(COMPAT_TESTS)

# The command that renews constraints.txt: the newest of everything, torch held where it is.
constraints:
	$(PYTHON) -m venv .venv-new
	.venv-new/bin/pip install torch==2.13.0
	.venv-new/bin/pip install ".[all,cluster,onnx,openvino,test,dev]"
	echo "# Every version that the project is tested with. Renewed by: make constraints" > constraints.txt
	.venv-new/bin/pip freeze --exclude napari-milcnn | sed 's/+cpu$$//' >> constraints.txt
	rm -rf .venv-new

clean:
	rm -rf .venv .venv-* .pytest_cache .ruff_cache .mypy_cache build dist milcnn-demo

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/core: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/dev: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[all,test,dev]"
	touch $@ .venv/core

$(COMPAT:%=.venv-%/ready): .venv-%/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-$*
	grep -vE "^($(COMPAT_FREE))==" constraints.txt > .venv-$*/constraints.txt
	echo "PySide6<6.12; python_version < '3.12'" >> .venv-$*/constraints.txt
	.venv-$*/bin/pip install --quiet --constraint .venv-$*/constraints.txt --editable ".[test]" \
	  "napari[$(COMPAT_BINDING)]$(COMPAT_NAPARI)"
	touch $@

# Qt's and the virtual screen's system libraries: installed on Debian as root, else left to the user.
.venv/screen: | .venv/bin/python
	@if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  dpkg -s $(QT_LIBRARIES) >/dev/null 2>&1 || (apt-get update -qq && apt-get install -y -qq --no-install-recommends $(QT_LIBRARIES)); \
	fi
	@command -v Xvfb >/dev/null || { echo "make test needs Xvfb: install it with your package manager"; exit 1; }
	touch $@
