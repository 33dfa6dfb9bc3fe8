"""Ask a running server one question over its OpenAI API and show the answer and the decision.

python scripts/ask.py http://127.0.0.1:8080 "What does X-AI-Max-Latency do?"
"""

import json
import sys
import time
import urllib.error
import urllib.request

_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def wait_until_ready(base: str, patience_s: float = 60.0) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            with _NO_PROXY.open(f"{base}/readyz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                sys.exit(f"{base} did not become ready within {patience_s:g} s")
            time.sleep(0.1)


def ask(base: str, question: str) -> None:
    body = {"model": "auto", "messages": [{"role": "user", "content": question}]}
    request = urllib.request.Request(
        f"{base}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "X-AI-Multi-Provider": "enabled"},
    )
    with _NO_PROXY.open(request, timeout=60) as response:
        headers, reply = response.headers, json.load(response)
    print(f"\n> {question}\n\n{reply['choices'][0]['message']['content']}\n")
    print(f"X-AI-Provider-Used: {headers['X-AI-Provider-Used']}")
    print(f"X-AI-Model-Mapped:  {headers['X-AI-Model-Mapped']}")
    print(f"x-aiproxy:          {json.dumps(reply['x-aiproxy'])}")


if __name__ == "__main__":
    base_url, text = sys.argv[1].rstrip("/"), sys.argv[2]
    wait_until_ready(base_url)
    ask(base_url, text)
