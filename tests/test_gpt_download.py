"""gpt_download.py: checkpoints are fetched, verified and read; what is wrong with one is said."""

import importlib.util
import json
import shutil
import sys
import weakref

import numpy as np
import pytest
from safetensors.numpy import load_file
from web_server import Answer

import downloads
import edition
import gpt_download
from downloads import DownloadError
from gpt_download import (
    ASSETS,
    DATA_FILE,
    FILES,
    INDEX_FILE,
    MAPPED_FILE,
    SAFETENSORS_FILE,
    SETTINGS_FILE,
    VERIFIED_FILE,
    download_and_load_gpt2,
    expected_shapes,
    provide_file,
    tensorflow_tensors,
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
    write_tensorflow_checkpoint,
)

TABLES = (gpt_download.SHA256_FILE, gpt_download.TENSORS_FILE)
SETTINGS = {
    "10M": SETTINGS_10M,
    "124M": SETTINGS_124M,
    "355M": settings_of(1024, 24, 16),
    "774M": settings_of(1280, 36, 20),
    "1558M": settings_of(1600, 48, 25),
}


def same_values(a, b):
    """Whether two checkpoints {name: array} are equal bit for bit."""
    parts = [{name: (v.dtype, v.shape, v.tobytes()) for name, v in values.items()} for values in (a, b)]
    return parts[0] == parts[1]


def load(models_dir, size="355M"):
    """The values of a checkpoint, {name: array}."""
    return flatten(download_and_load_gpt2(size, models_dir)[1])


def truncate(path):
    path.write_bytes(path.read_bytes()[:-4])


def change(path, position=5000):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def zero_values(path):
    """What a copy with holes looks like: the header is right, and all values are 0."""
    content = path.read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(content[:length] + bytes(len(content) - length))


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def count_parameters(settings):
    return sum(int(np.prod(shape)) for shape in expected_shapes(settings).values())


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
    monkeypatch.setattr(downloads, "BACKOFF", 0.01)
    monkeypatch.setattr(downloads, "CHUNK", 1024)
    monkeypatch.setattr(gpt_download, "OPENAI_URL", f"{web_server.url}/openai")
    monkeypatch.setattr(gpt_download, "BACKUP_URL", f"{web_server.url}/backup")
    monkeypatch.setattr(gpt_download, "HUGGING_FACE_URL", f"{web_server.url}/hugging-face")
    return web_server


@pytest.fixture
def mirror(tiny_mirror, monkeypatch):
    """GPT2_MIRROR, a folder with the tiny checkpoint as "355M"."""
    monkeypatch.setenv("GPT2_MIRROR", str(tiny_mirror))
    return tiny_mirror / "355M"


