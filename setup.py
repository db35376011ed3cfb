# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""`pip install .`: the network, tracker, training, evaluation and `ainet`, without ROS.

colcon does not use this file. Name, version and description are those of package.xml.
"""

import sys
from pathlib import Path
from xml.etree import ElementTree

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

ROOT = Path(__file__).parent
PACKAGE = ElementTree.parse(ROOT / "package.xml").getroot()
MAINTAINER = PACKAGE.find("maintainer")


def requirements(name: str) -> list[str]:
    """The lines of requirements/<name>.txt, less its comments."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    return [line for line in (line.split("#")[0].strip() for line in lines) if line]


class BuildKernel(build_ext):
    """Build the kernel as a shared library that has nothing of Python in it.

    Without a working compiler the package installs all the same, and the scan runs in torch.
    """

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".so"

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except (CCompilerError, ExecError, PlatformError) as error:
            print(
                f"warning: the selective scan for CPU was not built and will run in torch, much "
                f"slower: {error}",
                file=sys.stderr,
            )


setup(
    name=PACKAGE.findtext("name"),
    version=PACKAGE.findtext("version"),
    description=PACKAGE.findtext("description"),
    maintainer=MAINTAINER.text,
    maintainer_email=MAINTAINER.get("email"),
    license=PACKAGE.findtext("license"),
    python_requires=">=3.10",
    install_requires=requirements("core"),
    extras_require={
        name: requirements(name) for name in ("bags", "cuda", "dev", "onnx", "train", "view")
    },
    packages=find_packages(include=["ainet_ros", "ainet_ros.*"]),
    package_data={"ainet_ros": ["py.typed"]},
    data_files=[
        (
            f"share/ainet_ros/{folder}",
            [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob(f"{folder}/*"))],
        )
        for folder in ("msg", "weights")
    ],
    ext_modules=[
        Extension(
            "ainet_ros.network._scan",
            ["csrc/selective_scan.cpp"],
            extra_compile_args=[
                "-O3",
                "-std=c++17",
                "-fvisibility=hidden",
                "-Wno-psabi",
                "-fopenmp",
            ],
            extra_link_args=["-fopenmp"],
            language="c++",
        )
    ],
    cmdclass={"build_ext": BuildKernel},
    entry_points={"console_scripts": ["ainet = ainet_ros.cli:main"]},
)
