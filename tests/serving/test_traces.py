"""Traces of real services: what is read, and what is refused with its line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costsim.errors import InputError
from costsim.serving import arrivals
from costsim.serving.step_cost import DecodeLine, UnequalLine
from costsim.serving.traces import read_trace
from costsim.serving.traffic import from_trace, generated, load_traffic


def write(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.published
def test_azure_statistics(shared_data: Path) -> None:
    trace = read_trace(shared_data / "traces/azure_2023_conv.csv")
    gaps = np.diff(trace.arrival)
    assert len(trace) == 19_366
    assert trace.arrival[-1] == pytest.approx(3502, abs=1)
    assert gaps.std() / gaps.mean() == pytest.approx(1.09, abs=0.01)
    assert trace.prompt.mean() == pytest.approx(1155, abs=1)
    assert np.median(trace.output) == 129
    code = read_trace(shared_data / "traces/azure_2023_code.csv")
    assert len(code) == 8_819 and code.output.mean() == pytest.approx(27.9, abs=0.1)


@pytest.mark.published
def test_mooncake_statistics(shared_data: Path) -> None:
    trace = read_trace(shared_data / "traces/mooncake_conversation.jsonl")
    assert len(trace) == 12_031
    assert trace.prompt.mean() == pytest.approx(12_035, abs=1)
    assert trace.block_hashes is not None and len(trace.block_hashes[0]) == 14


def test_dates_keep_seven_digits_marks_and_carriage_returns(tmp_path: Path) -> None:
    text = "\ufeffTIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    text += "2024-05-10 00:00:00.0099290,10,5\r\n2024-05-10 00:00:01.0099291,20,6\r\n"
    trace = read_trace(write(tmp_path, text))
    assert trace.arrival[1] == pytest.approx(1.0000001, abs=1e-7)
    assert trace.prompt.tolist() == [10, 20]


def test_azure_2024_dates_with_a_zone(tmp_path: Path) -> None:
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    text += "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:02+00:00,2399,6\n"
    assert read_trace(write(tmp_path, text)).arrival[1] == pytest.approx(1.99007, abs=1e-6)


def test_burstgpt_leaves_out_failures(tmp_path: Path) -> None:
    text = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    text += "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,Conversation log\n"
    trace = read_trace(write(tmp_path, text))
    assert (len(trace), trace.dropped, trace.output[0]) == (1, 1, 18)


def test_sharegpt_lengths(tmp_path: Path) -> None:
    talk = [{"conversations": [{"from": "human", "value": "a" * 40},
                               {"from": "gpt", "value": "b" * 80}]},
            {"conversations": [{"from": "human", "value": "alone"}]}]  # fmt: skip
    path = write(tmp_path, json.dumps(talk), "share.json")
    trace = read_trace(path)
    assert (trace.prompt.tolist(), trace.output.tolist()) == ([10], [20])
    flow = load_traffic({"trace": str(path), "arrivals": "poisson", "rate": 2.0, "requests": 7})
    assert len(flow) == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("arrival_s,input_tokens,output_tokens\n", "no requests"),
        ("arrival_s,input_token,output_tokens\n1,2,3\n", "did you mean 'input_token'"),
        ("arrival_s,input_tokens,output_tokens\n1,-2,3\n", "line 2: input_tokens = -2"),
        ("arrival_s,input_tokens,output_tokens\n1,x,3\n", "'x' is not a number"),
        ("arrival_s,input_tokens,output_tokens\n1,nan,3\n", "line 2"),
        ("arrival_s,input_tokens,output_tokens\n5,2,3\n1,2,3\n", "time goes back at request 2"),
        ("arrival_s,input_tokens,output_tokens\nnoon,2,3\n", "neither seconds nor a date"),
        ("arrival_s,input_tokens,output_tokens\ninf,2,3\n", "must be finite"),
        ("arrival_s,input_tokens,output_tokens\n1,2\n", "2 fields, 3 expected"),
    ],
)
def test_bad_traces(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_trace(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_wrong_encoding_missing_file_and_bad_json(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes(b"arrival_s,input_tokens,output_tokens\n1,2,\xff\n")
    with pytest.raises(InputError, match="not UTF-8"):
        read_trace(path)
    with pytest.raises(InputError, match="no such file"):
        read_trace(tmp_path / "none.csv")
    with pytest.raises(InputError, match="line 1: malformed JSON"):
        read_trace(write(tmp_path, "{", "a.jsonl"))
    with pytest.raises(InputError, match="did you mean"):
        read_trace(write(tmp_path, '{"timestamps": 1}', "b.jsonl"))


def test_sorting_and_duplicates(tmp_path: Path) -> None:
    text = "arrival_s,input_tokens,output_tokens\n5,2,3\n1,7,3\n5,9,3\n"
    trace = read_trace(write(tmp_path, text), sort=True)
    assert trace.arrival.tolist() == [0, 4, 4] and trace.prompt.tolist() == [7, 2, 9]


def test_rates_and_repeats() -> None:
    flow = generated(np.arange(10.0), np.arange(1, 11), 5)
    assert flow.at_rate(4.0).rate == pytest.approx(4.0)
    again = flow.repeated(25)
    assert again.arrival[10] == 10.0 and again.prompt[24] == 5 and len(again) == 25


@pytest.mark.theory
def test_generators_have_their_rates_and_variations() -> None:
    random = np.random.default_rng(0)
    for times, rate, cv in (
        (arrivals.poisson(5.0, 200_000, random), 5.0, 1.0),
        (arrivals.gamma(5.0, 3.0, 200_000, random), 5.0, 3.0),
        (arrivals.gamma(5.0, 0.5, 200_000, random), 5.0, 0.5),
    ):
        gaps = np.diff(times)
        assert 1 / gaps.mean() == pytest.approx(rate, rel=0.03)
        assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)
    switched = arrivals.mmpp([1.0, 9.0], [10.0, 10.0], 100_000, random)
    assert len(switched) / switched[-1] == pytest.approx(5.0, rel=0.05)
    assert np.all(np.diff(switched) >= 0)
    day = arrivals.by_curve(2.0, arrivals.diurnal().tolist(), arrivals.DAY_S, 400_000, random)
    assert len(day) / day[-1] == pytest.approx(2.0, rel=0.15)
    hour = (day % arrivals.DAY_S) // 3600
    whole = day < 2 * arrivals.DAY_S
    assert np.sum(hour[whole] == 13) > 2 * np.sum(hour[whole] == 1)
    assert len(arrivals.weekly()) == 7 * 96


@given(
    st.lists(st.floats(1.0, 500.0), min_size=1, max_size=6),
    st.integers(0, 5000), st.integers(1, 64), st.integers(1, 300), st.floats(0, 1),
)  # fmt: skip
def test_closed_sums_equal_the_sum_of_steps(
    rises: list[float], context: int, growth: int, steps: int, share: float
) -> None:
    knots = np.cumsum(rises)
    line = DecodeLine(knots.tolist(), (0.01 + np.sqrt(knots)).tolist())
    for one in (line, UnequalLine(line, share, 100.0)):
        by_step = sum(one.seconds(context + growth * i) for i in range(steps))
        assert one.total(context, growth, steps) == pytest.approx(by_step, rel=1e-9)
        found, seconds = one.steps_until(context, growth, steps, 0.4 * by_step)
        assert seconds >= 0.4 * by_step * (1 - 1e-12)
        assert found == 1 or one.total(context, growth, found - 1) < 0.4 * by_step


def test_from_trace_keeps_hashes(tmp_path: Path) -> None:
    row = {"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}
    flow = from_trace(read_trace(write(tmp_path, json.dumps(row), "c.jsonl")))
    assert flow.block_hashes == [(1, 2)] and flow.hash_tokens == 512