@pytest.fixture
def tiny_models(tiny_mirror, tmp_path):
    """A ``models_dir`` in which the files of the tiny checkpoint stand already, as "355M"."""
    shutil.copytree(tiny_mirror, tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def published_models(tiny_mirror, tiny_values, tmp_path):
    """A ``models_dir`` with Hugging Face's file of the tiny checkpoint, as "355M"."""
    folder = tmp_path / "models" / "355M"
    folder.mkdir(parents=True)
    write_settings(folder)
    write_hugging_face_file(folder / SAFETENSORS_FILE, TINY, tiny_values)
    return tmp_path / "models"


def write_settings(folder, **changes):
    (folder / SETTINGS_FILE).write_text(json.dumps({**TINY, **changes}))


# ---------------------------------------------------------------------------------
# The embedded checkpoint
# ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded(embedded_load):
    return load(embedded_load.models_dir, "10M")


def test_embedded_checkpoint_loads_without_network_and_leaves_its_files_and_the_copy(embedded_load):
    assert embedded_load.process.returncode == 0, embedded_load.process.stderr
    assert embedded_load.process.stdout == ""
    assert names_in(embedded_load.models_dir / "10M") - {VERIFIED_FILE} == {*FILES, MAPPED_FILE}


def test_embedded_params_have_the_published_structure_in_times_out(embedded_load):
    settings, params = download_and_load_gpt2("10M", embedded_load.models_dir)
    assert settings == SETTINGS_10M
    blocks = params.pop("blocks")
    shapes = {name: array.shape for name, array in params.items()}
    assert shapes == {"wte": (50257, 160), "wpe": (1024, 160), "g": (160,), "b": (160,)}
    assert len(blocks) == 6
    for block in blocks:
        norms = [{name: array.shape for name, array in block.pop(norm).items()} for norm in ("ln_1", "ln_2")]
        assert norms == [{"g": (160,), "b": (160,)}] * 2
        layers = {layer: block[part][layer] for part in block for layer in block[part] if layer != "c_proj"}
        layers |= {part: block[part]["c_proj"] for part in block}
        shapes = {layer: (values["w"].shape, values["b"].shape) for layer, values in layers.items()}
        assert shapes == {
            "c_attn": ((160, 480), (480,)),
            "attn": ((160, 160), (160,)),
            "c_fc": ((160, 640), (640,)),
            "mlp": ((640, 160), (160,)),
        }


def test_embedded_params_are_10_060_960_finite_values_in_float32_and_in_float16_on_disk(embedded):
    assert {array.dtype for array in embedded.values()} == {np.dtype("float32")}
    assert sum(np.isfinite(array).sum() for array in embedded.values()) == 10_060_960
    assert (ASSETS / "10M" / DATA_FILE).stat().st_size == 2 * 10_060_960


def test_with_tensorflow_the_embedded_checkpoint_has_the_same_values_and_files(embedded, tmp_path):
    assert same_values(load(tmp_path, "10M"), embedded)
    assert same_values(dict(tensorflow_tensors(tmp_path / "10M")), embedded)
    assert names_in(tmp_path / "10M") == {*FILES, MAPPED_FILE}


def test_without_tensorflow_a_truncated_embedded_file_is_a_value_error(unverified, no_tensorflow, tmp_path):
    shutil.copytree(ASSETS / "10M", tmp_path / "10M")
    truncate(tmp_path / "10M" / DATA_FILE)
    with pytest.raises(ValueError, match=f"{DATA_FILE} has 20,121,916 bytes, expected 20,121,920"):
        load(tmp_path, "10M")


def test_tables_of_the_embedded_checkpoint_are_those_that_its_export_writes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ASSETS)
    from train_gpt2_mini import write_tables  # compares each tensor with what TensorFlow reads

    shutil.copytree(ASSETS / "10M", tmp_path / "10M")
    for name in TABLES:
        (tmp_path / "10M" / name).unlink()
    write_tables(tmp_path / "10M")  # with the hashes of all files
    for name in TABLES:
        assert (tmp_path / "10M" / name).read_text() == (ASSETS / "10M" / name).read_text()


def test_embedded_checkpoint_of_an_earlier_book_is_replaced_by_the_shipped_one(embedded, tmp_path):
    write_openai_folder(tmp_path / "10M", TINY, random_values(TINY))
    gpt_download.write_mapped(tmp_path / "10M", random_values(TINY).items())
    assert same_values(load(tmp_path, "10M"), embedded)


def test_embedded_checkpoint_of_your_own_stays_where_unverified(unverified, tmp_path):
    values = random_values(TINY)
    write_openai_folder(tmp_path / "10M", TINY, values)
    assert same_values(load(tmp_path, "10M"), values)
    written = (tmp_path / "10M" / MAPPED_FILE).stat().st_mtime_ns
    assert same_values(load(tmp_path, "10M"), values)
    assert (tmp_path / "10M" / MAPPED_FILE).stat().st_mtime_ns == written  # the copy is not made again


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="PyTorch with CUDA brings triton")
def test_optimizer_can_be_made_after_tensorflow_read_a_checkpoint(run_python):
    code = "import gpt_download, torch; gpt_download.import_tensorflow(); "
    code += "torch.optim.AdamW([torch.zeros(1, requires_grad=True)]); print('made')"
    process = run_python("-c", code)
    assert (process.returncode, process.stdout) == (0, "made\n")


