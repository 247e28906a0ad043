"""Which form fits which memory, on numbers made up for the purpose."""

from __future__ import annotations

import pytest

from llada_uni.doctor.memory import FORMS, Device, Need, best_fit, this_machine

SIZES = {"float32": 64, "bfloat16": 32, "int8": 17, "float8": 17, "int4": 10}


def table() -> list[Need]:
    """A backbone of these sizes beside 2 for reading, 12 + 1 for decoding, 1 of code features, 2 and 3 to work with."""
    return [Need(form, SIZES[form], 2, 1, 1, 12, 2, 3) for form in FORMS]


def gpu(memory: float, float8: bool = False) -> Device:
    return Device("cuda", "cuda", int(memory / 0.94) + 1, float8=float8)


def cpu(memory: float) -> Device:
    return Device("cpu", "cpu", int(memory / 0.9) + 1)


def test_the_sums():
    need = table()[FORMS.index("bfloat16")]
    assert (need.writing, need.decoding) == (34, 17)
    assert (need.all, need.offload, need.two_steps, need.mapped) == (51, 50, 36, 34)


@pytest.mark.parametrize(
    ("device", "stored", "form", "way"),
    [
        (gpu(51), None, "bfloat16", ""),
        (gpu(50), None, "bfloat16", "--offload"),
        (gpu(40, float8=True), None, "float8", ""),
        (gpu(40), None, "int8", ""),
        (gpu(29), None, "int4", ""),
        (gpu(28), None, "int4", "--offload"),
        (gpu(27), None, "int8", "two steps"),
        (gpu(18), None, "int4", "two steps"),
        (gpu(10), None, None, ""),
        (gpu(90), "int8", "int8", ""),
        (gpu(40), "float8", "float8", ""),
        (cpu(90), None, "float32", ""),
        (cpu(35), None, "bfloat16", ""),
        (cpu(33), None, "int8", "quantize"),
        (cpu(18), None, "int4", "quantize"),
        (cpu(17), "int4", "int4", ""),
        (cpu(90), "float8", "int8", ""),
        (cpu(10), None, None, ""),
    ],
)
def test_the_best_that_fits(device, stored, form, way):
    fit = best_fit(table(), device, stored)
    if form is None:
        assert fit is None
        return
    assert fit.form == form and fit.needed <= device.usable
    assert (fit.quantize, fit.two_steps) == (way == "quantize", way == "two steps")
    assert ("--offload" in fit.options) == (way == "--offload")
    made = form in ("int8", "int4", "float8") and form != stored and not fit.quantize
    assert ("--quantization" in fit.options) == made
    assert ("--dtype" in fit.options) == (device.kind == "cpu" and form != "float32")


def test_this_machine_has_a_processor():
    *_, last = this_machine()
    assert last.kind == "cpu" and last.memory > 2**28 and 0 < last.usable < last.memory
