"""What every provider adapter promises: usage, classified errors, no retries of its own, no lost setting."""

import json
import time

import openai
import pytest

from shared.domain.providers import PROVIDERS
from shared.errors import ProviderError
from tests.servers import ProviderServer, free_port
from worker.providers import MODULES, Provider, Request, get_provider
from worker.providers.openai import OpenAIProvider
from worker.simulator import faults


def request(content: str = "Say hello to Ada.", **fields: object) -> Request:
    values = {
        "execution_id": "01a",
        "model_name": "simulated-small",
        "messages": [{"role": "user", "content": content}],
        "params": {"temperature": 0.0, "max_new_tokens": 50},
        "sample": 0,
        "attempt": 0,
        "timeout_seconds": 5.0,
    }
    return Request(**{**values, **fields})  # type: ignore[arg-type]


def openai_at(base_url: str) -> OpenAIProvider:
    return OpenAIProvider(openai.OpenAI(api_key="none", base_url=base_url, max_retries=0))


@pytest.fixture(params=sorted(MODULES))
def adapter(request: pytest.FixtureRequest, provider: ProviderServer) -> Provider:
    return openai_at(provider.base_url) if request.param == "openai" else get_provider(request.param)


def test_every_provider_of_the_catalogue_has_an_adapter() -> None:
    assert set(MODULES) == set(PROVIDERS)


def test_an_answer_carries_text_usage_latency_and_finish_reason(adapter: Provider) -> None:
    answer = adapter.generate(request())

    assert answer.text
    assert answer.prompt_tokens is not None
    assert answer.prompt_tokens > 0
    assert answer.response_tokens is not None
    assert answer.response_tokens > 0
    assert answer.latency_ms >= 0
    assert answer.finish_reason == "stop"


def test_the_same_call_gives_the_same_answer_and_another_sample_may_differ(adapter: Provider) -> None:
    writer = request(
        "Improve this prompt.\n\n<prompt>\nSort: {{ x }}\n</prompt>\nFeedback: x", params={"temperature": 1.0}
    )

    first, again = adapter.generate(writer), adapter.generate(writer)
    others = {
        adapter.generate(request(writer.messages[0]["content"], params={"temperature": 1.0}, sample=n)).text
        for n in range(8)
    }

    assert first.text == again.text
    assert len(others) > 1


def test_the_output_limit_and_the_stop_sequence_reach_the_model(adapter: Provider) -> None:
    long = "Repeat: " + "word " * 50

    limited = adapter.generate(request(long, params={"max_new_tokens": 3}))
    stopped = adapter.generate(request(long, params={"stop": ["word"]}))

    assert limited.response_tokens == 3
    assert limited.finish_reason == "length"
    assert "word" not in stopped.text


def test_both_ways_to_the_simulated_model_agree(provider: ProviderServer) -> None:
    direct = get_provider("simulated").generate(request())

    over_http = openai_at(provider.base_url).generate(request())

    assert (over_http.text, over_http.prompt_tokens) == (direct.text, direct.prompt_tokens)
    assert over_http.provider_request_id is not None


@pytest.mark.parametrize(
    ("fault", "code", "retryable", "possibly_paid"),
    [
        ("rate_limited", "rate_limited", True, False),
        ("server_error", "server_error", True, False),
        ("bad_request", "bad_request", False, False),
        ("malformed", "malformed_response", True, True),
        ("truncated", "connection_error", True, True),
        ("timeout", "timeout", True, True),
    ],
)
def test_each_fault_of_the_wire_becomes_its_error_class(
    provider: ProviderServer, fault: str, code: str, retryable: bool, possibly_paid: bool
) -> None:
    provider.set_faults(**{fault: 1.0})

    with pytest.raises(ProviderError) as caught:
        openai_at(provider.base_url).generate(request(timeout_seconds=0.5))

    error = caught.value
    assert (error.code, error.retryable, error.possibly_paid) == (code, retryable, possibly_paid)
    assert error.retry_after_seconds == (faults.RETRY_AFTER_SECONDS if fault == "rate_limited" else None)


@pytest.mark.parametrize("fault", sorted(faults.ERRORS))
def test_the_simulated_adapter_fails_in_the_same_classes(
    monkeypatch: pytest.MonkeyPatch, provider: ProviderServer, fault: str
) -> None:
    from shared.config import settings

    monkeypatch.setenv("PROMPTMILL_SIMULATED_FAULTS", f"{fault}:1")
    settings.cache_clear()
    provider.set_faults(**{fault: 1.0})

    with pytest.raises(ProviderError) as direct:
        get_provider("simulated").generate(request())
    with pytest.raises(ProviderError) as over_http:
        openai_at(provider.base_url).generate(request(timeout_seconds=0.5))
    monkeypatch.undo()
    settings.cache_clear()

    assert (direct.value.code, direct.value.retryable, direct.value.possibly_paid) == (
        over_http.value.code,
        over_http.value.retryable,
        over_http.value.possibly_paid,
    )


