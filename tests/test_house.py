"""What holds for the whole house: our packages are ours, and the service's processes never load the training stack."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("trainer", "evaluator", "api", "worker", "cli", "migrations")
HEAVY = {"torch", "vllm", "transformers"}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_is_the_one_of_this_repository(name: str) -> None:
    """Their names are common words: another distribution's package of the same name must not be in the way."""
    package = import_module(name)
    assert package.__file__ is not None
    assert Path(package.__file__).resolve() == ROOT / name / "__init__.py"
    assert not (ROOT / name / "__init__.py").read_text()


@pytest.mark.parametrize("module", ["api.main", "worker.tasks", "cli.main", "trainer.config", "evaluator.config"])
def test_a_fresh_process_loads_no_torch(module: str) -> None:
    script = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert module.split(".", 1)[0] in loaded.split()
    assert not HEAVY & set(loaded.split())
