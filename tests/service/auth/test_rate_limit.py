"""The rate limit of an API key."""

import pytest

from service.auth.rate_limit import TokenBucketLimiter
from service.core.errors import RateLimited
from tests.service.auth.conftest import Guarded
from tests.support.keys import bearer, make_key


def test_a_key_above_its_rate_gets_429_and_other_keys_do_not(guarded: Guarded) -> None:
    slow = make_key(guarded.data, "slow", rate=0.5)
    assert guarded.http.get("/v1/model", headers=bearer(slow)).status_code == 200
    refused = guarded.http.get("/v1/model", headers=bearer(slow))
    assert (refused.status_code, refused.json()["code"]) == (429, "rate-limited")
    assert refused.headers["retry-after"] in {"1", "2"}
    assert guarded.ask("none", "GET", "/v1/model").status_code == 200


def test_the_bucket_allows_a_burst_of_one_second_and_then_the_rate() -> None:
    time = 100.0
    limiter = TokenBucketLimiter(lambda: time)
    for seconds, requests in [(0.0, 8), (0.25, 2), (0.0, 0), (0.5, 4), (0.125, 1), (60.0, 8)]:
        time += seconds
        for _ in range(requests):
            limiter.take("ann", 8.0)
        with pytest.raises(RateLimited) as refused:
            limiter.take("ann", 8.0)
        assert refused.value.retry_after == 1
