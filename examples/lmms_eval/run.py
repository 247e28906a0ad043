"""lmms-eval with this package's model inside its process: registers the model `llada_uni`, then is lmms-eval's command line.

python examples/lmms_eval/world_task.py out/lmms --count 60
python examples/lmms_eval/run.py --model llada_uni --model_args pretrained=models/world --tasks world_questions \
    --include_path out/lmms --output_path out/lmms/results --log_samples

Any of its tasks that asks for text works (`--tasks mmstar,ai2d`). model_args: pretrained (a directory or a name on the hub),
device, dtype, concurrent (requests in one batch), seed, and every setting of text (text_steps, threshold, ...).
docs/evaluation.md says how to make an environment that has both.
"""

from __future__ import annotations

import asyncio
from typing import Any

from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models import MODEL_REGISTRY_V2
from lmms_eval.models.registry_v2 import ModelManifest
from tqdm import tqdm

from llada_uni import UniModel
from llada_uni.requests import Chat, Understand
from llada_uni.serving.scheduler.service import Service


class LladaUni(lmms):
    """Answers in batches of many requests. Arguments come from `--model_args`, as strings and numbers."""

    is_simple = False  # requests come as messages; tasks that know only images and a text are given as such

    def __init__(
        self,
        pretrained: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        concurrent: int = 16,
        seed: int = 0,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        **settings: Any,
    ) -> None:
        """batch_size, max_batch_size: lmms-eval's, without effect; settings: of `requests.Chat`. UserError for unknown ones."""
        super().__init__()
        unknown = set(settings) - set(Understand.model_fields)
        if unknown:
            raise SystemExit(f"model_args: unknown {', '.join(sorted(unknown))}")
        self.model = UniModel.from_pretrained(pretrained, device, dtype)
        self.concurrent, self.seed, self.settings = int(concurrent), int(seed), settings

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        return asyncio.run(self._all(requests))

    async def _all(self, requests: list[Instance]) -> list[GenerationResult]:
        service, room = Service(self.model), asyncio.Semaphore(self.concurrent)
        service.start()
        bar = tqdm(total=len(requests), desc="answers")

        async def one(request: Instance) -> GenerationResult:
            async with room:
                outcome = await service.submit(self._asked(request)).result()
            bar.update()
            usage = outcome.end.usage
            counts = TokenCounts(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens)
            return GenerationResult(outcome.text, counts)

        try:
            while not service.ready:
                if service.failure:
                    raise SystemExit(service.failure)
                await asyncio.sleep(0.1)
            return list(await asyncio.gather(*map(one, requests)))
        finally:
            bar.close()
            service.close()

    def _asked(self, request: Instance) -> Chat:
        _, messages_of, how, number, task, split = request.args
        messages = []
        for message in messages_of(self.task_dict[task][split][number]):
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            if any(part["type"] not in ("text", "image") for part in parts):
                raise SystemExit(f"{task}: this model has eyes and no ears; it takes text and images")
            said = [part["text"] if part["type"] == "text" else part["url"] for part in parts]
            messages.append({"role": message["role"], "content": said})
        return Chat(messages=messages, modalities=("text",), seed=self.seed, **self._sampling(dict(how)) | self.settings)

    @staticmethod
    def _sampling(how: dict[str, Any]) -> dict[str, Any]:
        """lmms-eval's generation settings in our words. Beams and penalties, which block diffusion has not, must be off."""
        if how.get("num_beams") not in (None, 1):
            raise SystemExit(f"num_beams is {how['num_beams']}: block diffusion has no beams")
        until = how.get("until") or ()
        sampled = how.get("do_sample", True) and how.get("temperature")
        given = {
            "max_tokens": how.get("max_new_tokens"),
            "temperature": float(how["temperature"]) if sampled else 0.0,
            "top_p": how.get("top_p") if sampled else None,
            "stop": [until] if isinstance(until, str) else list(until) or None,
        }
        return {name: value for name, value in given.items() if value is not None}

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError("tasks of several rounds are not supported")

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError("block diffusion has no probability of a text token by token: take tasks that generate")


def main() -> None:
    from lmms_eval.__main__ import cli_evaluate

    MODEL_REGISTRY_V2.register_manifest(ModelManifest("llada_uni", chat_class_path=f"{__name__}.LladaUni"))
    cli_evaluate()


if __name__ == "__main__":
    main()