def test_a_broken_tensorflow_is_reported_in_one_line_and_done_without(
    tmp_path, monkeypatch, capsys, embedded
):
    (tmp_path / "tensorflow.py").write_text("raise ImportError('DLL load failed\\nand a second line')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    assert not gpt_download.tensorflow_works()
    assert same_values(load(tmp_path, "10M"), embedded)
    note = (
        "TensorFlow is installed but cannot be imported (ImportError: DLL load failed). Going on without it."
    )
    assert capsys.readouterr().out == f"{note}\n"


def test_the_shipped_checkpoint_is_read_without_tensorflow(embedded, tmp_path, monkeypatch):
    monkeypatch.setattr(gpt_download, "import_tensorflow", lambda: pytest.fail("takes seconds"))
    assert same_values(load(tmp_path, "10M"), embedded)


# ---------------------------------------------------------------------------------
# The published layouts
# ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_another_size_is_written_and_read_bit_for_bit_and_its_data_file_holds_nothing_else(tmp_path, dtype):
    settings = settings_of(n_embd=48, n_layer=3, n_head=4, n_vocab=1000, n_ctx=64)
    values = {name: array.astype(dtype).astype(np.float32) for name, array in random_values(settings).items()}
    write_tensorflow_checkpoint(tmp_path, settings, values, dtype)
    assert same_values(dict(tensorflow_tensors(tmp_path)), values)
    assert (tmp_path / DATA_FILE).stat().st_size == np.dtype(dtype).itemsize * count_parameters(settings)


def test_a_checkpoint_with_a_wrong_shape_is_not_written(tmp_path, tiny_values):
    values = {**tiny_values, "wpe": tiny_values["wpe"][:-1]}
    with pytest.raises(ValueError, match=r"'wpe' has shape \(15, 8\), hparams.json implies \(16, 8\)"):
        write_tensorflow_checkpoint(tmp_path, TINY, values)


@pytest.mark.parametrize("layout", ["TensorFlow's", "Hugging Face's"])
def test_both_layouts_give_the_values_that_were_written(layout, mirror, tiny_values, tmp_path, monkeypatch):
    if layout == "Hugging Face's":
        monkeypatch.setitem(sys.modules, "tensorflow", None)
        (mirror / DATA_FILE).unlink()
        write_hugging_face_file(mirror / SAFETENSORS_FILE, TINY, tiny_values)
    settings, params = download_and_load_gpt2("355M", tmp_path / "models")
    assert settings == TINY
    assert same_values(flatten(params), tiny_values)
    fetched = FILES if layout == "TensorFlow's" else [SETTINGS_FILE, SAFETENSORS_FILE]
    assert names_in(tmp_path / "models" / "355M") == {*fetched, MAPPED_FILE}


def test_without_tensorflow_a_published_file_beside_the_checkpoint_is_enough(
    mirror, no_tensorflow, tiny_models, tiny_values
):
    write_hugging_face_file(mirror / SAFETENSORS_FILE, TINY, tiny_values)
    for _ in range(2):
        assert same_values(load(tiny_models), tiny_values)


COUNTS = {
    "10M": 10_060_960,
    "124M": 124_439_808,
    "355M": 354_823_168,
    "774M": 774_030_080,
    "1558M": 1_557_611_200,
}


def test_settings_and_numbers_of_parameters_of_each_size():
    assert {size: gpt_download.known_settings(size) for size in SETTINGS} == SETTINGS
    assert {size: count_parameters(settings) for size, settings in SETTINGS.items()} == COUNTS
    bytes_of = {model.size: model.data_file_bytes for model in edition.MODELS if model != edition.EMBEDDED}
    assert bytes_of == {size: 4 * count for size, count in COUNTS.items() if size != "10M"}


def test_weights_are_at_hand_where_a_file_with_all_of_them_is(monkeypatch, tmp_path):
    monkeypatch.setattr(edition, "MODELS_DIR", tmp_path)
    medium, folder = edition.find_model("355M"), tmp_path / "355M"
    folder.mkdir()
    for name in (INDEX_FILE, f"{DATA_FILE}.part", f"{SAFETENSORS_FILE}.part.json"):  # an interrupted download
        (folder / name).touch()
    assert edition.is_at_hand(edition.EMBEDDED) and not edition.is_at_hand(medium)
    for name in (DATA_FILE, SAFETENSORS_FILE, MAPPED_FILE):
        (folder / name).touch()
        assert edition.is_at_hand(medium)
        (folder / name).unlink()


# ---------------------------------------------------------------------------------
# The mapped copy
# ---------------------------------------------------------------------------------


def test_later_loads_import_no_tensorflow_and_open_no_data_file(embedded_load, tiny_models, run_python):
    load(tiny_models)
    code = f"""
import sys; opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from gpt_download import download_and_load_gpt2
for size, models_dir in (("10M", sys.argv[1]), ("355M", sys.argv[2])):
    download_and_load_gpt2(size, models_dir)
ends = ["{INDEX_FILE}", "{DATA_FILE}"]
print("tensorflow" in sys.modules, *(sum(name.endswith(end) for name in opened) for end in ends))
"""
    assert run_python("-c", code, embedded_load.models_dir, tiny_models).stdout == "False 2 0\n"


def test_the_copy_holds_the_matrices_of_linear_layers_transposed(tiny_models, tiny_values):
    load(tiny_models)
    names = {name: other + ".T" * name.endswith("/w") for name, other in hugging_face_names(TINY).items()}
    expected = {
        other: tiny_values[name].T if "/w" in name else tiny_values[name] for name, other in names.items()
    }
    path = tiny_models / "355M" / MAPPED_FILE
    assert same_values(load_file(path), expected)
    # the values begin at a multiple of 64 bytes
    assert (8 + int.from_bytes(path.read_bytes()[:8], "little")) % 64 == 0


def test_changing_an_array_leaves_the_file_as_it_was(tiny_models, tiny_values):
    for _ in range(2):  # from the checkpoint, then from the copy
        _, params = download_and_load_gpt2("355M", tiny_models)
        params["wte"] += 1
        params["blocks"][0]["mlp"]["c_fc"]["w"][:] = 0
    assert same_values(load(tiny_models), tiny_values)


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
    load(tiny_models)
    assert len(held) == 4 + 12 * 2 and max(held) == 1


def times_of(models_dir):
    """When the copy was made, and when it was compared with its hash."""
    return [(models_dir / "355M" / name).stat().st_mtime_ns for name in (MAPPED_FILE, VERIFIED_FILE)]


@pytest.mark.parametrize("models", ["tiny_models", "published_models"])
def test_a_copied_folder_is_current_also_without_tensorflow_and_read_only(
    request, models, tmp_path, monkeypatch, tiny_values, protect
):
    if models == "published_models":
        monkeypatch.setitem(sys.modules, "tensorflow", None)
    models_dir, copied, protected = request.getfixturevalue(models), tmp_path / "copy", tmp_path / "protected"
    load(models_dir)
    load(models_dir)
    before = times_of(models_dir)
    load(models_dir)
    assert times_of(models_dir) == before  # made once and compared once

    monkeypatch.setitem(sys.modules, "tensorflow", None)
    shutil.copytree(models_dir, copied, copy_function=shutil.copyfile)  # its files have times of their own
    shutil.copytree(models_dir, protected, copy_function=shutil.copyfile)
    protect(protected)
    before = times_of(copied)
    assert same_values(load(copied), tiny_values) and same_values(load(protected), tiny_values)
    after = times_of(copied)
    assert after[0] == before[0] and after[1] > before[1]  # it was not made again, but compared again
    (copied / "355M" / DATA_FILE).unlink(missing_ok=True)  # to save room
    assert same_values(load(copied), tiny_values)
    assert times_of(copied) == after


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    "damage",
    [zero_values, truncate, lambda path: change(path, -1), lambda path: path.write_bytes(b"no copy")],
)
def test_a_damaged_copy_is_noticed_and_the_published_files_are_read(
    tiny_models, tiny_values, damage, read_only, protect, capsys
):
    load(tiny_models)
    load(tiny_models)
    damage(tiny_models / "355M" / MAPPED_FILE)
    if read_only:
        protect(tiny_models)
    for _ in range(2):
        assert same_values(load(tiny_models), tiny_values)
    printed = capsys.readouterr().out
    assert printed.count("mapped.safetensors was changed or damaged.") == (2 if read_only else 1)
    assert printed.count("cannot be written") == (2 if read_only else 0)


