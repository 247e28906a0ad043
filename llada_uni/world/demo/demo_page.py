"""The page of the demonstration: results in, one HTML file out, with pictures embedded and nothing fetched from elsewhere.

The results of demo.py (plain JSON) and the folder of its pictures -> demo_page.html.jinja -> HTML. Every
text of the model and of the user is escaped.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

GO_ON = """
llada-uni generate "a flat panda at the top right and a flat guitar at the bottom left" -o panda.png
llada-uni understand panda.png -q "what is at the bottom left?"
llada-uni edit panda.png -i "replace the guitar with a cake" -o cake.png
llada-uni story "a story about zoe the lion and max the bee in 3d style in three pictures" -o story
llada-uni chat --image panda.png
llada-uni --help
""".strip()

PYTHON = """from llada_uni import UniModel
model = UniModel.from_pretrained()
result = model.generate_image("a cartoon frog on pink", seed=7)
result.image.save("frog.png")
print(model.understand(result.image, "describe the picture").text)"""


def render_page(results: dict[str, Any], folder: Path) -> str:
    """The whole page. results: as `run_demo` returns them; folder: where the pictures they name lie."""
    machine = results["machine"]
    facts = [
        f"{results['parameters'] / 1e6:.1f} M parameters in the backbone",
        f"{results['seconds']:.0f} s for this page",
        f"{machine['device']}, {machine['dtype']}, {machine['threads']} threads",
        f"seed {results['seed']}",
        results["made"].replace("T", " ").replace("+00:00", " UTC"),
    ]

    def image_url(name: str) -> str:
        return "data:image/png;base64," + base64.b64encode((folder / name).read_bytes()).decode("ascii")

    environment = Environment(loader=PackageLoader("llada_uni.world.demo", "."), autoescape=True)
    environment.filters["image_url"] = image_url
    template = environment.get_template("demo_page.html.jinja")
    return template.render(results=results, facts=facts, go_on=GO_ON, python=PYTHON)
