"""Which task an ``auto`` request without a hint is about: by words, or by a small local model
(``routing.task_classifier``)."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from aiproxy.middleware.classify import classify
from aiproxy.middleware.config import Config, ConfigInvalid, Problem

_KEY: Final = "routing.task_classifier.type"


def classifier(config: Config) -> Callable[[Mapping[str, Any]], str]:
    """Return what tells the task of a request body.

    Raises:
        ConfigInvalid: the model is asked for and cannot be run here.
    """
    wanted = config.values["routing"]["task_classifier"]
    if wanted["type"] == "words":
        return classify
    from aiproxy.middleware.tasks import model  # numpy and onnxruntime: an extra

    try:
        return model.load(min_confidence=float(wanted["min_confidence"])).classify
    except model.Unavailable as why:
        file, line, column = config.where(_KEY)
        raise ConfigInvalid([Problem(file, line, column, _KEY, str(why))]) from None
