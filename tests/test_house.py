"""The rules of the house: who imports whom, how public functions look, what the package promises by name."""

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "cnnjax"
MODULES = sorted(PACKAGE.rglob("*.py"))


def _name(path):
    return path.relative_to(ROOT).as_posix()


every_module = pytest.mark.parametrize("path", MODULES, ids=_name)


def _tree(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


# Who imports whom: the table of the design.

ANYWHERE = {"jax", "numpy", "jaxtyping"}
CNNJAX = {
    "ops": {"ops"},
    "cpu": {"cpu"},
    "nn": {"ops", "nn"},
    "models": {"ops", "nn", "models"},
    "train": {"ops", "nn", "train"},
    "data": {"data"},
    "explain": {"ops", "nn", "explain"},
}
THIRD_PARTY = {
    "ops": set(),
    "cpu": set(),
    "nn": {"flax.nnx"},
    "models": {"flax.nnx"},
    "train": {"flax.nnx", "optax", "chex", "orbax", "tqdm"},
    "data": {"PIL", "tensorflow_datasets", "absl.flags", "grain", "mlxtend", "dm_pix", "nibabel"},
    # Pillow writes the GIFs; matplotlib itself brings it. Optimisers are optax's: one climbs to a channel's picture.
    "explain": {"flax.nnx", "optax", "matplotlib", "pandas", "PIL"},
}
LAZY = {"matplotlib", "nibabel", "pandas", "tensorflow_datasets", "PIL", "grain", "mlxtend", "dm_pix", "tensorflow"}
BY_NAME = {"importlib.import_module", "import_module", "__import__"}


def _imports(node, lazy=False):
    """Every (dotted name, whether inside a function or under TYPE_CHECKING) that is imported below a node."""
    for child in ast.iter_child_nodes(node):
        inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        inside = inside or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
        if isinstance(child, ast.Import):
            yield from ((alias.name, inside) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: write the import from cnnjax, not from a dot"
            yield from ((f"{child.module}.{alias.name}", inside) for alias in child.names)
        elif isinstance(child, ast.Call) and ast.unparse(child.func) in BY_NAME:
            assert isinstance(child.args[0], ast.Constant), f"line {child.lineno}: spell the module out"
            yield str(child.args[0].value), inside
        else:
            yield from _imports(child, inside)


def _within(name, allowed):
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


@every_module
def test_imports_keep_to_the_table(path):
    folder = path.relative_to(PACKAGE).parts[0]
    assert folder in {*CNNJAX, "__init__.py"}, f"{folder} needs a row in the table, here and in the design"
    for name, _ in _imports(_tree(path)):
        top = name.split(".")[0]
        if top in sys.stdlib_module_names:
            continue
        if folder == "__init__.py":
            assert top == "cnnjax", f"{_name(path)} imports {name}; it is a table of contents"
        elif top == "cnnjax":
            allowed = {f"cnnjax.{one}" for one in CNNJAX[folder]}
            assert _within(name, allowed), f"{_name(path)} imports {name}; {folder} may import {sorted(allowed)}"
        else:
            allowed = ANYWHERE | THIRD_PARTY[folder]
            assert _within(name, allowed), f"{_name(path)} imports {name}; {folder} may import {sorted(allowed)}"


@every_module
def test_heavy_imports_are_lazy(path):
    for name, lazy in _imports(_tree(path)):
        assert lazy or name.split(".")[0] not in LAZY, f"{_name(path)} imports {name} at its head; do it in a function"


def test_one_file_knows_tensorflow_datasets():
    one = {"tensorflow_datasets"}
    files = {_name(path) for path in MODULES for name, _ in _imports(_tree(path)) if _within(name, one)}
    assert len(files) <= 1, f"tensorflow_datasets is imported by {sorted(files)}"


def test_import_loads_nothing_heavy():
    packages = [".".join(path.relative_to(ROOT).parts[:-1]) for path in MODULES if path.name == "__init__.py"]
    unwanted = ["tensorflow", "tensorflow_datasets", "matplotlib", "mlxtend", "PIL", "orbax"]
    code = (
        "import importlib, json, sys\n"
        f"for name in {packages!r}: importlib.import_module(name)\n"
        f"print(json.dumps([name for name in {unwanted!r} if name in sys.modules]))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == []


def test_no_two_test_files_share_a_name():
    # pytest imports them by their bare names.
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


# How a public function looks.

CONVENTIONAL = [PACKAGE / "ops", PACKAGE / "explain", PACKAGE / "data" / "augment.py"]
POSITIONAL_DEFAULTS = {"bias", "scale", "mask", "size", "class_names"}
SECTIONS = ["Args", "Returns", "Raises", "Example", "Source"]


def _public_functions():
    for place in CONVENTIONAL:
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place] if place.exists() else []:
            if not path.name.startswith("_"):
                for node in _tree(path).body:
                    if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                        yield pytest.param(path, node, id=f"{_name(path)}:{node.name}")


every_function = pytest.mark.parametrize(("path", "function"), list(_public_functions()))


@every_function
def test_defaults_are_keyword_only_and_the_key_comes_first(path, function):
    arguments = function.args
    positional = [argument.arg for argument in arguments.posonlyargs + arguments.args]
    defaulted = positional[len(positional) - len(arguments.defaults) :]
    assert set(defaulted) <= POSITIONAL_DEFAULTS, f"{function.name}: make {defaulted} keyword-only"
    names = positional + [argument.arg for argument in arguments.kwonlyargs]
    assert "key" not in names[1:], f"{function.name}: the key comes first"


@every_function
def test_docstring(path, function):
    text = ast.get_docstring(function)
    assert text, f"{function.name} has no docstring"
    first, *rest = text.splitlines()
    assert re.fullmatch(r"[A-Z][a-z]+\b.*\.", first), f"{function.name}: {first!r} is no imperative sentence"
    assert not re.match(r"\w+[^s]s\b", first), f"{function.name}: {first.split()[0]!r} is no imperative"
    assert not rest or not rest[0], f"{function.name}: the first line stands alone"
    found = re.findall(r"^([A-Z][a-z]+):$", text, re.MULTILINE)
    assert found == SECTIONS, f"{function.name} has the sections {found}, not {SECTIONS}"
    sections = dict(zip(SECTIONS, re.split(r"^[A-Z][a-z]+:$", text, flags=re.MULTILINE)[1:], strict=True))
    empty = [name for name, body in sections.items() if not body.strip()]
    assert not empty, f"{function.name}: {empty} say nothing"
    assert ">>> " in sections["Example"], f"{function.name}: the example must run"
    arguments = function.args
    named = re.findall(r"^    \*{0,2}(\w+):", sections["Args"], re.MULTILINE)
    everything = arguments.posonlyargs + arguments.args + arguments.kwonlyargs
    expected = [argument.arg for argument in [*everything, arguments.vararg, arguments.kwarg] if argument]
    assert named == expected, f"{function.name}: Args names {named}, the signature {expected}"


@every_function
def test_everything_is_annotated(path, function):
    arguments = function.args
    bare = [a.arg for a in arguments.posonlyargs + arguments.args + arguments.kwonlyargs if a.annotation is None]
    assert not bare, f"{function.name}: annotate {bare}"
    assert function.returns is not None, f"{function.name}: annotate what it returns"


# What no module does.


@every_module
def test_no_assert_and_no_print(path):
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Assert):
            pytest.fail(f"{_name(path)}:{node.lineno}: raise an error instead of assert")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            pytest.fail(f"{_name(path)}:{node.lineno}: return it, or leave printing to the experiments")


@every_module
def test_no_exception_is_swallowed(path):
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or re.search(r"\b(Base)?Exception\b", ast.unparse(node.type))
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            assert not broad or raises, f"{_name(path)}:{node.lineno}: name the exceptions, or raise again"


@every_module
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(_tree(path)), f"{_name(path)} has no docstring"


# What the package promises. One line a package.

INVENTORY = {
    "cnnjax": "ops nn models train data explain accelerate Acceleration",
    "cnnjax.cpu": "accelerate Acceleration",
    "cnnjax.ops": "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d"
    " adaptive_max_pool1d_with_indices adaptive_max_pool2d adaptive_max_pool2d_with_indices"
    " adaptive_max_pool3d adaptive_max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d batch_norm"
    " blur_pool2d conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d deform_conv2d dense"
    " depthwise_conv1d depthwise_conv2d depthwise_conv3d drop_block2d drop_path dropout flatten fold"
    " fractional_max_pool2d fractional_max_pool2d_with_indices global_avg_pool global_max_pool grid_sample2d"
    " grid_sample3d group_norm instance_norm layer_norm local_conv1d local_conv2d local_response_norm"
    " lp_pool1d lp_pool2d lp_pool3d max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices"
    " max_pool3d max_pool3d_with_indices max_unpool1d max_unpool2d max_unpool3d min_pool1d min_pool2d"
    " min_pool3d pad pixel_shuffle pixel_unshuffle resize rms_norm separable_conv1d separable_conv2d"
    " separable_conv3d spatial_dropout spatial_pyramid_pool2d stochastic_pool2d unfold weight_standardize"
    " shapes",
    "cnnjax.nn": "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d DepthwiseConv1d DepthwiseConv2d"
    " DepthwiseConv3d SeparableConv1d SeparableConv2d SeparableConv3d LocalConv1d LocalConv2d DeformConv2d"
    " Dense BatchNorm LayerNorm RMSNorm GroupNorm InstanceNorm",
    "cnnjax.models": "LeNet LeNet5 MLP VGG vgg11 vgg13 vgg16 vgg19 ResNet resnet18 resnet34 resnet50 MobileNetV2"
    " ConvNeXt convnext_tiny SpeedNet whitening_kernel ResNet1d TCN UNet unet2d unet3d",
    "cnnjax.train": "TrainState create merge make_train_step make_eval_step Batch LossFn MetricFn TrainStep EvalStep"
    " parallel fit Diverged evaluate predict apply mode checkpoint processes",
    "cnnjax.data": "NAMES load Unavailable Dataset Examples check load_hippocampus Volumes Volume"
    " read_folder read_picture write_digits open_folder PictureFiles Batches Stream Source padded"
    " Crops standardized keys translate flip affine crop cutout"
    " mixup stretch read_digit",
    "cnnjax.explain": "plot_pixels plot_pictures plot_filters plot_curve confusion_matrix plot_confusion"
    " animate_conv1d animate_conv2d animate_conv3d animate_pool2d Animation size_formula plot_coverage conv_matrix"
    " plot_conv_matrix oriented_filters line_image grating_image orientation_tuning plot_tuning plot_tiling"
    " trace Trace Layer summary Summary Row receptive_field ReceptiveField receptive_window effective_receptive_field"
    " plot_receptive_field activations kernels plot_activations plot_slices plot_spectra"
    " saliency integrated_gradients occlusion grad_cam guided_backprop plot_attribution deconvnet top_patches"
    " TopPatches plot_patches visualize_feature explorer Explorer",
}


@pytest.mark.parametrize("package", list(INVENTORY))
def test_public_names(package):
    module = importlib.import_module(package)
    promised, offered = set(INVENTORY[package].split()), set(module.__all__)
    assert not promised - offered, (
        f"{package} no longer offers {sorted(promised - offered)}. Removing or renaming a public name breaks the"
        " code of others: if it is deliberate, say so in CHANGELOG.md and remove it from this inventory."
    )
    assert not offered - promised, f"{package} offers {sorted(offered - promised)}: add them to this inventory."
    assert len(module.__all__) == len(offered), f"{package}.__all__ names something twice"
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert not missing, f"{package}.__all__ names {missing}, which do not exist"


def test_every_package_is_in_the_inventory():
    offering = [path.parent for path in MODULES if path.name == "__init__.py" and "__all__" in path.read_text()]
    missing = {".".join(path.relative_to(ROOT).parts) for path in offering} - set(INVENTORY)
    assert not missing, f"{sorted(missing)} have an __all__ but no line in the inventory"


# Files, and the address of the repository.


def test_no_file_is_long():
    suffixes = {".py", ".html", ".css", ".js"}
    folders = [PACKAGE, ROOT / "experiments"]
    lengths = {
        _name(path): len(path.read_text(encoding="utf-8").splitlines())
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix in suffixes
    }
    assert lengths
    long = {name: length for name, length in lengths.items() if length > 350}
    assert not long, f"longer than 350 lines: {long}"


PROSE = ("README", "CONTRIBUTING", "CHANGELOG", "docs/", "notebooks/")
LINK = re.compile(r"(github\.com/|raw\.githubusercontent\.com/|colab\.research\.google\.com/github/)([\w.-]+/[\w.-]+)")
OTHERS: set[str] = set()  # owner/repo of other projects that README, docs and notebooks point to


def _repository_files():
    try:
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git, and a checkout")
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file() and path.name != "pyproject.toml"]


def test_the_address_of_the_repository_stands_in_pyproject():
    """Elsewhere only where a link needs it, and then the same."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    addresses = {found.removesuffix(".git") for _, found in LINK.findall(" ".join(project["urls"].values()))}
    assert len(addresses) == 1, f"project.urls points to {sorted(addresses)}"
    wrong = []
    for path in _repository_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for site, found in LINK.findall(text):
            target = found.removesuffix(".git").rstrip(".")
            ours = site.startswith(("colab", "raw")) or target.split("/")[1] == project["name"]
            ours = ours or (_name(path).startswith(PROSE) and target not in OTHERS)
            if ours and target not in addresses:
                wrong.append(f"{_name(path)}: {site}{target}")
    assert not wrong, f"project.urls says {addresses.pop()}, but {wrong}"
