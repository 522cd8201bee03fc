import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_generated_pages_are_what_the_code_says():
    """The drawn pages of docs/ equal what the code draws now."""
    run = subprocess.run(
        [sys.executable, "scripts/generate_docs.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr


def test_every_error_has_advice():
    """No error of the domain is missing from the table of errors."""
    from edgeplane.model import errors

    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")

    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.DomainError):
            assert kind is errors.DomainError or f"| {kind.code} |" in page


def test_pages_named_by_links_exist():
    """Every relative link of README and docs leads to a file."""
    import re

    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_exit_codes_are_those_of_the_program():
    """The table in operations.md says of each code what ``--help`` says."""
    from edgeplane.cli.exits import Exit

    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").replace("`", "")

    for code in Exit:
        meaning = code.meaning.split(", or a general failure")[0]
        assert f"| {code.value} | {meaning}" in page
