"""The official OpenAI SDK against an AIProxy endpoint: X-AI headers in, the decision out.

python examples/client_openai.py http://127.0.0.1:8080/v1
"""

import os
import sys

from openai import APIStatusError, OpenAI

PREFERENCES = {"X-AI-Routing-Strategy": "cost", "X-AI-Failover-Policy": "automatic"}


def ask(client: OpenAI, question: str) -> None:
    """A whole answer. ``with_raw_response`` gives the headers beside the parsed object."""
    raw = client.chat.completions.with_raw_response.create(
        model="auto",
        messages=[{"role": "user", "content": question}],
        extra_headers=PREFERENCES,
    )
    print("answer:  ", raw.parse().choices[0].message.content)
    print("provider:", raw.headers.get("x-ai-provider-used"))
    print("request: ", raw.headers.get("x-request-id"))


def stream(client: OpenAI, question: str) -> None:
    """A streamed answer. The last chunk carries ``x-aiproxy``."""
    told = None
    print("stream:  ", end="")
    with client.chat.completions.create(
        model="auto",
        messages=[{"role": "user", "content": question}],
        stream=True,
        extra_headers=PREFERENCES,
    ) as chunks:
        for chunk in chunks:
            told = (chunk.model_extra or {}).get("x-aiproxy", told)
            for choice in chunk.choices:
                print(choice.delta.content or "", end="", flush=True)
    print()
    print("x-aiproxy:", told)


def main(base_url: str) -> int:
    key = os.environ.get("AIPROXY_API_KEY", "unused")
    question = "What does X-AI-Max-Latency do?"
    try:
        with OpenAI(base_url=base_url, api_key=key) as client:
            ask(client, question)
            stream(client, question)
    except APIStatusError as refused:
        print(f"refused: {refused.status_code} {refused.code}: {refused.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080/v1"))