def test_a_damaged_copy_is_used_where_unverified(tiny_models, unverified):
    load(tiny_models)
    zero_values(tiny_models / "355M" / MAPPED_FILE)
    assert not any(array.any() for array in load(tiny_models).values())


@pytest.mark.parametrize("tensorflow", [True, False])
def test_a_changed_checkpoint_beside_the_copy_is_noticed(
    tiny_models, official_addresses, monkeypatch, tensorflow
):
    load(tiny_models)
    changed = random_values(TINY, seed=7)
    write_openai_folder(tiny_models / "355M", TINY, changed)
    if tensorflow:
        assert same_values(load(tiny_models), changed)
        return
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ModuleNotFoundError, match="made from another checkpoint.*pip install tensorflow"):
        load(tiny_models)


def test_a_changed_published_file_beside_the_copy_is_noticed(published_models, no_tensorflow):
    load(published_models)
    changed = random_values(TINY, seed=7)
    write_hugging_face_file(published_models / "355M" / SAFETENSORS_FILE, TINY, changed)
    assert same_values(load(published_models), changed)


def test_changed_embedded_data_file_beside_the_copy_changes_nothing(embedded, embedded_load, tmp_path):
    shutil.copytree(embedded_load.models_dir, tmp_path / "models")
    change(tmp_path / "models" / "10M" / DATA_FILE, 1000)
    assert same_values(load(tmp_path / "models", "10M"), embedded)
    (tmp_path / "models" / "10M" / MAPPED_FILE).unlink()
    assert same_values(load(tmp_path / "models", "10M"), embedded)  # the data file was replaced


