"""Every command with good and with bad input, as a user would call it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


ESTIMATE = ("estimate", "llama-3.1-8b", "h100_sxm", "--isl", "512", "--osl", "128")


def test_help_is_quick_and_names_every_command() -> None:
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "costsim", "--help"], capture_output=True,
                          text=True, check=True)
    # The promise is 0.3 s on an idle machine; the bound leaves room for a busy one.
    assert time.perf_counter() - started < 1.5
    from costsim.cli import COMMANDS

    assert all(name in done.stdout for name in COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    code = ("import sys\ntry:\n    from costsim.cli import main\n    main(['--help'])\n"
            "except SystemExit:\n    pass\n"
            "print([m for m in ('numpy', 'scipy', 'matplotlib', 'pydantic', 'simpy') "
            "if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_every_command_has_help_with_an_example(run: Run) -> None:
    from costsim.cli import COMMANDS

    for name in COMMANDS:
        done = run(name, "--help")
        assert done.returncode == 0, name
        assert "Example" in done.stdout, name


def test_estimate_prints_intervals(run: Run) -> None:
    done = run(*ESTIMATE)
    assert done.returncode == 0
    assert "TPOT" in done.stdout and "90 % interval" in done.stdout


def test_estimate_json_adds_up(run: Run, tmp_path: Path) -> None:
    done = run(*ESTIMATE, "--json", "--output", str(tmp_path / "o"))
    data = json.loads(done.stdout)
    assert json.loads((tmp_path / "o" / "estimate.json").read_text()) == data
    low, high = data["tpot_s"]["interval"]
    assert low < data["tpot_s"]["value"] < high
    tokens = (512 * data["usd_per_million_input_tokens"]["value"]
              + 128 * data["usd_per_million_output_tokens"]["value"]) / 1e6
    assert tokens == pytest.approx(data["usd_per_query"]["value"], rel=1e-9)


def test_compare_names_the_cheaper_side_of_the_crossover(run: Run) -> None:
    done = run("compare", "mixtral-8x7b@h100_sxm", "llama-3.1-70b@h100_sxm:fp8", "--tpot", "50ms",
               "--json")
    data = json.loads(done.stdout)
    assert len(data["deployments"]) == 2
    for cross in data["crossovers"]:
        assert cross["cheaper_below"] != cross["cheaper_above"]


def test_whatif_bandwidth_helps_decode(run: Run, tmp_path: Path) -> None:
    done = run("whatif", "llama-3.1-8b", "h100_sxm", "--vary", "hbm_bandwidth=0.5x..2x:3",
               "--output", str(tmp_path / "w"), "--json")
    data = json.loads(done.stdout)
    tpot = [p["estimate"]["tpot_s"]["value"] for p in data["points"]]
    assert tpot[0] > tpot[1] > tpot[2]
    assert (tmp_path / "w" / "whatif.png").stat().st_size > 5000


def test_simulate_conserves_requests(run: Run) -> None:
    done = run("simulate", "llama-3.1-8b", "h100_sxm", "--rate", "2", "--requests", "100",
               "--isl", "200", "--osl", "50", "--json")
    data = json.loads(done.stdout)
    assert data["finished"] == 100 and data["rejected"] == 0
    assert data["usd_per_query"] > 0


def test_same_seed_same_bytes(run: Run) -> None:
    args = ("simulate", "llama-3.1-8b", "h100_sxm", "--rate", "3", "--requests", "60", "--isl",
            "200", "--osl", "50", "--json", "--seed", "7")
    assert run(*args).stdout == run(*args).stdout


@pytest.mark.parametrize("args", [
    ("hardware", "list"), ("hardware", "show", "h200_sxm"), ("model", "list"),
    ("model", "show", "deepseek-v3"), ("scenario", "list"), ("scenario", "show", "arrakis"),
    ("scenario", "validate", "arrakis"), ("completion", "bash"),
])
def test_what_is_known(run: Run, args: tuple[str, ...]) -> None:
    done = run(*args)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 30


def test_import_a_config(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "tiny" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 256,
        "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2,
        "intermediate_size": 688, "vocab_size": 1000, "max_position_embeddings": 2048,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16"}))
    assert run("model", "import", str(config), "--name", "tiny").returncode == 0
    done = run("estimate", "tiny", "l4", "--batch", "1", "--isl", "64", "--osl", "16", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "tiny"


def _write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


BAD_HARDWARE = """
extends = "h100_sxm"
[memory]
bandwidth = "3.35 TFLOP/s"
"""
UNKNOWN_KEY = """
extends = "h100_sxm"
[memory]
bandwith = "3.35 TB/s"
"""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("estimate", "llama-3.1-70b", "h100_sxm", "--tp", "3"), "does not divide"),
        (("estimate", "llama-3.1-405b", "l4", "--tp", "1"), "per accelerator"),
        (("estimate", "llama-3.1-8b", "h100_sxm", "--batch", "-3"), "must be a positive number"),
        (("estimate", "llama-3.1-8b", "h100_sxm", "--isl", "nan"), "must be a positive number"),
        (("estimate", "llama-3.1-8b", "h100_sxm", "--batch", "100000"), "requests of"),
        (("estimate", "llama-3.1-8b", "h100_sxm", "--isl", "200k", "--batch", "1"),
         "longer than the context"),
        (("estimate", "lama-3.1-8b", "h100_sxm"), "did you mean 'llama-3.1-8b'"),
        (("estimate", "llama-3.1-8b", "h100_smx"), "did you mean 'h100_sxm'"),
        (("estimate", "llama-3.1-8b", "h100_sxm", "--engine", "vlm"), "did you mean 'vllm'"),
        (("estimate", "llama-3.1-8b", "h100_sxm", "--price", "on-demnd"), "did you mean"),
        (("estimate", "llama-3.1-8b", "h100_sxm", "--precision", "fp9"), "data type 'fp9'"),
        (("estimate", "llama-3.1-8b", "h100_sxm", "--ep", "2"), "has no experts"),
        (("estimat",), "did you mean 'estimate'"),
        (("compare", "llama-3.1-8b@h100_sxm"), "two or more"),
        (("compare", "a", "b"), "MODEL@HARDWARE"),
        (("whatif", "llama-3.1-8b", "h100_sxm", "--vary", "tp"), "field=low..high"),
        (("whatif", "llama-3.1-8b", "h100_sxm", "--vary", "memory=2 TB/s,3 TB/s"), "bytes"),
        (("simulate", "llama-3.1-8b", "h100_sxm", "--rate", "100000"), "unstable load"),
        (("simulate", "llama-3.1-8b", "h100_sxm", "--rate", "100000"), "requests/s of 1024"),
        (("whatif", "llama-3.1-8b", "h100_sxm", "--vary", "price=0"), "must be positive"),
        (("simulate", "llama-3.1-8b", "h100_sxm"), "needs --trace"),
        (("simulate", "llama-3.1-8b", "h100_sxm", "--trace", "none.csv"), "none.csv"),
        (("run", "nowhere"), "unknown scenario 'nowhere'"),
        (("hardware", "show", "h100"), "did you mean"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    run: Run, args: tuple[str, ...], message: str
) -> None:
    done = run(*args)
    assert done.returncode == 2
    assert message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("unit.toml", BAD_HARDWARE, "bandwidth is needed"),
        ("key.toml", UNKNOWN_KEY, "did you mean 'bandwidth'"),
        ("broken.toml", "title = ", "malformed TOML"),
        ("circle.toml", 'extends = "circle"\n', "circle"),
    ],
)
def test_bad_hardware_files(run: Run, tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / "hardware_profiles").mkdir()
    path = _write(tmp_path / "hardware_profiles", name, text)
    done = run("hardware", "show", path)
    assert done.returncode == 2
    assert message in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "no requests"),
        ("arrival_s,input_tokens,output_tokens\n1,10,10\n0.5,10,10\n", "goes back"),
        ("arrival_s,input_tokens,output_tokens\n1,-10,10\n", "-10"),
        ("arrival_s,input\n1,10\n", "column"),
        ("arrival_s,input_tokens,output_tokens\n0,10000000,10\n1,10,10\n",
         "request 1 of the traffic"),
    ],
)
def test_bad_traces(run: Run, tmp_path: Path, text: str, message: str) -> None:
    path = _write(tmp_path, "trace.csv", text)
    done = run("simulate", "llama-3.1-8b", "h100_sxm", "--trace", path, "--allow-overload")
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert message in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = 1\n", "title"),
        ('title="t"\nquestion="q"\nmodels=[{key="a",model="llama-3.1-8b"}]\n'
         'hardware=[{hardware="h100_sxm",limits=3}]\nworkloads=[{key="w",isl=1,osl=1}]\n',
         "did you mean 'limit'"),
        ('title="t"\nquestion="q"\nmodels=[{key="a",model="llama-9"}]\n'
         'hardware=[{hardware="h100_sxm"}]\nworkloads=[{key="w",isl=1,osl=1}]\n', "models.model"),
        ('title="t"\nquestion="q"\nmodels=[{key="a",model="llama-3.1-8b"}]\n'
         'hardware=[{hardware="h100_sxm"}]\nworkloads=[{key="w",isl=-1,osl=1}]\n', "negative"),
    ],
)
def test_bad_scenarios(run: Run, tmp_path: Path, text: str, message: str) -> None:
    done = run("scenario", "validate", _write(tmp_path, "bad.toml", text))
    assert done.returncode == 2
    assert message in done.stderr, done.stderr


def test_malformed_json_config(run: Run, tmp_path: Path) -> None:
    done = run("model", "show", _write(tmp_path, "config.json", '{"hidden_size": '))
    assert done.returncode == 2
    assert "malformed JSON" in done.stderr


def test_a_folder_that_cannot_be_written_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = run(*ESTIMATE, "--output", str(tmp_path / "file" / "below"))
    assert done.returncode == 2
    assert done.stderr.startswith("costsim: ") and done.stderr.count("\n") == 1


def test_model_show_gives_parts_cache_and_arithmetic_by_context(run: Run) -> None:
    result = run("model", "show", "kimi-k3")
    assert result.returncode == 0, result.stderr
    for words in ("kda, 96 heads", "mxfp4", "1.45 TB", "By context", "131,072", "402 GFLOP",
                  "recurrent state of a request", "image encoder: 27 layers", "left out"):
        assert words in result.stdout, words


def test_a_mistake_in_the_last_scenario_stops_before_the_first_runs(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "bad.toml").write_text('title = "x"\n', encoding="utf-8")
    done = run("run", "gobi", str(tmp_path / "bad.toml"), "--output", str(tmp_path / "o"))
    assert done.returncode == 2 and "bad.toml" in done.stderr
    assert not (tmp_path / "o").exists()
