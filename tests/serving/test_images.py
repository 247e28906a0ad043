"""POST /v1/images/generations and /v1/images/edits: bodies of both kinds to tasks, pictures to answers, refusals in words."""

from __future__ import annotations

import pytest
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.generation.params import Sprint
from llada_uni.image.codes import ImageCodes
from llada_uni.requests import Draw, Edit, Inpaint
from llada_uni.results import Candidate, ImageEvent
from llada_uni.serving.scheduler.limits import Limits, check_request
from tests.serving.broken_pictures import noise, saved
from tests.serving.servers import (
    ask,
    data_uri,
    error_of,
    finished,
    one_picture,
    opened,
    png,
    say,
    scripted,
)

DRAW, EDIT = "/v1/images/generations", "/v1/images/edits"
RED, BLUE = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")


def hole(left: int = 2) -> Image.Image:
    """A mask of 4 x 4 pixels whose columns from `left` on are transparent."""
    mask = Image.new("RGBA", (4, 4), (255, 255, 255, 255))
    mask.paste((0, 0, 0, 0), (left, 0, 4, 4))
    return mask


def draw(script=one_picture, limits=None, **body):
    service, client = scripted(script, limits)
    return service, ask(client, DRAW, json={"prompt": "a cat"} | body)


def edit(files=None, script=one_picture, limits=None, **body):
    """As a form where there are files, else as JSON."""
    service, client = scripted(script, limits)
    body = {"prompt": "a dog"} | body
    request = {"json": body} if files is None else {"data": body, "files": files}
    return service, ask(client, EDIT, **request)


def upload(name, image):
    return (name, ("picture.png", png(image), "image/png"))


# --- drawing ---


def test_candidates_come_with_their_scores_and_are_limited():
    codes = ImageCodes((1,), 1, 1)
    found = (Candidate(3, -1.5, codes), Candidate(4, 2.25, codes))

    def script(job):
        assert (job.request.n_best, job.request.judge_question) == (2, "is it {prompt}?")
        say(ImageEvent(RED, codes, 1, seed=job.request.seed, candidates=found), finished(3))(job)

    _, response = draw(script, n_best=2, judge_question="is it {prompt}?", seed=3)
    assert response.json()["data"][0]["candidates"] == [{"seed": 3, "score": -1.5}, {"seed": 4, "score": 2.25}]
    with pytest.raises(UserError, match="n_best is 5; allowed: 4"):
        check_request(Draw(prompt="a cat", n_best=5), Limits(max_n=4))


def test_pictures_with_seeds_one_after_the_other():
    service, response = draw(n=3, seed=7, size="64x32", user="me", quality="high", background="auto", moderation="low")
    answer = response.json()
    assert response.status_code == 200, response.text
    assert [item["seed"] for item in answer["data"]] == [7, 8, 9]
    assert all(item["revised_prompt"] == "a cat" for item in answer["data"])
    assert answer["size"] == "8x4" and answer["output_format"] == "png"
    assert answer["usage"] == {
        "input_tokens": 5, "output_tokens": 21, "total_tokens": 26,
        "input_tokens_details": {"text_tokens": 5, "image_tokens": 0},
        "output_tokens_details": {"text_tokens": 21, "image_tokens": 0},
    }  # fmt: skip
    assert sorted(asked.seed for asked in service.requests) == [7, 8, 9]
    assert (service.requests[0].width, service.requests[0].height) == (64, 32)


def test_a_seed_is_drawn_and_told_where_none_is_given():
    service, response = draw()
    assert response.json()["data"][0]["seed"] == service.requests[0].seed >= 0


def test_every_setting_reaches_the_task():
    service, response = draw(
        thinking=True,
        image_steps=4,
        cfg_scale=3,
        decoder="base",
        decoder_steps=9,
        threshold=0.5,
        temperature=1,
        seed=1,
        reasoning_temperature=0.5,
    )
    assert response.status_code == 200, response.text
    assert service.requests[0] == Draw(
        prompt="a cat", thinking=True, image_steps=4, cfg_scale=3, decoder="base", decoder_steps=9, seed=1, threshold=0.5,
        temperature=1, reasoning_temperature=0.5,
    )  # fmt: skip


def test_thoughts_come_with_the_picture():
    thought = say(ImageEvent(RED, ImageCodes((1,), 1, 1), 1, reasoning="a cat, then"), finished())
    assert draw(thought, thinking=True)[1].json()["data"][0]["thinking"] == "a cat, then"


