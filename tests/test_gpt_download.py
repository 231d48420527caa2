"""gpt_download.py: checkpoints are fetched, verified and read; what is wrong with one is said."""

import importlib.util
import json
import os
import shutil
import sys
import weakref

import numpy as np
import pytest
from safetensors.numpy import load_file

import edition
import gpt_download
from downloads import DownloadError
from gpt_download import (
    ASSETS,
    DATA_FILE,
    FILES,
    INDEX_FILE,
    SAFETENSORS_FILE,
    SHA256_FILE,
    TENSORS_FILE,
    count_parameters,
    download_and_load_gpt2,
    provide_file,
    read_settings,
    read_tensorflow_checkpoint,
    write_safetensors,
    write_tensorflow_checkpoint,
)
from tools.checkpoints import (
    SETTINGS_10M,
    SETTINGS_124M,
    TINY,
    flatten,
    hugging_face_names,
    random_values,
    settings_of,
    write_hugging_face_file,
    write_openai_folder,
)


def same_values(a, b):
    """Whether two checkpoints {name: array} are equal bit for bit."""
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype
        and a[name].shape == b[name].shape
        and a[name].tobytes() == b[name].tobytes()
        for name in a
    )


def truncate(path):
    path.write_bytes(path.read_bytes()[:-4])


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def no_tensorflow(monkeypatch):
    """As where TensorFlow is not installed."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)


@pytest.fixture
def unverified(monkeypatch):
    monkeypatch.setenv("GPT2_VERIFY", "0")


@pytest.fixture
def official_addresses(monkeypatch, web_server):
    """The official addresses, moved to a web server on this machine. It has no files at first."""
    monkeypatch.setattr(gpt_download, "OPENAI_URL", f"{web_server.url}/openai")
    monkeypatch.setattr(gpt_download, "BACKUP_URL", f"{web_server.url}/backup")
    monkeypatch.setattr(gpt_download, "HUGGING_FACE_URL", f"{web_server.url}/hugging-face")
    return web_server


@pytest.fixture
def tiny_models(tiny_mirror, tmp_path):
    """A ``models_dir`` in which the files of the tiny checkpoint stand already, as "355M"."""
    shutil.copytree(tiny_mirror, tmp_path / "models")
    return tmp_path / "models"


# ---------------------------------------------------------------------------------
# The embedded checkpoint
# ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded(embedded_load):
    return download_and_load_gpt2("10M", embedded_load.models_dir)


def test_embedded_checkpoint_loads_without_network(embedded_load):
    assert embedded_load.process.returncode == 0, embedded_load.process.stderr


def test_embedded_load_leaves_the_published_files_and_the_copy(embedded_load):
    assert names_in(embedded_load.models_dir / "10M") == sorted([*FILES, SAFETENSORS_FILE])


def test_embedded_settings(embedded):
    assert embedded[0] == SETTINGS_10M


def test_embedded_params_have_the_published_structure(embedded):
    params = embedded[1]
    assert params.keys() == {"wte", "wpe", "g", "b", "blocks"}
    assert len(params["blocks"]) == 6
    for block in params["blocks"]:
        assert block.keys() == {"attn", "mlp", "ln_1", "ln_2"}
        assert block["attn"].keys() == {"c_attn", "c_proj"}
        assert block["mlp"].keys() == {"c_fc", "c_proj"}
        assert all(layer.keys() == {"w", "b"} for part in ("attn", "mlp") for layer in block[part].values())
        assert block["ln_1"].keys() == block["ln_2"].keys() == {"g", "b"}


@pytest.mark.parametrize(
    "name, shape",
    [
        ("wte", (50257, 160)),
        ("wpe", (1024, 160)),
        ("ln_f/g", (160,)),
        ("h5/ln_2/b", (160,)),
        ("h0/attn/c_attn/w", (160, 480)),
        ("h0/attn/c_attn/b", (480,)),
        ("h5/attn/c_proj/w", (160, 160)),
        ("h5/mlp/c_fc/w", (160, 640)),
        ("h5/mlp/c_proj/w", (640, 160)),
    ],
)
def test_embedded_matrices_are_in_times_out(embedded, name, shape):
    assert flatten(embedded[1])[name].shape == shape


def test_embedded_params_are_float32(embedded):
    assert {array.dtype for array in flatten(embedded[1]).values()} == {np.dtype("float32")}


def test_embedded_params_hold_10_060_960_finite_values(embedded):
    assert sum(np.isfinite(array).sum() for array in flatten(embedded[1]).values()) == 10_060_960


def test_embedded_checkpoint_is_float16_on_disk():
    assert (ASSETS / "10M" / DATA_FILE).stat().st_size == 2 * 10_060_960


@pytest.mark.parametrize("name", [*FILES, TENSORS_FILE])
def test_embedded_file_has_the_hash_that_is_listed_for_it(name):
    listed = json.loads((ASSETS / "10M" / "sha256.json").read_text())
    assert gpt_download.sha256_of(ASSETS / "10M" / name) == listed[name]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="PyTorch with CUDA brings triton")
def test_optimizer_can_be_made_after_tensorflow_read_a_checkpoint(run_python):
    code = "import gpt_download, torch; gpt_download.import_tensorflow(); "
    code += "torch.optim.AdamW([torch.zeros(1, requires_grad=True)]); print('made')"
    process = run_python("-c", code)
    assert (process.returncode, process.stdout) == (0, "made\n")


def test_second_load_imports_no_tensorflow(embedded_load, run_python):
    code = (
        "import sys; from gpt_download import download_and_load_gpt2;"
        f"download_and_load_gpt2('10M', {str(embedded_load.models_dir)!r});"
        "print('tensorflow' in sys.modules)"
    )
    assert run_python("-c", code).stdout == "False\n"


def test_second_load_gives_the_values_of_the_checkpoint(embedded, embedded_load):
    assert same_values(flatten(embedded[1]), read_tensorflow_checkpoint(embedded_load.models_dir / "10M"))


def test_without_tensorflow_the_embedded_checkpoint_has_the_same_values(embedded, no_tensorflow, tmp_path):
    settings, params = download_and_load_gpt2("10M", tmp_path)
    assert settings == SETTINGS_10M
    assert same_values(flatten(params), flatten(embedded[1]))


def test_without_tensorflow_the_embedded_load_leaves_the_same_files(embedded_load, no_tensorflow, tmp_path):
    download_and_load_gpt2("10M", tmp_path)
    assert names_in(tmp_path / "10M") == names_in(embedded_load.models_dir / "10M")


def test_without_tensorflow_a_truncated_embedded_data_file_is_a_value_error(
    unverified, no_tensorflow, tmp_path
):
    shutil.copytree(ASSETS / "10M", tmp_path / "10M")
    truncate(tmp_path / "10M" / DATA_FILE)
    with pytest.raises(ValueError, match=f"{DATA_FILE} has 20,121,916 bytes, expected 20,121,920"):
        download_and_load_gpt2("10M", tmp_path)


def test_tables_of_the_embedded_checkpoint_are_those_that_its_export_writes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ASSETS)
    from train_gpt2_mini import write_tables  # compares each tensor with what TensorFlow reads

    shutil.copytree(ASSETS / "10M", tmp_path / "10M")
    for name in (TENSORS_FILE, SHA256_FILE):
        (tmp_path / "10M" / name).unlink()
    write_tables(tmp_path / "10M")
    for name in (TENSORS_FILE, SHA256_FILE):
        assert (tmp_path / "10M" / name).read_text() == (ASSETS / "10M" / name).read_text()


def test_a_broken_tensorflow_is_reported_in_one_line_and_done_without(tmp_path, run_python, embedded):
    (tmp_path / "broken" / "tensorflow").mkdir(parents=True)
    (tmp_path / "broken" / "tensorflow" / "__init__.py").write_text(
        "raise ImportError('DLL load failed while importing _pywrap\\nand a second line')"
    )
    code = (
        "from gpt_download import download_and_load_gpt2;"
        "print(download_and_load_gpt2('10M', 'gpt2')[1]['wpe'][5, :3].tolist())"
    )
    process = run_python("-c", code, PYTHONPATH=f"{tmp_path / 'broken'}{os.pathsep}{ASSETS.parent}")
    assert process.stdout.splitlines() == [
        "TensorFlow is installed but cannot be imported (ImportError: DLL load failed while importing "
        "_pywrap). Going on without it.",
        str(embedded[1]["wpe"][5, :3].tolist()),
    ], process.stderr


def test_tokenizer_needs_no_network(monkeypatch, run_python):
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    code = (
        "import socket; del socket.getaddrinfo, socket.create_connection;"
        "import gpt_download;"
        "import tiktoken; print(tiktoken.get_encoding('gpt2').encode('Every effort moves you'))"
    )
    assert run_python("-c", code).stdout == "[6109, 3626, 6100, 345]\n"


def test_tokenizer_folder_that_is_set_already_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    edition.provide_tokenizer_files()
    assert os.environ["TIKTOKEN_CACHE_DIR"] == str(tmp_path)
    assert len(names_in(tmp_path)) == 2  # the two files are put there


# ---------------------------------------------------------------------------------
# The format
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_another_size_is_written_and_read_bit_for_bit(tmp_path, dtype):
    settings = settings_of(n_embd=48, n_layer=3, n_head=4, n_vocab=1000, n_ctx=64)
    values = {name: array.astype(dtype).astype(np.float32) for name, array in random_values(settings).items()}
    write_tensorflow_checkpoint(tmp_path, settings, values, dtype)
    assert same_values(read_tensorflow_checkpoint(tmp_path), values)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_data_file_holds_the_values_and_nothing_else(tmp_path, tiny_values, dtype):
    write_tensorflow_checkpoint(tmp_path, TINY, tiny_values, dtype)
    assert (tmp_path / DATA_FILE).stat().st_size == np.dtype(dtype).itemsize * count_parameters(TINY)


def test_a_checkpoint_with_a_wrong_shape_is_not_written(tmp_path, tiny_values):
    values = {**tiny_values, "wpe": tiny_values["wpe"][:-1]}
    with pytest.raises(ValueError, match=r"'wpe' has shape \(15, 8\), hparams.json implies \(16, 8\)"):
        write_tensorflow_checkpoint(tmp_path, TINY, values)


def test_tensorflow_layout_gives_the_values_that_were_written(
    monkeypatch, tiny_mirror, tiny_values, tmp_path
):
    monkeypatch.setenv("GPT2_MIRROR", str(tiny_mirror))
    settings, params = download_and_load_gpt2("355M", tmp_path / "models")
    assert settings == TINY
    assert same_values(flatten(params), tiny_values)


def test_without_tensorflow_the_safetensors_layout_gives_the_same_values(
    monkeypatch, no_tensorflow, tiny_mirror, tiny_values, tmp_path
):
    (tiny_mirror / "355M" / DATA_FILE).unlink()
    write_hugging_face_file(tiny_mirror / "355M" / SAFETENSORS_FILE, TINY, tiny_values)
    monkeypatch.setenv("GPT2_MIRROR", str(tiny_mirror))
    settings, params = download_and_load_gpt2("355M", tmp_path / "models")
    assert settings == TINY
    assert same_values(flatten(params), tiny_values)


def test_without_tensorflow_only_two_files_are_fetched(
    monkeypatch, no_tensorflow, tiny_mirror, tiny_values, tmp_path
):
    write_hugging_face_file(tiny_mirror / "355M" / SAFETENSORS_FILE, TINY, tiny_values)
    monkeypatch.setenv("GPT2_MIRROR", str(tiny_mirror))
    download_and_load_gpt2("355M", tmp_path / "models")
    assert names_in(tmp_path / "models" / "355M") == ["hparams.json", SAFETENSORS_FILE]


def test_both_layouts_give_the_same_params_bit_for_bit(monkeypatch, tiny_mirror, tiny_values, tmp_path):
    write_hugging_face_file(tiny_mirror / "355M" / SAFETENSORS_FILE, TINY, tiny_values)
    monkeypatch.setenv("GPT2_MIRROR", str(tiny_mirror))
    with_tensorflow = download_and_load_gpt2("355M", tmp_path / "with")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    without = download_and_load_gpt2("355M", tmp_path / "without")
    assert names_in(tmp_path / "with" / "355M") != names_in(tmp_path / "without" / "355M")
    assert with_tensorflow[0] == without[0]
    assert same_values(flatten(with_tensorflow[1]), flatten(without[1]))


def test_without_tensorflow_a_published_file_beside_the_checkpoint_is_enough(
    monkeypatch, no_tensorflow, tiny_mirror, tiny_models, tiny_values
):
    write_hugging_face_file(tiny_mirror / "355M" / SAFETENSORS_FILE, TINY, tiny_values)
    monkeypatch.setenv("GPT2_MIRROR", str(tiny_mirror))
    for _ in range(2):
        assert same_values(flatten(download_and_load_gpt2("355M", tiny_models)[1]), tiny_values)


def test_second_load_of_another_size_imports_no_tensorflow(tiny_models, run_python):
    download_and_load_gpt2("355M", tiny_models)
    code = (
        "import sys; from gpt_download import download_and_load_gpt2;"
        f"download_and_load_gpt2('355M', {str(tiny_models)!r});"
        "print('tensorflow' in sys.modules)"
    )
    assert run_python("-c", code).stdout == "False\n"


def test_the_copy_holds_the_matrices_of_linear_layers_transposed(tiny_models, tiny_values):
    download_and_load_gpt2("355M", tiny_models)
    copy = load_file(tiny_models / "355M" / SAFETENSORS_FILE)
    expected = {}
    for name, other in hugging_face_names(TINY).items():
        if name.endswith("/w"):
            expected[f"{other}.T"] = tiny_values[name].T
        else:
            expected[other] = tiny_values[name]
    assert same_values(copy, expected)


def test_values_begin_at_a_multiple_of_64_bytes(tiny_models):
    download_and_load_gpt2("355M", tiny_models)
    with open(tiny_models / "355M" / SAFETENSORS_FILE, "rb") as file:
        assert (8 + int.from_bytes(file.read(8), "little")) % 64 == 0


def test_changing_an_array_leaves_the_file_as_it_was(tiny_models, tiny_values):
    for _ in range(2):  # from the checkpoint, then from the copy
        _, params = download_and_load_gpt2("355M", tiny_models)
        params["wte"] += 1
        params["blocks"][0]["mlp"]["c_fc"]["w"][:] = 0
    assert same_values(flatten(download_and_load_gpt2("355M", tiny_models)[1]), tiny_values)


def test_checkpoint_is_copied_one_tensor_at_a_time(monkeypatch, tiny_models):
    """When a tensor is read, at most the one before it is still held."""
    read_tensors, references, held = gpt_download.tensorflow_tensors, [], []

    def watch(folder):
        for name, array in read_tensors(folder):
            held.append(sum(reference() is not None for reference in references))
            array = array.copy()
            references.append(weakref.ref(array))
            yield name, array

    monkeypatch.setattr(gpt_download, "tensorflow_tensors", watch)
    download_and_load_gpt2("355M", tiny_models)
    assert len(held) == 4 + 12 * 2 and max(held) == 1


def test_a_current_copy_is_not_written_again(tiny_models):
    download_and_load_gpt2("355M", tiny_models)
    copy = tiny_models / "355M" / SAFETENSORS_FILE
    written = copy.stat().st_mtime_ns
    download_and_load_gpt2("355M", tiny_models)
    assert copy.stat().st_mtime_ns == written


def test_a_changed_checkpoint_beside_the_copy_is_noticed(tiny_models):
    download_and_load_gpt2("355M", tiny_models)
    changed = random_values(TINY, seed=7)
    write_openai_folder(tiny_models / "355M", TINY, changed)
    assert same_values(flatten(download_and_load_gpt2("355M", tiny_models)[1]), changed)


def test_a_changed_checkpoint_beside_the_copy_is_not_passed_over_without_tensorflow(
    tiny_models, official_addresses, request
):
    download_and_load_gpt2("355M", tiny_models)
    write_openai_folder(tiny_models / "355M", TINY, random_values(TINY, seed=7))
    request.getfixturevalue("no_tensorflow")
    with pytest.raises((ValueError, OSError, ImportError)):
        download_and_load_gpt2("355M", tiny_models)


@pytest.mark.parametrize(
    "settings, count",
    [
        (SETTINGS_10M, 10_060_960),
        (SETTINGS_124M, 124_439_808),
        (settings_of(1024, 24, 16), 354_823_168),
        (settings_of(1280, 36, 20), 774_030_080),
        (settings_of(1600, 48, 25), 1_557_611_200),
    ],
    ids=["10M", "124M", "355M", "774M", "1558M"],
)
def test_number_of_parameters(settings, count):
    assert count_parameters(settings) == count


def test_the_124m_data_file_has_4_bytes_for_each_parameter():
    assert 4 * count_parameters(SETTINGS_124M) == 497_759_232


# ---------------------------------------------------------------------------------
# Sources
# ---------------------------------------------------------------------------------


def test_files_that_are_there_need_no_source(official_addresses, tiny_models, tiny_values):
    _, params = download_and_load_gpt2("355M", tiny_models)
    assert same_values(flatten(params), tiny_values)
    assert not official_addresses.requests


def test_mirror_can_be_a_web_address(monkeypatch, web_server, tiny_mirror, tiny_values, tmp_path):
    for path in (tiny_mirror / "355M").iterdir():
        web_server.files[f"/base/355M/{path.name}"] = path.read_bytes()
    monkeypatch.setenv("GPT2_MIRROR", f"{web_server.url}/base")
    _, params = download_and_load_gpt2("355M", tmp_path / "models")
    assert same_values(flatten(params), tiny_values)


def test_sources_are_asked_in_their_order(monkeypatch, official_addresses, tmp_path):
    monkeypatch.setenv("GPT2_MIRROR", f"{official_addresses.url}/mirror")
    official_addresses.files["/backup/355M/checkpoint"] = b'model_checkpoint_path: "model.ckpt"'
    provide_file("355M", tmp_path, "checkpoint")
    assert list(official_addresses.requests) == [
        "/mirror/355M/checkpoint",
        "/openai/355M/checkpoint",
        "/backup/355M/checkpoint",
    ]


@pytest.mark.parametrize(
    "size, name",
    [("124M", "gpt2"), ("355M", "gpt2-medium"), ("774M", "gpt2-large"), ("1558M", "gpt2-xl")],
)
def test_hugging_face_name_of_each_size(size, name):
    addresses = gpt_download.sources_of(size, SAFETENSORS_FILE)
    assert addresses == [f"https://huggingface.co/openai-community/{name}/resolve/main/model.safetensors"]


def test_wrong_content_of_a_known_hash_is_left_for_the_next_source(official_addresses, tmp_path):
    right = (ASSETS / "10M" / "vocab.bpe").read_bytes()  # the tokenizer is the same for all sizes
    official_addresses.files |= {"/openai/124M/vocab.bpe": right[:-1], "/backup/124M/vocab.bpe": right}
    provide_file("124M", tmp_path, "vocab.bpe")
    assert (tmp_path / "vocab.bpe").read_bytes() == right


def test_unknown_size_is_named(tmp_path):
    with pytest.raises(ValueError, match="'125M'.*10M, 124M, 355M, 774M, 1558M"):
        download_and_load_gpt2("125M", tmp_path)


def test_unknown_size_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError):
        download_and_load_gpt2("125M", tmp_path)
    assert len(names_in(tmp_path)) == 2  # the two files are put there


def test_missing_file_lists_each_address(monkeypatch, official_addresses, tiny_mirror, tmp_path):
    (tiny_mirror / "355M" / DATA_FILE).unlink()
    monkeypatch.setenv("GPT2_MIRROR", str(tiny_mirror))
    with pytest.raises(DownloadError) as error:
        download_and_load_gpt2("355M", tmp_path / "models")
    for base in (tiny_mirror, f"{official_addresses.url}/openai", f"{official_addresses.url}/backup"):
        assert f"{base}/355M/{DATA_FILE}\n" in str(error.value)


def test_missing_file_names_the_way_on(official_addresses, tmp_path):
    with pytest.raises(DownloadError, match=r"CHOOSE_MODEL to 'gpt2-mini \(10M\)'.*GPT2_MIRROR"):
        download_and_load_gpt2("355M", tmp_path)


def test_missing_file_without_tensorflow_lists_hugging_face(
    monkeypatch, no_tensorflow, official_addresses, tmp_path
):
    monkeypatch.setattr(gpt_download, "known_settings", lambda model_size: TINY)
    official_addresses.files["/openai/355M/hparams.json"] = json.dumps(TINY).encode()
    with pytest.raises(DownloadError, match="hugging-face/gpt2-medium/resolve/main/model.safetensors"):
        download_and_load_gpt2("355M", tmp_path)


def test_missing_file_leaves_nothing_half_written(monkeypatch, official_addresses, tiny_mirror, tmp_path):
    (tiny_mirror / "355M" / "model.ckpt.index").unlink()
    monkeypatch.setenv("GPT2_MIRROR", str(tiny_mirror))
    with pytest.raises(DownloadError):
        download_and_load_gpt2("355M", tmp_path / "models")
    assert set(names_in(tmp_path / "models" / "355M")) <= set(FILES)


# ---------------------------------------------------------------------------------
# Damage
# ---------------------------------------------------------------------------------


def test_settings_of_each_size_are_known():
    sizes = ("10M", "124M", "355M", "774M", "1558M")
    expected = [
        SETTINGS_10M,
        SETTINGS_124M,
        settings_of(1024, 24, 16),
        settings_of(1280, 36, 20),
        settings_of(1600, 48, 25),
    ]
    assert [gpt_download.known_settings(size) for size in sizes] == expected


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("hparams.json", b"cut", "not a valid hparams.json"),
        (
            "hparams.json",
            json.dumps({**TINY, "n_head": 4}).encode(),
            "'n_head': 4.*but GPT-2 355M has.*'n_head': 2",
        ),
        ("encoder.json", b'{"cut', "Unterminated string"),
        ("vocab.bpe", b"cut", "does not begin with '#version'"),
        ("checkpoint", b"", "does not name a checkpoint"),
        (INDEX_FILE, b"cut", "not the index of a TensorFlow checkpoint"),
    ],
)
def test_wrong_small_file_is_noticed_before_the_data_file_is_asked_for(
    monkeypatch, official_addresses, tiny_mirror, tmp_path, name, content, words
):
    for path in (tiny_mirror / "355M").iterdir():
        official_addresses.files[f"/openai/355M/{path.name}"] = path.read_bytes()
    official_addresses.files[f"/openai/355M/{name}"] = content
    with pytest.raises(DownloadError, match=f"(?s)Could not get {name}.*{words}"):
        download_and_load_gpt2("355M", tmp_path / "models")
    assert f"/openai/355M/{DATA_FILE}" not in official_addresses.requests
    assert name not in names_in(tmp_path / "models" / "355M")


def test_wrong_safetensors_file_of_a_source_is_refused(
    monkeypatch, no_tensorflow, official_addresses, tiny_mirror, tiny_values, tmp_path
):
    write_hugging_face_file(tiny_mirror / "355M" / SAFETENSORS_FILE, TINY, tiny_values)
    truncate(tiny_mirror / "355M" / SAFETENSORS_FILE)
    monkeypatch.setenv("GPT2_MIRROR", str(tiny_mirror))
    with pytest.raises(DownloadError, match="model.safetensors.*\n.*is damaged"):
        download_and_load_gpt2("355M", tmp_path / "models")
    assert names_in(tmp_path / "models" / "355M") == ["hparams.json"]


def write_settings(folder, **changes):
    (folder / "hparams.json").write_text(json.dumps({**TINY, **changes}))


def test_wrong_hash_of_a_source_is_reported(official_addresses, tmp_path):
    official_addresses.files["/openai/124M/hparams.json"] = b"{}"
    with pytest.raises(DownloadError, match=f"expected {edition.SHA256_124M['hparams.json']}"):
        provide_file("124M", tmp_path, "hparams.json")


def test_wrong_hash_of_a_file_that_is_there_names_the_file(tmp_path):
    (tmp_path / "hparams.json").write_text("{}")
    with pytest.raises(ValueError, match="hparams.json is damaged or not the published file.*Delete it"):
        provide_file("124M", tmp_path, "hparams.json")


def test_verification_can_be_turned_off(unverified, tmp_path):
    (tmp_path / "hparams.json").write_text("{}")
    provide_file("124M", tmp_path, "hparams.json")
    assert (tmp_path / "hparams.json").read_text() == "{}"


def test_embedded_checkpoint_of_an_earlier_book_is_replaced_by_the_shipped_one(embedded, tmp_path):
    folder = tmp_path / "10M"
    write_openai_folder(folder, TINY, random_values(TINY))
    write_safetensors(folder / SAFETENSORS_FILE, random_values(TINY).items(), source=folder / DATA_FILE)
    settings, params = download_and_load_gpt2("10M", tmp_path)
    assert settings == SETTINGS_10M
    assert same_values(flatten(params), flatten(embedded[1]))


def test_embedded_checkpoint_of_your_own_stays_where_unverified(unverified, tmp_path):
    values = random_values(TINY)
    write_openai_folder(tmp_path / "10M", TINY, values)
    assert same_values(flatten(download_and_load_gpt2("10M", tmp_path)[1]), values)
    written = (tmp_path / "10M" / SAFETENSORS_FILE).stat().st_mtime_ns
    assert same_values(flatten(download_and_load_gpt2("10M", tmp_path)[1]), values)
    assert (tmp_path / "10M" / SAFETENSORS_FILE).stat().st_mtime_ns == written  # the copy is not made again


def test_second_embedded_load_opens_no_data_file(embedded_load, run_python):
    code = (
        "import sys; opened = [];"
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None);"
        "from gpt_download import DATA_FILE, INDEX_FILE, download_and_load_gpt2;"
        f"download_and_load_gpt2('10M', {str(embedded_load.models_dir)!r});"
        "print([any(name.endswith(end) for name in opened) for end in (INDEX_FILE, DATA_FILE)])"
    )
    assert run_python("-c", code).stdout == "[True, False]\n"


def test_changed_embedded_checkpoint_is_replaced_by_the_shipped_one(embedded, embedded_load, tmp_path):
    shutil.copytree(embedded_load.models_dir, tmp_path / "models")
    data = tmp_path / "models" / "10M" / DATA_FILE
    content = bytearray(data.read_bytes())
    content[1000] ^= 1
    data.write_bytes(content)
    _, params = download_and_load_gpt2("10M", tmp_path / "models")
    assert same_values(flatten(params), flatten(embedded[1]))


def test_truncated_data_file_of_a_source_is_refused(monkeypatch, official_addresses, tiny_mirror, tmp_path):
    truncate(tiny_mirror / "355M" / DATA_FILE)
    monkeypatch.setenv("GPT2_MIRROR", str(tiny_mirror))
    with pytest.raises(DownloadError, match="it has 10,748 bytes, expected 10,752"):
        download_and_load_gpt2("355M", tmp_path / "models")
    assert DATA_FILE not in names_in(tmp_path / "models" / "355M")


def test_truncated_data_file_that_is_there_is_refused(tiny_models):
    truncate(tiny_models / "355M" / DATA_FILE)
    with pytest.raises(ValueError, match=f"{DATA_FILE} is damaged.*it has 10,748 bytes, expected 10,752"):
        download_and_load_gpt2("355M", tiny_models)


def test_truncated_data_file_is_a_value_error_even_unverified(unverified, tiny_models):
    truncate(tiny_models / "355M" / DATA_FILE)
    with pytest.raises(ValueError, match="model.ckpt cannot be read"):
        download_and_load_gpt2("355M", tiny_models)


def test_changed_value_in_the_data_file_is_a_value_error_even_unverified(unverified, tiny_models):
    path = tiny_models / "355M" / DATA_FILE
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="model.ckpt cannot be read"):
        download_and_load_gpt2("355M", tiny_models)


def test_failed_reading_leaves_no_copy(tiny_models):
    (tiny_models / "355M" / "model.ckpt.index").write_bytes(b"")
    with pytest.raises(ValueError):
        download_and_load_gpt2("355M", tiny_models)
    assert names_in(tiny_models / "355M") == sorted(FILES)


def test_damaged_index_is_noticed_before_the_data_file_is_read(tiny_models):
    (tiny_models / "355M" / INDEX_FILE).write_bytes(b"not an index" * 100)
    with pytest.raises(ValueError, match="model.ckpt.index is damaged.*not the index of a TensorFlow check"):
        download_and_load_gpt2("355M", tiny_models)


def test_damaged_index_is_a_value_error_even_unverified(unverified, tiny_models):
    (tiny_models / "355M" / "model.ckpt.index").write_bytes(b"not an index" * 100)
    with pytest.raises(ValueError, match="model.ckpt cannot be read"):
        download_and_load_gpt2("355M", tiny_models)


@pytest.mark.parametrize("damage", [truncate, lambda path: path.write_bytes(b"not safetensors")])
def test_damaged_safetensors_file_is_a_value_error(tmp_path, tiny_values, damage):
    path = tmp_path / "355M" / SAFETENSORS_FILE
    path.parent.mkdir()
    write_settings(path.parent)
    write_hugging_face_file(path, TINY, tiny_values)
    damage(path)
    with pytest.raises(ValueError, match=f"{SAFETENSORS_FILE} is damaged.*Delete it"):
        download_and_load_gpt2("355M", tmp_path)


def test_damaged_copy_is_made_again_from_the_checkpoint(tiny_models, tiny_values):
    download_and_load_gpt2("355M", tiny_models)
    (tiny_models / "355M" / SAFETENSORS_FILE).write_bytes(b"not safetensors")
    assert same_values(flatten(download_and_load_gpt2("355M", tiny_models)[1]), tiny_values)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not JSON",
        b"[1, 2]",
        b'{"n_vocab": 100}',
        b'{"n_vocab": "many", "n_ctx": 16, "n_embd": 8, "n_head": 2, "n_layer": 2}',
        b"\xff\xfe\x00",
    ],
)
def test_broken_hparams_file_is_named(tmp_path, content):
    (tmp_path / "hparams.json").write_bytes(content)
    with pytest.raises(ValueError, match="hparams.json.*it is not a valid hparams.json"):
        read_settings(tmp_path)


def test_broken_hparams_file_is_named_by_a_load(tiny_models):
    (tiny_models / "355M" / "hparams.json").write_text("not JSON")
    with pytest.raises(ValueError, match="hparams.json.*it is not a valid hparams.json"):
        download_and_load_gpt2("355M", tiny_models)


def test_tensor_that_the_checkpoint_lacks_is_named(unverified, tiny_models):
    write_settings(tiny_models / "355M", n_layer=3)
    with pytest.raises(ValueError, match="lacks the variable 'h2/ln_1/g'"):
        download_and_load_gpt2("355M", tiny_models)


def test_tensor_of_another_shape_in_the_checkpoint_is_named(unverified, tiny_models):
    write_settings(tiny_models / "355M", n_ctx=17)
    with pytest.raises(ValueError, match=r"'wpe' has shape \(16, 8\), hparams.json implies \(17, 8\)"):
        download_and_load_gpt2("355M", tiny_models)


def test_tensor_that_the_safetensors_file_lacks_is_named(tmp_path, tiny_values):
    folder = tmp_path / "355M"
    folder.mkdir()
    write_settings(folder, n_layer=3)
    write_hugging_face_file(folder / SAFETENSORS_FILE, TINY, tiny_values)
    with pytest.raises(ValueError, match="lacks the variable 'h2/ln_1/g'"):
        download_and_load_gpt2("355M", tmp_path)


def test_tensor_of_another_shape_in_the_safetensors_file_is_named(tmp_path, tiny_values):
    folder = tmp_path / "355M"
    folder.mkdir()
    write_settings(folder, n_ctx=17)
    write_hugging_face_file(folder / SAFETENSORS_FILE, TINY, tiny_values)
    with pytest.raises(ValueError, match=r"'wpe' has shape \(16, 8\), hparams.json implies \(17, 8\)"):
        download_and_load_gpt2("355M", tmp_path)
