"""The service never loads the training stack."""

import subprocess
import sys


def test_the_api_imports_no_training_code() -> None:
    script = "import sys, api.main; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"api", "evaluator", "trainer"} <= loaded
    assert not {"torch", "vllm", "transformers", "datasets", "safetensors"} & loaded


def test_the_record_can_be_used_without_the_http_stack() -> None:
    script = "import sys, api.record, api.ingest, api.queue, api.workers; print('fastapi' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
