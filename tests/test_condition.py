"""Conditions give the same answer for ever."""

from __future__ import annotations

import pytest

from medcurate.condition import check_condition
from medcurate.errors import ConfigError


@pytest.mark.parametrize(
    "where",
    [
        "current_timestamp > TIMESTAMPTZ '2026-01-01'",
        "localtimestamp > TIMESTAMP '2026-01-01'",
        "localtime > TIME '12:00'",
        "current_localtimestamp() > TIMESTAMP '2026-01-01'",
        "ago(INTERVAL 1 DAY) > TIMESTAMPTZ '2026-01-01'",
        "age(TIMESTAMP '2020-01-01') > INTERVAL 5 YEAR",
        "pg_postmaster_start_time() IS NULL",
        "version() = 'v2'",
    ],
)
def test_what_depends_on_the_clock_is_refused_by_every_name(where):
    with pytest.raises(ConfigError, match="may give another answer tomorrow"):
        check_condition(where)


@pytest.mark.parametrize(
    "where",
    [
        "md5(key) < '4'",
        "split_part(key, '/', 2) = 'a'",
        "if(modality = 'ct', true, false)",
        "nullif(organ, 'liver') IS NULL",
        "list_contains(['a', 'b'], organ)",
        "key SIMILAR TO 'a.*' AND modality IN ('ct', 'mr')",
    ],
)
def test_what_does_not_is_allowed(where):
    check_condition(where)
