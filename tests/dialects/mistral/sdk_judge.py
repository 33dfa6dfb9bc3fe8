"""Run by the interpreter of ``.venvs/mistralai``: the SDK's own models read what we send and get.

From standard input ``{requests, replies, chunks}``; to standard output each of them as the model
read it and wrote it again, so that nothing the model does not know is there, or what is wrong with
a request under ``fault``.
"""

import json
import sys

from mistralai.client import models


def read(model, body):
    return model.model_validate(body).model_dump(by_alias=True, exclude_unset=True, mode="json")


def request(body):
    streams = body.get("stream")
    try:
        return read(
            models.ChatCompletionStreamRequest if streams else models.ChatCompletionRequest, body
        )
    except ValueError as error:
        return {"fault": str(error)[:2000]}


def main():
    given = json.load(sys.stdin)
    told = {
        "requests": [request(body) for body in given["requests"]],
        "replies": [read(models.ChatCompletionResponse, body) for body in given["replies"]],
        "chunks": [read(models.CompletionChunk, body) for body in given["chunks"]],
    }
    json.dump(told, sys.stdout)


main()
