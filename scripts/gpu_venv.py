"""Make a virtual environment with the packages of the extra ``onnx-gpu``, without CUDA's libraries.

    python scripts/gpu_venv.py

``.venvs/onnx-gpu`` gets this project and the GPU builds of onnxruntime and onnxruntime-genai, which
compute on the CPU where there is no GPU: ``tests/onnx/test_gpu_packages.py`` runs models with them.
On a machine with a GPU install ``aiproxy[onnx-gpu]`` itself, 2 GB more. What is there already is left
as it is; remove the folder to renew it.
"""

import subprocess
import tomllib
import venv
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
HOME: Final = ROOT / ".venvs" / "onnx-gpu"


def requirements() -> list[str]:
    """Return what the extra asks for, as pyproject.toml has it, but for CUDA's libraries."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = extras["optional-dependencies"]["onnx-gpu"]
    return [
        requirement.replace("[cuda,cudnn]", "")
        for requirement in found
        if not requirement.startswith("aiproxy[")
    ]


def main() -> None:
    marker = HOME / "complete"
    if marker.exists():
        return
    HOME.parent.mkdir(exist_ok=True)
    (HOME.parent / ".gitignore").write_text("*\n")
    venv.create(HOME, clear=True, with_pip=True)
    pip = [str(HOME / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    project = f"{ROOT}[server,local]"
    command = [*pip, "--disable-pip-version-check", "-e", project, *requirements()]
    subprocess.run(command, check=True)
    marker.touch()


if __name__ == "__main__":
    main()
