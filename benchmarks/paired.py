"""The statistics: medians with their spread, and ratios that are paired round by round."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """A median, its quartiles, and the interval that holds the true median at CONFIDENCE."""

    median: float
    lower_quartile: float
    upper_quartile: float
    low: float
    high: float


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The interval of the median between two order statistics, whatever the distribution.

    As many of n values lie below the true median as heads fall in n throws of a coin.  With five
    values or fewer no interval is sure enough, and this is their range.
    """
    ordered, count = sorted(values), len(values)
    outside, skipped = 1, 0  # ways to have fewer than skipped + 1 heads, of 2**count
    while 2 * outside <= (1 - CONFIDENCE) * 2**count:
        skipped += 1
        outside += math.comb(count, skipped)
    skipped = max(skipped - 1, 0)
    return ordered[skipped], ordered[count - 1 - skipped]


def spread(values: Sequence[float]) -> Spread:
    """Of one value or more."""
    if len(values) == 1:
        return Spread(*[values[0]] * 5)
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, lower, upper, *interval(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Of ours to theirs in the same round: what slows a round slows both."""
    return spread([one / other for one, other in zip(ours, theirs, strict=True)])


def differences(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Of ours less theirs in the same round."""
    return spread([one - other for one, other in zip(ours, theirs, strict=True)])
