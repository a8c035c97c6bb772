"""Triton kernels: pairs that a low-precision screen leaves, and their cosines in float64.

Only imported where Triton is there and the activations lie on a graphics card.
"""
# Triton's language is not annotated for type checkers: its values are not Python's.
# pyright: basic, reportIndexIssue=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportAssignmentType=false
# pyright: reportReturnType=false, reportOptionalMemberAccess=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["num", "top", "stop", "capacity"])
def screen_kernel(
    matrix,  # (num, width) rounded residuals of the unit vectors
    rest,  # (num,) float32, what each unit adds to the values of its pairs
    found,  # (capacity,) int64, row * num + column of the pairs that are left
    counter,  # (1,) int32, how many there are
    squares,  # (2, squares) int32, rows and columns of squares of SIDE x SIDE, from `top` on
    num,
    width,
    top,
    stop,
    high,
    low,
    capacity,
    SIDE: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Append the pairs i < j, i in top..stop, whose value is at least `high` or at most `low`.

    The value of a pair is <matrix_i, matrix_j> + rest_i + rest_j, summed in float32. One program
    computes one tile, of which nothing is written but the pairs that are left.
    """
    per_row: tl.constexpr = SIDE // BLOCK_J
    tiles: tl.constexpr = (SIDE // BLOCK_I) * per_row
    program = tl.program_id(0)
    square = program // tiles
    inner = program % tiles
    num_squares = tl.num_programs(0) // tiles
    first_i = top + tl.load(squares + square) * SIDE + (inner // per_row) * BLOCK_I
    first_j = top + tl.load(squares + num_squares + square) * SIDE + (inner % per_row) * BLOCK_J
    if (first_i >= stop) | (first_j >= num) | (first_j + BLOCK_J <= first_i + 1):
        return
    if tl.load(counter) > capacity:  # there are too many: the rest is not looked at
        return
    i = first_i + tl.arange(0, BLOCK_I)
    j = first_j + tl.arange(0, BLOCK_J)
    k = tl.arange(0, BLOCK_K)
    # Rows past the end read the last one, and are left out below.
    left = matrix + tl.minimum(i, num - 1).to(tl.int64)[:, None] * width + k[None, :]
    right = matrix + tl.minimum(j, num - 1).to(tl.int64)[None, :] * width + k[:, None]
    value = tl.zeros((BLOCK_I, BLOCK_J), dtype=tl.float32)
    for _ in range(0, width, BLOCK_K):
        value = tl.dot(tl.load(left), tl.load(right), value)
        left += BLOCK_K
        right += BLOCK_K
    value += tl.load(rest + tl.minimum(i, num - 1))[:, None]
    value += tl.load(rest + tl.minimum(j, num - 1))[None, :]
    most = tl.max(tl.max(value, 1), 0)
    least = tl.min(tl.min(value, 1), 0)
    if (most >= high) | (least <= low):
        keep = (value >= high) | (value <= low)
        keep &= (j[None, :] > i[:, None]) & (j[None, :] < num) & (i[:, None] < stop)
        one = tl.full((BLOCK_I, BLOCK_J), 1, tl.int32)
        place = tl.atomic_add(counter + (one - 1), one, mask=keep, sem="relaxed")
        pair = i.to(tl.int64)[:, None] * num + j[None, :]
        tl.store(found + place, pair, mask=keep & (place < capacity))


@triton.jit(do_not_specialize=["num_pairs", "num_samples"])
def cosine_kernel(
    values,  # activations, of any floating-point type
    by_sample,  # numbers between two samples of a unit
    by_unit,  # numbers between two units
    scale,  # (units,) float64, powers of two
    offset,  # (units,) float64
    inverse_norm,  # (units,) float64
    first,  # (pairs,) int64, units
    second,  # (pairs,) int64, units
    cosine,  # (pairs,) float64, the result
    num_pairs,
    num_samples,
    IS_DOUBLE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Inner products of unit vectors (values * scale - offset) * inverse_norm, all in float64."""
    p = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    there = p < num_pairs
    i = tl.load(first + p, mask=there, other=0)
    j = tl.load(second + p, mask=there, other=0)
    offset_i = tl.load(offset + i)[:, None]
    offset_j = tl.load(offset + j)[:, None]
    scale_i = tl.load(scale + i)[:, None]
    scale_j = tl.load(scale + j)[:, None]
    norm_i = tl.load(inverse_norm + i)[:, None]
    norm_j = tl.load(inverse_norm + j)[:, None]
    total = tl.zeros((BLOCK_P,), dtype=tl.float64)
    for start in range(0, num_samples, BLOCK_S):
        s = start + tl.arange(0, BLOCK_S)
        inside = there[:, None] & (s < num_samples)[None, :]
        at = s.to(tl.int64)[None, :] * by_sample
        x = tl.load(values + (at + i[:, None] * by_unit), mask=inside, other=0.0)
        y = tl.load(values + (at + j[:, None] * by_unit), mask=inside, other=0.0)
        if IS_DOUBLE:
            x = x * scale_i
            y = y * scale_j
        else:
            x = x.to(tl.float32).to(tl.float64)
            y = y.to(tl.float32).to(tl.float64)
        x = (x - offset_i) * norm_i
        y = (y - offset_j) * norm_j
        total += tl.sum(tl.where(inside, x * y, 0.0), 1)
    tl.store(cosine + p, total, mask=there)
