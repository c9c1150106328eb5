# make demo: the main job. make test: every check. Both set up all they need, once.
.PHONY: demo test bench clean
VENV := $(or $(KCNET_VENV),.venv)
export KCNET_VENV := $(VENV)

demo:
	@./bootstrap.sh demo
	@$(VENV)/bin/kcnet demo

test:
	@./bootstrap.sh test
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python -m pytest

bench:
	@./bootstrap.sh test
	$(VENV)/bin/python benchmarks/demo_time.py
	$(VENV)/bin/python benchmarks/digits_choice.py
	$(VENV)/bin/python benchmarks/digits_mos.py
	$(VENV)/bin/python benchmarks/digits_hardware.py
	$(VENV)/bin/python benchmarks/export_scale.py
	$(VENV)/bin/python benchmarks/engine_mnist.py
	$(VENV)/bin/python benchmarks/adjoint.py
	$(VENV)/bin/python benchmarks/latency_digits.py
	$(VENV)/bin/python benchmarks/chain_digits.py
	$(VENV)/bin/python benchmarks/campaign_kills.py
	$(VENV)/bin/python benchmarks/mnist_accuracy.py
	$(VENV)/bin/python benchmarks/mnist_training.py

clean:
	rm -rf $(VENV) runs build dist
