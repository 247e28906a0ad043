"""Draw, ask, change and tell a story with OpenAI's SDK. Start a server first: `llada-uni serve`.

python examples/openai_client.py --base-url http://127.0.0.1:8000/v1 --out out/client
"""

from __future__ import annotations

import argparse
import base64
from pathlib import Path

from openai import OpenAI


def save(path: Path, b64: str) -> str:
    """Writes a picture; its data URI."""
    path.write_bytes(base64.b64decode(b64))
    print(path)
    return f"data:image/png;base64,{b64}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--api-key", default="none")
    parser.add_argument("--out", type=Path, default=Path("out/client"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    client = OpenAI(base_url=given.base_url, api_key=given.api_key)
    model = client.models.list().data[0].id

    prompt = "a cat at the top left and a dog at the bottom right on green"
    drawn = client.images.generate(model=model, prompt=prompt, extra_body={"seed": 1}).data[0]
    uri = save(given.out / "drawn.png", drawn.b64_json)

    question = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": "what is at the top left?"}]
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}], temperature=0)
    print(answer.choices[0].message.content)

    with (given.out / "drawn.png").open("rb") as file:
        edited = client.images.edit(model=model, image=file, prompt="replace the cat with a fox", extra_body={"seed": 1}).data[
            0
        ]
    save(given.out / "edited.png", edited.b64_json)

    story = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "tell a story about a fox and a robot"}],
        modalities=["text", "image"],  # what OpenAI calls sound is a picture here
        seed=3,
        extra_body={"max_frames": 2},
    )
    for number, part in enumerate(story.choices[0].message.content):
        if part["type"] == "text":
            print(part["text"])
        else:
            save(given.out / f"story-{number}.png", part["image_url"]["url"].partition(",")[2])


if __name__ == "__main__":
    main()
