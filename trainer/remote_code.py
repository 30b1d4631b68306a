"""Whether Python code that comes with a model may run here: a decision of the deployment, never of a spec."""

import os

VARIABLE = "MHPO_TRUST_REMOTE_CODE"


def is_trusted() -> bool:
    """Off unless the deployment says otherwise."""
    return os.environ.get(VARIABLE, "").lower() in {"1", "true"}
