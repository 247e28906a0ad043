"""Many requests at once in an asyncio program: one model, one batch, answers as they are finished.

python examples/async_use.py --model models/world --out out/async
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from llada_uni import UniModel
from llada_uni.requests import Draw, Understand
from llada_uni.results import save_image
from llada_uni.serving.scheduler.service import Service


async def work(service: Service, out: Path) -> None:
    while not service.ready:
        if service.failure:
            raise SystemExit(service.failure)
        await asyncio.sleep(0.05)
    prompts = ["a cat at the top left on green", "a dog at the bottom right on pink"]
    drawn = await asyncio.gather(
        *(service.submit(Draw(prompt=prompt, seed=number)).result() for number, prompt in enumerate(prompts))
    )
    for number, outcome in enumerate(drawn):
        print(save_image(outcome.images[0].image, out / f"{number}.png"))
    asked = [
        service.submit(Understand(images=outcome.images[0].image, question="what color is the background?", seed=0))
        for outcome in drawn
    ]
    print(*[(await job.result()).text for job in asked])

    job = service.submit(Draw(prompt=prompts[0], seed=0))
    async for event in job.events():  # the same request as a stream: progress, then the image, then the end
        print(type(event).__name__, end=" ")
    print()

    # One call of the plain model, without a service: in a thread, so that the loop goes on. One at a time.
    result = await asyncio.to_thread(service.model.generate_image, prompts[1], seed=1)
    assert result.codes == drawn[1].images[0].codes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--out", type=Path, default=Path("out/async"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    service = Service(UniModel.from_pretrained(given.model))
    service.start()
    try:
        asyncio.run(work(service, given.out))
    finally:
        service.close()


if __name__ == "__main__":
    main()
