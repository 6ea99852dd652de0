"""Packaging of tvm_ergo: top-level folders become sub-packages, and the native runtime module is compiled."""

import glob
import os

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

FOLDERS = {"target": "target", "relay_passes": "relay_passes", "codegen": "codegen"}


def packages() -> list[str]:
    found = ["tvm_ergo"] + [f"tvm_ergo.{p}" for p in find_packages("python/tvm_ergo")]
    for package, folder in FOLDERS.items():
        found += [f"tvm_ergo.{package}"] + [f"tvm_ergo.{package}.{p}" for p in find_packages(folder)]
    return found


class BuildRuntime(build_ext):
    """Compiles the carrier of Programs: a plain shared library beside the Python files, not a Python extension module.

    It is linked against libtvm_ffi by name only: by the time it is loaded, TVM has that library in the process.
    """

    def get_ext_filename(self, fullname: str) -> str:
        *package, name = fullname.split(".")
        return os.path.join(*package, f"lib{name}.so")

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []

    def build_extension(self, ext: Extension) -> None:
        # a build requirement: present when something is built, not when setup.py is only read
        from tvm_ffi import libinfo

        ext.include_dirs += libinfo.include_paths()
        ext.library_dirs.append(os.path.dirname(libinfo.find_libtvm_ffi()))
        super().build_extension(ext)


RUNTIME = Extension(
    "tvm_ergo.codegen.runtime.tvm_ergo_runtime",
    sources=["codegen/runtime/program_module.cc"],
    libraries=["tvm_ffi"],
    language="c++",
    extra_compile_args=["-std=c++17", "-O2", "-fvisibility=hidden"],
)
# the exact search for a placement of buffers: needs nothing but the C++ library
SKYLINE = Extension(
    "tvm_ergo.codegen.memory.skyline",
    sources=["codegen/memory/skyline.cc"],
    language="c++",
    extra_compile_args=["-std=c++17", "-O2", "-fvisibility=hidden"],
)
# the entropy coders of activations: the same bytes as their NumPy definitions, sooner
CONTEXT = Extension(
    "tvm_ergo.target.codecs.context",
    sources=["target/codecs/context.cc", "target/codecs/rans.cc"],
    language="c++",
    extra_compile_args=["-std=c++17", "-O3", "-fvisibility=hidden"],
)
# the coders of weights, likewise
WEIGHTS = Extension(
    "tvm_ergo.target.codecs.weights",
    sources=["target/codecs/weights.cc"],
    language="c++",
    extra_compile_args=["-std=c++17", "-O3", "-fvisibility=hidden"],
)
# the runtime of Programs: what it executes on this machine, and the sources that `tvm-ergo export-c` hands out. Where
# it cannot be built NumPy serves
NATIVE = Extension(
    "tvm_ergo.target.native.ergo_native",
    sources=sorted(
        glob.glob("target/native/*.c") + glob.glob("target/native/post/*.c") + glob.glob("target/native/host/*.c")
    ),
    depends=sorted(glob.glob("target/native/*.h") + glob.glob("target/native/*/*.h")),
    include_dirs=["target/native", "target/native/post"],
    language="c",
    define_macros=[("ERGO_HOST", "1")],
    extra_compile_args=["-std=c11", "-O3", "-fvisibility=hidden", "-pthread"],
    extra_link_args=["-pthread"],
    optional=True,
)

setup(
    name="tvm-ergo",
    version="0.1.0",
    description="An out-of-tree Apache TVM backend that makes trained networks run inside the memory and the power of "
    "an edge chip",
    python_requires=">=3.11,<3.13",
    package_dir={"tvm_ergo": "python/tvm_ergo", **{f"tvm_ergo.{p}": f for p, f in FOLDERS.items()}},
    packages=packages(),
    ext_modules=[RUNTIME, SKYLINE, CONTEXT, WEIGHTS, NATIVE],
    cmdclass={"build_ext": BuildRuntime},
    package_data={
        "tvm_ergo": ["**/*.json", "**/*.html", "**/*.onnx"],
        "tvm_ergo.target": ["**/*.json", "**/*.cc", "**/*.c", "**/*.h"],
        "tvm_ergo.codegen": ["**/*.cc"],
    },
    install_requires=[
        # the host compiler. ffi 0.1.15 segfaults in ToJSONGraph on PrimType, and the wheel's own range would admit it
        "apache-tvm==0.27.0.post1",
        "apache-tvm-ffi==0.1.14.post1",
        "numpy>=1.26,<3",  # the emulator
        "onnx>=1.16,<2",  # reading models
        "ortools>=9.10,<10",  # CP-SAT: addresses and choices that heuristics leave open
        "tflite>=2.18,<3",  # the schema that TFLite files are read by, with int4 and all options
        "psutil>=5.9,<8",  # needed by TVM
        "xgboost-cpu>=2.1,<4",  # the tuner's cost model; as xgboost, without the GPU libraries that it brings
        "rich>=13,<16",  # terminal tables and progress
        "shtab>=1.6,<2",  # completion scripts for shells out of the commands' options
        "plotly>=5.20,<8",  # the HTML report's pictures, self-contained
        "pydantic>=2.6,<3",  # chip files and JSON results validated in one place
        "pillow>=10,<13",  # decoding JPEG evaluation sets and images
    ],
    extras_require={
        # modules and torch.export archives as models; its importer in TVM is tested with this version
        "torch": ["torch==2.13.0"],
        # training the compressed network; its importer in TVM is tested with this version
        "retrain": ["torch==2.13.0"],
        "mcp": ["mcp>=2.3,<3"],  # the Model Context Protocol, for `tvm-ergo serve-mcp`
        # the docs site (`make docs`); the theme gets fixes until May 2027, its successor reads the same files
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.5,<10"],
        "check": [
            "ruff==0.17.*",  # lint and format: other minor versions format otherwise
            "mypy>=2.4,<2.5",  # types: each version finds other things
            "pre-commit>=4,<6",  # the same before each commit
        ],
        "test": [
            "pytest>=8,<10",
            "pytest-xdist>=3.5,<4",
            "hypothesis>=6.100,<7",
            "onnxruntime>=1.17,<2",  # reference for operators and float accuracy
            "scikit-learn>=1.4,<2",  # bundled digits data set
            "nbclient>=0.10,<1",  # executes the tutorial notebooks
            "nbformat>=5.10,<6",
            "ipykernel>=6.29,<8",
            "ai-edge-litert>=1.0,<3",  # reference for TFLite files
            "jsonschema>=4.18,<5",  # what --json writes against the published schemas
            "mcp>=2.3,<3",  # its client calls our server
        ],
    },
    entry_points={
        "console_scripts": ["tvm-ergo = tvm_ergo.cli:main"],
        "tvm.backends": ["tvm_ergo = tvm_ergo:_autoload"],
    },
)
