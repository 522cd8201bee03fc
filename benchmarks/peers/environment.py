"""The peers' own virtual environment: made once, made anew when what it holds is to be another."""

import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent
_REQUIREMENTS = _HERE / "requirements.txt"
WORK = _HERE / "apps"
ROOT = _HERE.parents[1] / ".venv-peers"


def program(name: str) -> str:
    """Return a program of the environment, which is made where it is not there yet."""
    stamp = ROOT / ".installed"
    wanted = _REQUIREMENTS.read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing the peers into {ROOT} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(ROOT)], check=True)
        pip = [str(ROOT / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        command = [*pip, "--disable-pip-version-check", "-r", str(_REQUIREMENTS)]
        subprocess.run(command, check=True)
        stamp.write_text(wanted)
    return str(ROOT / "bin" / name)
