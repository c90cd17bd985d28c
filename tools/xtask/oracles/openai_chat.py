"""Asks through `vitrine proxy` with OpenAI's own client: python openai_chat.py BASE_URL PROMPT TOKENS.

Prints what it got as one JSON object: the same question whole and streamed, and what the answers said of themselves.
"""

import json
import sys

from openai import OpenAI

base_url, prompt, tokens = sys.argv[1], sys.argv[2], int(sys.argv[3])
client = OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=170)
model = client.models.list().data[0].id
question = {
    "model": model,
    "messages": [{"role": "user", "content": prompt}],
    "max_tokens": tokens,
    "temperature": 0,
}

raw = client.chat.completions.with_raw_response.create(**question)
whole = raw.parse()

pieces, finish_reason = [], None
for chunk in client.chat.completions.create(**question, stream=True):
    for choice in chunk.choices:
        pieces.append(choice.delta.content or "")
        finish_reason = choice.finish_reason or finish_reason

completion = client.completions.create(model=model, prompt=prompt, max_tokens=tokens, temperature=0)

print(
    json.dumps(
        {
            "weaker_mode": raw.headers.get("vitrine-weaker-mode"),
            "whole": whole.choices[0].message.content,
            "whole_finish_reason": whole.choices[0].finish_reason,
            "tokens": whole.usage.completion_tokens,
            "streamed": "".join(pieces),
            "pieces": len(pieces),
            "streamed_finish_reason": finish_reason,
            "completion_tokens": completion.usage.completion_tokens,
        }
    )
)