@pytest.mark.parametrize(("kind", "pil"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_formats(kind, pil):
    item = draw(output_format=kind)[1].json()["data"][0]
    assert opened(item["b64_json"]).format == pil


def test_compression_makes_files_smaller():
    noise = Image.effect_noise((64, 64), 80).convert("RGB")
    script = say(ImageEvent(noise, ImageCodes((1,), 1, 1), 1), finished())
    small, large = (
        len(draw(script, output_format="jpeg", output_compression=quality)[1].json()["data"][0]["b64_json"])
        for quality in (10, 95)
    )
    assert small < large / 2


REFUSED = [
    ({"prompt": None}, "prompt", "prompt must be a string, not null"),
    ({"prompt": 5}, "prompt", "prompt must be a string, not 5"),
    ({"n": 20}, "n", "allows 1 to 8"),
    ({"size": "big"}, "size", '"WIDTHxHEIGHT" in pixels, or "auto"'),
    ({"size": "0x64"}, "size", '"WIDTHxHEIGHT"'),
    ({"size": "64x64\n"}, "size", '"WIDTHxHEIGHT"'),
    ({"response_format": "url"}, "response_format", "pictures come as b64_json"),
    ({"background": "transparent"}, "background", "no transparent background"),
    ({"output_format": "gif"}, "output_format", "'png', 'jpeg' or 'webp', not \"gif\""),
    ({"output_compression": 50}, "output_compression", "for jpeg and webp"),
    ({"partial_images": 2}, "partial_images", "set stream to true"),
    ({"partial_images": 4, "stream": True}, "partial_images", "less than or equal to 3"),
    ({"decoder": "none"}, "decoder", "'turbo' or 'base'"),
    ({"style": "vivid"}, "style", "unknown field 'style'"),
    ({"thinkin": True}, "thinkin", "did you mean 'thinking'?"),
    ({"steps": 4}, "steps", "no field any more: use image_steps (image codes) or reasoning_steps (reasoning text)"),
]


@pytest.mark.parametrize(("body", "param", "sentence"), REFUSED, ids=[f"{row[1]}-{i}" for i, row in enumerate(REFUSED)])
def test_refused_in_words(body, param, sentence):
    service, response = draw(**body)
    assert response.status_code == 400 and not service.jobs
    assert error_of(response)["param"] == param and sentence in error_of(response)["message"]


# --- editing ---


def test_edit_as_a_form():
    service, response = edit([upload("image", RED)], n="2", seed="5", text_scale="2.5", stream="false", size="auto")
    assert response.status_code == 200, response.text
    assert [item["seed"] for item in response.json()["data"]] == [5, 6]
    asked = service.requests[0]
    assert isinstance(asked, Edit) and asked.instruction == "a dog" and asked.text_scale == 2.5
    assert asked.images[0].getpixel((0, 0))[:3] == (255, 0, 0)


def test_several_pictures_keep_their_order():
    for name in ("image", "image[]"):
        service, response = edit([upload(name, RED), upload(name, BLUE)])
        assert response.status_code == 200, response.text
        assert [image.getpixel((0, 0))[:3] for image in service.requests[0].images] == [(255, 0, 0), (0, 0, 255)]


def test_edit_as_json():
    service, response = edit(images=[data_uri(RED), {"image_url": data_uri(BLUE)}], size="64x32", rescale=0.5)
    assert response.status_code == 200, response.text
    asked = service.requests[0]
    assert len(asked.images) == 2 and (asked.width, asked.height, asked.rescale) == (64, 32, 0.5)


def test_transparent_places_of_a_mask_are_drawn_anew():
    service, response = edit([upload("image", RED), upload("mask", hole())], cfg_scale="3")
    assert response.status_code == 200, response.text
    asked = service.requests[0]
    assert isinstance(asked, Inpaint) and asked.prompt == "a dog" and asked.cfg_scale == 3
    assert [asked.mask.getpixel((x, 0)) for x in range(4)] == [0, 0, 255, 255]


def test_white_places_of_a_mask_are_drawn_anew_when_asked():
    mask = Image.new("L", (4, 4), 0)
    mask.paste(255, (0, 0, 1, 4))
    service, response = edit(image=data_uri(RED), mask=data_uri(mask), mask_mode="white")
    assert response.status_code == 200, response.text
    assert [service.requests[0].mask.getpixel((x, 0)) for x in range(4)] == [255, 0, 0, 0]


def test_nested_fields_of_a_form():
    service, _ = edit([upload("image", RED)], **{"sprint[r_text]": "1.0", "sprint[r_img]": "0.8"})
    assert service.requests[0].sprint == Sprint(r_text=1.0, r_img=0.8)


def test_a_form_may_hold_data_uris():
    service, response = edit([upload("mask", hole())], image=data_uri(BLUE))
    assert response.status_code == 200, response.text
    assert service.requests[0].image.getpixel((0, 0)) == (0, 0, 255)


def multipart(parts):
    """A form by hand: (name, file name or None, content) each."""
    body = b""
    for name, file, content in parts:
        named = "" if file is None else f'; filename="{file}"'
        body += f'--b\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + content + b"\r\n"
    service, client = scripted(one_picture)
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    return service, ask(client, EDIT, content=body + b"--b--\r\n", headers=kind)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_file_of_a_form_needs_no_name(kind):
    service, response = multipart([("image", None, saved(noise(700), kind)), ("prompt", None, b"a dog")])
    assert response.status_code == 200, response.text
    assert service.requests[0].images[0].size == (700, 700)


def test_a_file_left_empty_is_none():
    picture = ("image", "a.png", png(RED))
    for file in (None, ""):
        service, response = multipart([picture, ("mask", file, b""), ("prompt", None, b"a dog")])
        assert response.status_code == 200 and isinstance(service.requests[0], Edit), response.text
    service, response = multipart([picture, ("mask", "m.png", b""), ("prompt", None, b"a dog")])
    assert response.status_code == 400 and error_of(response)["param"] == "mask", "a named file was meant"


FORMS_REFUSED = [
    ([], {}, None, "content type must be"),
    ([upload("mask", hole())], {}, "image", "image is missing"),
    ([upload("image", RED), upload("mask", RED)], {}, "mask", "no transparent pixels"),
    ([upload("image", RED), upload("image", RED), upload("mask", hole())], {}, "mask", "one picture; 2 were given"),
    ([upload("image", RED), upload("mask", hole()), upload("mask", hole())], {}, "mask", "more than once"),
    ([upload("image", RED), upload("mask", hole())], {"text_scale": "2"}, "text_scale", "without a mask"),
    ([upload("image", RED), upload("mask", hole())], {"size": "64x64"}, "size", "that of the picture"),
    ([upload("image", RED)], {"cfg_scale": "2"}, "cfg_scale", "with a mask"),
    ([upload("image", RED)], {"n": "many"}, "n", "n must be a whole number"),
    ([upload("image", RED)], {"color": "red"}, "color", "unknown field"),
    ([upload("image", RED), upload("prompt", RED)], {}, "prompt", "must be text, not a file"),
    ([upload("image", RED)], {"sprint": "1", "sprint[r]": "1"}, "sprint[r]", "given twice"),
    ([("image", ("x.png", b"no picture", "image/png"))], {}, "image", "no picture"),
]


@pytest.mark.parametrize(("files", "body", "param", "sentence"), FORMS_REFUSED, ids=[row[3] for row in FORMS_REFUSED])
def test_forms_refused_in_words(files, body, param, sentence):
    service, response = edit(files, **body)
    assert response.status_code in (400, 415) and not service.jobs
    assert error_of(response)["param"] == param and sentence in error_of(response)["message"]


def test_more_files_than_pictures_allowed():
    response = edit([upload("image[]", RED)] * 3, limits=Limits(max_pictures=2))[1]
    assert response.status_code == 400 and "2" in error_of(response)["message"]
    response = edit([upload("image[]", RED)] * 30, limits=Limits(max_pictures=2))[1]
    assert response.status_code == 400 and error_of(response)["message"]


def test_a_broken_form():
    service, client = scripted(one_picture)
    headers = {"content-type": "multipart/form-data; boundary=x"}
    for body in (b"--y\r\nnothing", b"", b"--x\r\n\r\n"):
        response = ask(client, EDIT, content=body, headers=headers)
        assert response.status_code == 400 and error_of(response)
    response = ask(client, EDIT, content=b"x", headers={"content-type": "multipart/form-data"})
    assert response.status_code == 400 and error_of(response) and not service.jobs