# ---------------------------------------------------------------------------------
# Sources
# ---------------------------------------------------------------------------------


def test_files_that_are_there_need_no_source(official_addresses, tiny_models, tiny_values):
    assert same_values(load(tiny_models), tiny_values)
    assert not official_addresses.requests


def test_mirror_can_be_a_web_address_and_a_cut_download_is_continued(
    monkeypatch, web_server, official_addresses, tiny_mirror, tiny_values, tmp_path
):
    for path in (tiny_mirror / "355M").iterdir():
        web_server.files[f"/base/355M/{path.name}"] = path.read_bytes()
    web_server.script[f"/base/355M/{DATA_FILE}"] = [Answer(cut_after=5000)]
    monkeypatch.setenv("GPT2_MIRROR", f"{web_server.url}/base")
    assert same_values(load(tmp_path / "models"), tiny_values)
    assert [status for _, status, _ in web_server.of(f"/base/355M/{DATA_FILE}")] == [200, 206]


def test_sources_are_asked_in_their_order(monkeypatch, official_addresses, tmp_path):
    monkeypatch.setenv("GPT2_MIRROR", f"{official_addresses.url}/mirror")
    official_addresses.files["/backup/355M/checkpoint"] = b'model_checkpoint_path: "model.ckpt"'
    provide_file("355M", tmp_path, "checkpoint")
    asked = [path for path, *_ in official_addresses.requests]
    assert asked == ["/mirror/355M/checkpoint", "/openai/355M/checkpoint", "/backup/355M/checkpoint"]


