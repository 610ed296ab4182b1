"""`napier export`: what the folder holds, that Icarus alone runs it, and what is refused."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from golden.errors import HardwareError, OutputError
from golden.files import save_network
from golden.network import Conv2D, Network, Padding, Requantization, Softmax, Tensor
from golden.run import run as run_golden
from napier.cli import cli
from napier.exporting import export_model
from rtl_models.export import COMPILE, RUN
from simulator.hardware import load_hardware

SHAPE = (1, 5, 4, 3)


def zero_point(tensor):
    """-128 for all but the input, as softmax wants it."""
    return -128 if tensor else 1


def conv(name, source, target, channels):
    rng = np.random.default_rng(len(name))
    return Conv2D(
        name=name,
        inputs=(source,),
        outputs=(target,),
        weights=rng.integers(-50, 50, (channels, 3, 3, 3)).astype(np.int8),
        weight_bits=8,
        weight_zero_point=0,
        bias=rng.integers(-500, 500, channels),
        input_zero_point=zero_point(source),
        output_zero_point=zero_point(target),
        requantization=Requantization(
            np.array([1 << 30], np.int32), np.array([-6], np.int32), "double"
        ),
        activation_min=-128,
        activation_max=127,
        padding=Padding(1, 1, 1, 1),
    )


def softmax(name, source, target):
    return Softmax(name, (source,), (target,), multiplier=1 << 30, shift=20, diff_min=-100)


def network(*layers):
    """A chain of layers on images of 3 channels."""
    tensors = tuple(
        Tensor(f"t{i}", SHAPE, "int8", 1 / 256 if i else 1.0, zero_point(i))
        for i in range(len(layers) + 1)
    )
    return Network("chain", tensors, layers, (0,), (len(layers),))


@pytest.fixture
def model(tmp_path):
    """A convolution with a softmax behind it, and an input of two samples."""
    path = tmp_path / "model.npz"
    save_network(network(conv("conv", 0, 1, 3), softmax("softmax", 1, 2)), path)
    samples = np.random.default_rng(1).integers(-128, 128, (2, *SHAPE[1:])).astype(np.int8)
    np.save(tmp_path / "x.npy", samples)
    return path


@pytest.fixture
def exported(model, tmp_path):
    """An exported folder."""
    folder = tmp_path / "out"
    export_model(
        str(model), load_hardware("mac4x4"), (str(tmp_path / "x.npy"),), "as-is", str(folder)
    )
    return folder


def icarus(folder):
    """Run the folder's own commands in an environment with a path and nothing else."""
    tools = {Path(shutil.which(name)).parent.as_posix() for name in ("iverilog", "vvp")}
    environment = {"PATH": ":".join([*sorted(tools), "/usr/bin", "/bin"])}
    outputs = []
    for command in (COMPILE, RUN):
        process = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True
        )
        outputs.append(process)
        if process.returncode:
            break
    return outputs


@pytest.mark.rtl
def test_icarus_runs_the_folder_and_it_passes(exported):
    compiled, ran = icarus(exported)
    assert compiled.stdout + compiled.stderr == ""
    assert ran.returncode == 0
    assert ran.stdout.startswith("PASS: 60 bytes, ")


@pytest.mark.rtl
@pytest.mark.parametrize("name", ["expected.hex", "counters.hex", "image.hex"])
def test_the_bench_fails_where_one_number_is_wrong(exported, name):
    path = exported / name
    lines = path.read_text().splitlines()
    digit = "1" if lines[-1][0] == "0" else "0"  # of the last line, an input or an output
    path.write_text("\n".join([*lines[:-1], digit + lines[-1][1:]]) + "\n")
    _, ran = icarus(exported)
    assert ran.returncode == 1
    assert "FAIL: " in ran.stdout


