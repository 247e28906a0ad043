"""litellm's proxy in front of the server, asked with OpenAI's SDK."""

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from common import API, PROMPT, QUESTION, case, is_png, uri
from openai import OpenAI

config = Path("proxy.yaml")
config.write_text(
    "model_list:\n  - model_name: world\n    litellm_params:\n      model: openai/world\n"
    f"      api_base: {API}\n      api_key: none\n"
)
with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
key = f"sk-{secrets.token_hex(24)}"
command = [Path(sys.executable).parent / "litellm", "--config", config, "--port", str(port), "--host", "127.0.0.1"]
with open("proxy.log", "w") as log:
    own = {"DISABLE_ADMIN_UI": "true", "LITELLM_MASTER_KEY": key}
    proxy = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | own)
try:
    for _ in range(240):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=5).close()
            break
        except OSError:
            time.sleep(1)
    client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=0, timeout=300)
    shown = [{"type": "image_url", "image_url": {"url": uri()}}, {"type": "text", "text": QUESTION}]
    said = [{"role": "user", "content": shown}]
    case(
        "chat with an image",
        lambda: "cat" in client.chat.completions.create(model="world", messages=said).choices[0].message.content,
    )
    case("stream", lambda: "cat" in "".join(
        chunk.choices[0].delta.content or ""
        for chunk in client.chat.completions.create(model="world", messages=said, stream=True) if chunk.choices))  # fmt: skip
    case("draw", lambda: is_png(client.images.generate(model="world", prompt=PROMPT).data[0].b64_json))
    case("responses", lambda: client.responses.create(model="world", input="what can you draw?").status == "completed")
finally:
    proxy.terminate()
    proxy.wait(30)
