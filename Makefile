# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
# Everything runs in the virtual environment .venv and the build in install/, both made on demand.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# The plugins of a ROS distribution do not work with every pytest.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD := 1
.PHONY: help setup demo test coverage mutants check format docs bench faults fuzz soak weights \
        ablation clean listed_changed

# The ROS 2 distribution that is sourced, or else wheels of ROS 2.
ros := $(shell [ -n "$$ROS_DISTRO" ] && python3 -c 'import rclpy' 2> /dev/null \
                 && echo "$$ROS_DISTRO" || echo wheels)
venv := .venv/.ready-$(ros)
build := install/.ready-$(ros)

# An environment that was moved here, or whose Python is gone, is none.
ifeq ($(shell . .venv/bin/activate 2> /dev/null && [ "$$VIRTUAL_ENV" = '$(CURDIR)/.venv' ] \
          && python -S -c '' && echo whole),)
$(shell rm -f .venv/.ready-* install/.ready-*)
endif

# What the build installs by link needs a new build only when a file comes or goes.
linked := $(sort $(shell find ainet_ros config launch weights -type f \
                      -not -name '*.pyc' -not -name '*.so'))
listed := build/.linked-files
ifneq ($(linked),$(file < $(listed)))
listed_changed := listed_changed
endif

help:
	@echo "make setup  the virtual environment .venv and the build in install/; then: source env.sh"
	@echo "make demo   track a target in a generated clip, or in SEQUENCE=path/to/a/recording"
	@echo "make test   run the tests"
	@echo "make coverage  run the tests and count the lines they run"
	@echo "make mutants   change one thing of the code at a time: do the tests notice?"
	@echo "make check  run ruff and mypy"
	@echo "make format mend what ruff can mend"
	@echo "make docs   build the documentation as a site in build/site/"
	@echo "make bench  measure speed and memory on this machine; JSON in bench_output/"
	@echo "make fuzz   give a million broken inputs to all that reads input; writes docs/reliability.md"
	@echo "make soak   load the nodes for an hour and twenty minutes; writes docs/reliability.md"
	@echo "make weights DATA=recordings OUT=runs  train nano anew (PRESET=small: small): docs/training.md"
	@echo "make ablation DATA=recordings   write docs/ablation.md"
	@echo "make faults put faults to running nodes; write that section of docs/reliability.md"
	@echo "make clean  remove .venv, build/, install/ and log/"

setup: $(build)

$(venv): scripts/make_venv.sh scripts/fix_ros_wheels.py $(wildcard requirements/*.txt)
	@scripts/make_venv.sh $(ros)
	@touch $@

# A build for another ROS, or one that did not end, is no start for this one.
$(build): $(venv) $(listed_changed) scripts/colcon_build.sh env.sh CMakeLists.txt package.xml \
          $(wildcard msg/* srv/* csrc/* scripts/*)
	@[ -e $@ ] || rm -rf build install
	@scripts/colcon_build.sh
	@echo '$(linked)' > $(listed)
	@touch $@

demo: setup
	@. ./env.sh && install/lib/ainet_ros/demo $(if $(SEQUENCE),--sequence '$(SEQUENCE)')

test: setup
	@. ./env.sh && python -m pytest test

coverage: setup
	@. ./env.sh && coverage erase && coverage run -m pytest test && coverage combine -q \
	  && python test/covered.py --page docs/reliability.md

mutants: setup
	@. ./env.sh && python test/mutants.py --page docs/reliability.md

check: $(venv)
	. ./env.sh && ruff check . && ruff format --check . && mypy

format: $(venv)
	. ./env.sh && ruff check --fix . ; ruff format .

docs: $(venv)
	@. ./env.sh && sphinx-build -q -W --keep-going -c docs -d build/site/.doctrees . build/site
	@echo "make docs: build/site/index.html"

bench: setup
	@. ./env.sh && scripts/bench.sh bench_output

fuzz: setup
	@. ./env.sh && python test/fuzz.py --output "fuzz_output/$$(date +%Y%m%d-%H%M%S)" \
	  --page docs/reliability.md

soak: setup
	@. ./env.sh && python test/soak.py --page docs/reliability.md --picture docs/images/soak.png

weights: setup
	@. ./env.sh && scripts/train_weights.sh '$(DATA)' '$(OUT)' $(or $(PRESET),nano)

ablation: setup
	@. ./env.sh && scripts/training_data.sh '$(DATA)' runs/ablation/data \
	  && ainet scenes runs/ablation/scenes --seed 5000 --count 24 --frames 60 \
	  && ainet ablation config/ablation.yaml --data runs/ablation/data --sequences runs/ablation/scenes \
	       --output runs/ablation --page docs/ablation.md --workers "$$(nproc)"

faults: setup
	@. ./env.sh && python -m pytest test/test_faults.py --page docs/reliability.md

clean:
	rm -rf .venv build install log