def test_the_manifest_tells_every_file_and_place(exported, model, tmp_path):
    manifest = json.loads((exported / "manifest.json").read_text())
    assert manifest["schema"] == "napier.export/1"
    files = {
        path.relative_to(exported).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in exported.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert manifest["files"] == files
    assert manifest["host_layers"] == ["softmax"]
    assert manifest["model"]["input"] == "the first of 2: x.npy"
    places = {region["what"]: region for region in manifest["memory"]}
    assert places["descriptors"]["offset"] == manifest["program"]["descriptor_offset"]
    assert (places["input"]["tensor"], places["output"]["tensor"]) == ("t0", "t1")
    assert places["output"]["shape"] == list(SHAPE)


def test_the_expected_bytes_are_goldens(exported, tmp_path):
    manifest = json.loads((exported / "manifest.json").read_text())
    (output,) = [region for region in manifest["memory"] if region["what"] == "output"]
    memory = {}
    for word in (exported / "expected.hex").read_text().split():
        if word.startswith("@"):
            address = int(word[1:], 16)
        else:
            memory[address] = int(word, 16)
            address += 1
    codes = run_golden(network(conv("conv", 0, 1, 3)), [np.load(tmp_path / "x.npy")[:1]]).outputs[0]
    _, height, width, channels = SHAPE
    feed = manifest["hardware"]["array"]["feed"]
    expected = {}
    for y, x, c in np.ndindex(height, width, channels):
        word = ((c // feed) * height + y) * width + x
        expected[output["offset"] + word * feed + c % feed] = int(codes[0, y, x, c]) & 255
    assert memory == expected


def test_the_readme_names_commands_host_layers_and_places(exported):
    text = (exported / "README.md").read_text()
    assert COMPILE in text
    assert RUN in text
    assert "Left to the host: softmax (softmax)." in text
    assert "| input | t0, 5 x 4 x 3, int8 |" in text
    assert "{" not in text


def test_the_shipped_network_is_exported_without_a_model(tmp_path):
    folder = tmp_path / "digits"
    result = CliRunner().invoke(cli, ["export", "-o", str(folder)])
    assert result.exit_code == 0, result.output
    assert f"{folder}: digits on mac4x4, " in result.output
    assert RUN in result.output
    assert (folder / "verilog" / "napier_top.v").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_a_folder_that_is_not_empty_stays_as_it_is(exported, model):
    before = sorted(path.name for path in exported.iterdir())
    with pytest.raises(OutputError, match="out is not empty; name a new or an empty folder"):
        export_model(str(model), load_hardware("mac4x4"), (), "as-is", str(exported))
    assert sorted(path.name for path in exported.iterdir()) == before


def test_an_empty_folder_is_filled(model, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    export_model(str(model), load_hardware("mac4x4"), (), "as-is", str(folder))
    assert (folder / "testbench.v").is_file()


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("", "the name of the folder to be written is empty; give it a name"),
        ("model.npz", "model.npz is a file; name a new or an empty folder"),
        ("no/where", "there is no folder .*no; create it first"),
    ],
)
def test_folders_that_cannot_be_written_are_refused(model, tmp_path, path, sentence):
    target = str(tmp_path / path) if path else path
    with pytest.raises(OutputError, match=sentence):
        export_model(str(model), load_hardware("mac4x4"), (), "as-is", target)


@pytest.mark.rtl
def test_a_host_layer_before_the_program_is_computed_for_it(tmp_path):
    path, folder = tmp_path / "model.npz", tmp_path / "out"
    save_network(network(softmax("before", 0, 1), conv("conv", 1, 2, 3)), path)
    export_model(str(path), load_hardware("mac4x4"), (), "as-is", str(folder))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["host_layers"] == ["before"]
    assert [(r["what"], r["tensor"]) for r in manifest["memory"] if "tensor" in r] == [
        ("input", "t1"),
        ("output", "t2"),
    ]
    _, ran = icarus(folder)
    assert ran.stdout.startswith("PASS: 60 bytes, ")


def test_a_host_layer_between_two_programs_is_refused_and_nothing_is_left(tmp_path):
    path = tmp_path / "model.npz"
    layers = (conv("first", 0, 1, 3), softmax("middle", 1, 2), conv("second", 2, 3, 3))
    save_network(network(*layers), path)
    with pytest.raises(
        HardwareError, match=r"layer 'middle' \(softmax\) is the host's and stands between two"
    ):
        export_model(str(path), load_hardware("mac4x4"), (), "as-is", str(tmp_path / "out"))
    assert [each.name for each in tmp_path.iterdir()] == ["model.npz"]


def test_a_network_of_host_layers_alone_is_refused(tmp_path):
    path = tmp_path / "model.npz"
    save_network(network(softmax("alone", 0, 1)), path)
    with pytest.raises(HardwareError, match="'chain' has no layer that the accelerator runs"):
        export_model(str(path), load_hardware("mac4x4"), (), "as-is", str(tmp_path / "out"))