def test_the_sdk_makes_one_request_and_leaves_retries_to_the_job(provider: ProviderServer) -> None:
    provider.set_faults(server_error=1.0)
    before = sum(provider.calls().values())

    with pytest.raises(ProviderError):
        openai_at(provider.base_url).generate(request())

    assert sum(provider.calls().values()) == before + 1


def test_faults_of_the_first_attempts_spare_the_others(provider: ProviderServer) -> None:
    provider.set_faults(server_error=1.0, first_attempts=2)
    client = openai_at(provider.base_url)

    for attempt in (0, 1):
        with pytest.raises(ProviderError):
            client.generate(request(attempt=attempt))

    assert client.generate(request(attempt=2)).text


def test_the_log_knows_a_call_by_its_execution_and_by_the_request_id_that_was_answered(
    provider: ProviderServer,
) -> None:
    answer = openai_at(provider.base_url).generate(request())

    last = provider.log()[-1]
    assert (last["execution_id"], last["request_id"]) == (request().execution_id, answer.provider_request_id)
    assert last["fault"] is None


def test_a_fault_depends_on_the_attempt_and_not_on_a_counter(provider: ProviderServer) -> None:
    provider.set_faults(server_error=0.5)
    client = openai_at(provider.base_url)

    def outcome(attempt: int) -> bool:
        try:
            client.generate(request(attempt=attempt))
        except ProviderError:
            return False
        return True

    first = [outcome(attempt) for attempt in range(12)]
    again = [outcome(attempt) for attempt in range(12)]

    assert first == again
    assert len(set(first)) == 2


def test_a_server_that_is_not_there_was_not_paid() -> None:
    with pytest.raises(ProviderError) as caught:
        openai_at(f"http://127.0.0.1:{free_port()}/v1").generate(request())

    assert (caught.value.code, caught.value.retryable, caught.value.possibly_paid) == ("connection_error", True, False)


def test_a_setting_that_the_protocol_has_no_name_for_is_refused_and_not_dropped(provider: ProviderServer) -> None:
    with pytest.raises(ProviderError, match="top_k"):
        openai_at(provider.base_url).generate(request(params={"top_k": 5}))


def test_without_credentials_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProviderError, match="OPENAI_API_KEY") as caught:
        OpenAIProvider(None).generate(request())

    assert not caught.value.retryable


def test_latency_is_measured_around_the_call(provider: ProviderServer) -> None:
    provider.set_latency(120)
    started = time.monotonic()

    answer = openai_at(provider.base_url).generate(request())

    elapsed_ms = (time.monotonic() - started) * 1000
    assert 120 <= answer.latency_ms <= elapsed_ms


# ---- embeddings ----------------------------------------------------------------------------------


def embedding_request(text: str = "The invoice is wrong.", **fields: object) -> Request:
    return request(messages=[{"role": "input", "content": text}], params={}, **fields)


def test_an_embedding_is_numbers_with_usage_and_no_reply(adapter: Provider) -> None:
    answer = adapter.embed(embedding_request())

    assert len(json.loads(answer.text)["embedding"]) == 64
    assert (answer.prompt_tokens or 0) > 0
    assert answer.response_tokens == 0
    assert answer.text == adapter.embed(embedding_request()).text


def test_both_ways_to_a_simulated_embedding_agree_and_like_texts_are_alike(provider: ProviderServer) -> None:
    texts = ("The invoice is wrong.", "Wrong is the invoice!", "How do I sign in?")
    direct = [json.loads(get_provider("simulated").embed(embedding_request(text)).text)["embedding"] for text in texts]

    over_http = openai_at(provider.base_url).embed(embedding_request(texts[0]))

    assert json.loads(over_http.text)["embedding"] == direct[0]
    near, far = (sum(a * b for a, b in zip(direct[0], other, strict=True)) for other in direct[1:])
    assert near > 0.9 > 0.5 > far


@pytest.mark.parametrize(
    ("fault", "code"),
    [("rate_limited", "rate_limited"), ("malformed", "malformed_response"), ("bad_request", "bad_request")],
)
def test_a_fault_of_an_embedding_has_the_class_of_any_other_call(
    provider: ProviderServer, fault: str, code: str
) -> None:
    provider.set_faults(**{fault: 1.0})

    with pytest.raises(ProviderError) as caught:
        openai_at(provider.base_url).embed(embedding_request())

    assert caught.value.code == code
