"""The C header beside a CPU artefact: what a C program needs, and nothing from qcc."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_C_TYPES = {
    "float32": "float",
    "float64": "double",
    "bool": "bool",
    **{f"{u}int{n}": f"{u}int{n}_t" for u in ("", "u") for n in (8, 16, 32, 64)},
}

_STATE = """/* What a model keeps from run to run, where qcc_model_info's "states" say; how to make it what it was at first. */
void *qcc_model_state(qcc_model *model);
int qcc_model_reset(qcc_model *model);

"""


def c_header(info: Mapping[str, Any], name: str) -> str:
    """Text of the header; `name` is the artefact's file name."""
    guard = "QCC_MODEL_" + (re.sub(r"\W", "_", name).upper() or "H")
    lines = [
        f"/* {name}: made by {info['producer']} for {info['cpu']}. Link with the shared object or open it with dlopen.",
        " *",
        *(f" * {_describe(kind, i, t)}" for kind in ("input", "output", "state") for i, t in enumerate(info[kind + "s"])),
        " *",
        " * Arrays are dense, in C order, and belong to the caller. A model is one running context: create one per thread.",
        " */",
    ]
    sizes = [
        f"#define QCC_MODEL_{kind.upper()}_{i}_{what} {value}"
        for kind in ("input", "output")
        for i, t in enumerate(info[kind + "s"])
        for what, value in (("ELEMENTS", _elements(t)), ("BYTES", _elements(t) * _item_bytes(t["dtype"])))
    ]
    return (
        "\n".join(lines)
        + f"""
#ifndef {guard}
#define {guard}

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define QCC_MODEL_INPUTS {len(info["inputs"])}
#define QCC_MODEL_OUTPUTS {len(info["outputs"])}
{chr(10).join(sizes)}

typedef struct qcc_model qcc_model;

/* JSON: names, shapes, types, quantization, layers, needed CPU features. */
const char *qcc_model_info(void);

/* 0, or a positive error code, then *model is null. threads <= 0: QCC_NUM_THREADS, or else all processors. */
int qcc_model_create(int threads, qcc_model **model);

/* Run once: one pointer per input and output. 0, or a positive error code. */
int qcc_model_run(qcc_model *model, const void *const *inputs, void *const *outputs);

{_STATE if info["states"] else ""}void qcc_model_destroy(qcc_model *model);

/* Start (1) or stop (0) timing every step; then runs timed, and nanoseconds per step of qcc_model_info's "steps". */
int qcc_model_profile(qcc_model *model, int enable);
int64_t qcc_model_profile_read(const qcc_model *model, int64_t *step_ns);

/* What went wrong in this thread's last call. */
const char *qcc_model_error(void);

#ifdef __cplusplus
}}
#endif
#endif
"""
    )


def _describe(kind: str, index: int, tensor: Mapping[str, Any]) -> str:
    name = re.sub(r"[^ -~]|\*/", "_", tensor["name"])
    text = f"{kind} {index}: {name} {_C_TYPES.get(tensor['dtype'], tensor['dtype'])}{tensor['shape']}"
    if q := tensor["quantization"]:
        scale = f"per channel of axis {q['axis']}" if "axis" in q else f"{q['scale']!r}, zero point {q['zero_point']}"
        text += f", {'signed' if q['signed'] else 'unsigned'} {q['bits']} bits, scale {scale}"
    return text


def _elements(tensor: Mapping[str, Any]) -> int:
    count = 1
    for size in tensor["shape"]:
        count *= size
    return count


def _item_bytes(dtype: str) -> int:
    import ml_dtypes
    import numpy as np

    return np.dtype(getattr(ml_dtypes, dtype, dtype)).itemsize
