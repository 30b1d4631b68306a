"""Which graders this deployment runs: Python of a user's, and services that are called, only where it says so."""

from urllib.parse import urlsplit

from api.settings import settings
from trainer.config import Grader, MultiGrader
from trainer.grader_config import HttpGrader, PythonGrader
from trainer.strict import SpecError


def check_allowed(grader: Grader, place: str) -> None:
    """Raises SpecError below `place` for a grader, or a part of one, that this deployment does not run."""
    if isinstance(grader, MultiGrader):
        for name, part in grader.graders.items():
            check_allowed(part, f"{place}.graders.{name}")
    if isinstance(grader, PythonGrader) and not settings().python_graders:
        message = "python graders are switched off here; whoever runs the service can set MHPO_PYTHON_GRADERS=1"
        raise SpecError(f"{place}.type", message)
    if isinstance(grader, HttpGrader) and (host := urlsplit(grader.url).hostname) not in settings().grader_hosts:
        message = f"graders may not call {host!r} here; whoever runs the service can name it in MHPO_GRADER_HOSTS"
        raise SpecError(f"{place}.url", message)