def test_hugging_face_name_of_each_size():
    names = {"124M": "gpt2", "355M": "gpt2-medium", "774M": "gpt2-large", "1558M": "gpt2-xl"}
    for size, name in names.items():
        address = f"https://huggingface.co/openai-community/{name}/resolve/main/model.safetensors"
        assert gpt_download.sources_of(size, SAFETENSORS_FILE) == [address]


def test_content_without_its_known_hash_is_reported_or_left_for_the_next_source(official_addresses, tmp_path):
    right = (ASSETS / "10M" / "vocab.bpe").read_bytes()  # the tokenizer is the same for all sizes
    official_addresses.files["/openai/124M/vocab.bpe"] = right[:-1]
    with pytest.raises(DownloadError, match=f"expected {edition.SHA256_124M['vocab.bpe']}"):
        provide_file("124M", tmp_path, "vocab.bpe")
    official_addresses.files["/backup/124M/vocab.bpe"] = right
    provide_file("124M", tmp_path, "vocab.bpe")
    assert (tmp_path / "vocab.bpe").read_bytes() == right


def test_unknown_size_is_named_and_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="'125M'.*10M, 124M, 355M, 774M, 1558M"):
        download_and_load_gpt2("125M", tmp_path)
    assert names_in(tmp_path) == set()


@pytest.mark.parametrize("name", [DATA_FILE, INDEX_FILE])
def test_missing_file_lists_each_address_and_the_way_on(mirror, official_addresses, tmp_path, name):
    (mirror / name).unlink()
    with pytest.raises(DownloadError, match=r"CHOOSE_MODEL to 'gpt2-mini \(10M\)'.*GPT2_MIRROR") as error:
        load(tmp_path / "models")
    for base in (mirror.parent, f"{official_addresses.url}/openai", f"{official_addresses.url}/backup"):
        assert f"{base}/355M/{name}\n" in str(error.value)
    assert names_in(tmp_path / "models" / "355M") <= set(FILES)  # nothing half-written


def test_missing_file_without_tensorflow_lists_hugging_face(
    monkeypatch, no_tensorflow, official_addresses, tmp_path
):
    monkeypatch.setattr(gpt_download, "known_settings", lambda model_size: TINY)
    official_addresses.files["/openai/355M/hparams.json"] = json.dumps(TINY).encode()
    with pytest.raises(DownloadError, match="hugging-face/gpt2-medium/resolve/main/model.safetensors"):
        load(tmp_path)


# ---------------------------------------------------------------------------------
# Damage
# ---------------------------------------------------------------------------------


WRONG_FILES = [
    (SETTINGS_FILE, b"cut", "not a valid hparams.json"),
    (
        SETTINGS_FILE,
        json.dumps({**TINY, "n_head": 4}).encode(),
        "'n_head': 4.*but GPT-2 355M has.*'n_head': 2",
    ),
    ("encoder.json", b'{"cut', "Unterminated string"),
    ("vocab.bpe", b"cut", "does not begin with '#version'"),
    ("checkpoint", b"", "does not name a checkpoint"),
    (INDEX_FILE, b"not an index" * 100, "not the index of a TensorFlow checkpoint"),
    (DATA_FILE, bytes(10_748), "it has 10,748 bytes, expected 10,752"),
]


