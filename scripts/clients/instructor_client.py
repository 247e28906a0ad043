"""instructor: an answer read into a type, by the words of the model."""

import instructor
from common import API, QUESTION, case, uri
from openai import OpenAI
from structured_output import by_instructor

client = OpenAI(base_url=API, api_key="none", max_retries=0, timeout=300)
shown = [{"type": "image_url", "image_url": {"url": uri()}}, {"type": "text", "text": QUESTION}]
patched = instructor.from_openai(client, mode=instructor.Mode.JSON_SCHEMA)
case("plain answers", lambda: "cat" in patched.chat.completions.create(
    model="world", messages=[{"role": "user", "content": shown}], response_model=None).choices[0].message.content)  # fmt: skip
case("examples/structured_output.py", lambda: by_instructor(API, "world") is None)