@pytest.mark.parametrize("name, content, words", WRONG_FILES)
def test_wrong_file_of_a_source_is_refused_before_the_data_file_is_asked_for(
    official_addresses, tiny_mirror, tmp_path, name, content, words
):
    for path in (tiny_mirror / "355M").iterdir():
        official_addresses.files[f"/openai/355M/{path.name}"] = path.read_bytes()
    official_addresses.files[f"/openai/355M/{name}"] = content
    with pytest.raises(DownloadError, match=f"(?s)Could not get {name}.*{words}"):
        load(tmp_path / "models")
    assert bool(official_addresses.of(f"/openai/355M/{DATA_FILE}")) == (name == DATA_FILE)
    assert name not in names_in(tmp_path / "models" / "355M")


@pytest.mark.parametrize("name, content, words", WRONG_FILES)
def test_wrong_file_that_is_there_is_named_and_leaves_no_copy(tiny_models, name, content, words):
    (tiny_models / "355M" / name).write_bytes(content)
    with pytest.raises(
        ValueError, match=f"{name} is damaged or not the published file: .*{words}.*Delete it"
    ):
        load(tiny_models)
    assert names_in(tiny_models / "355M") == set(FILES)


@pytest.mark.parametrize(
    "name, damage",
    [
        (DATA_FILE, truncate),
        (DATA_FILE, change),
        (INDEX_FILE, lambda path: path.write_bytes(b"")),
        (INDEX_FILE, lambda path: path.write_bytes(b"not an index" * 100)),
    ],
)
def test_a_damaged_checkpoint_is_a_value_error_even_unverified(unverified, tiny_models, name, damage):
    damage(tiny_models / "355M" / name)
    with pytest.raises(ValueError, match="model.ckpt cannot be read"):
        load(tiny_models)
    assert names_in(tiny_models / "355M") == set(FILES)


@pytest.mark.parametrize("damage", [truncate, lambda path: path.write_bytes(b"not safetensors")])
def test_damaged_published_file_is_a_value_error(
    published_models, damage, no_tensorflow, tmp_path, official_addresses, monkeypatch
):
    damage(published_models / "355M" / SAFETENSORS_FILE)
    with pytest.raises(ValueError, match=f"{SAFETENSORS_FILE} is damaged.*Delete it"):
        load(published_models)
    monkeypatch.setenv("GPT2_MIRROR", str(published_models))
    with pytest.raises(DownloadError, match="model.safetensors.*\n.*is damaged"):  # as a source
        load(tmp_path / "others")
    assert names_in(tmp_path / "others" / "355M") == {SETTINGS_FILE}


def test_wrong_hash_of_a_file_that_is_there_names_the_file_unless_verification_is_off(tmp_path, monkeypatch):
    (tmp_path / "hparams.json").write_text("{}")
    with pytest.raises(ValueError, match="hparams.json is damaged or not the published file.*Delete it"):
        provide_file("124M", tmp_path, "hparams.json")
    monkeypatch.setenv("GPT2_VERIFY", "0")
    provide_file("124M", tmp_path, "hparams.json")
    assert (tmp_path / "hparams.json").read_text() == "{}"


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
    (tmp_path / SETTINGS_FILE).write_bytes(content)
    with pytest.raises(ValueError, match="hparams.json is not a valid hparams.json"):
        gpt_download.read_settings(tmp_path / SETTINGS_FILE)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"n_layer": 3}, "lacks the variable 'h2/ln_1/g'"),
        ({"n_ctx": 17}, r"'wpe' has shape \(16, 8\), hparams.json implies \(17, 8\)"),
    ],
)
@pytest.mark.parametrize("models", ["tiny_models", "published_models", "mapped"])
def test_tensor_that_does_not_fit_is_named(unverified, request, monkeypatch, models, changes, words):
    models_dir = request.getfixturevalue("tiny_models" if models == "mapped" else models)
    if models == "mapped":
        load(models_dir)
    if models == "published_models":
        monkeypatch.setitem(sys.modules, "tensorflow", None)
    write_settings(models_dir / "355M", **changes)
    with pytest.raises(ValueError, match=words):
        load(models_dir)
