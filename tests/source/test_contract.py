"""What Cython is told of dlopen.h is what dlopen.h says: C converts a wrong type without a word."""

import re
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src" / "dlopen"
HEADER = re.sub(r"/\*.*?\*/", "", (PACKAGE / "include" / "dlopen.h").read_text(), flags=re.DOTALL)
CONTRACT = (PACKAGE / "core" / "base" / "contract.pxd").read_text()
# Cython's own name of each type, in the order in which they are declared.
NAMES = {
    c: cython
    for cython, c in re.findall(
        r'^ {4}ctypedef \S+ (\w+) "(?:struct )?(\w+)"', CONTRACT, re.MULTILINE
    )
}


def spelled(text: str) -> str:
    """A declaration of C's as the .pxd spells it."""
    text = " ".join(text.replace("struct ", "").split()).replace(" ,", ",")
    text = re.sub(r"DLOPEN_\w+", lambda match: NAMES.get(match[0], match[0]), text)
    text = text.replace("[DLOPEN_SEARCHED_MAX]", "[64]")
    return re.sub(r"\s*(\*+)\s*", r"\1 ", text).strip()


def fields(body: str) -> list[str]:
    """`uint32_t a, b` counts as two."""
    found = []
    for line in re.split(r";|\n", body):
        kind, *names = re.split(r",\s*", line.strip())
        if kind:
            found += [kind, *(f"{kind.rpartition(' ')[0]} {name}" for name in names)]
    return [spelled(field) for field in found]


def structs_of_the_header() -> dict[str, list[str]]:
    found = re.findall(r"^struct (\w+) \{(.*?)^\};", HEADER, re.MULTILINE | re.DOTALL)
    # `const char *a, *b`: the star is the name's.
    return {
        NAMES.get(name, name): fields(re.sub(r", \*", ";const char *", " ".join(body.split())))
        for name, body in found
    }


def structs_of_the_contract() -> dict[str, list[str]]:
    found = re.findall(
        r'^ {4}ctypedef struct (\w+) "struct \w+":\n((?: {8}.*\n)+)', CONTRACT, re.MULTILINE
    )
    return {name: fields(body) for name, body in found}


def functions(text: str, name: str) -> dict[str, str]:
    """What each function, or type of one, returns and takes."""
    found = re.findall(
        rf"^(?: {{4}})?(?:ctypedef |typedef )?(\w[\w *]*?[ *]+)({name})"
        r'(?: "\w+")?\s*\(([^)]*)\)',
        text,
        re.MULTILINE,
    )
    return {
        NAMES.get(name, name): spelled(f"{result} ({'' if taken == 'void' else taken})")
        .replace("( ", "(")
        .replace(" )", ")")
        for result, name, taken in found
    }


def test_structs_are_the_same() -> None:
    assert len(structs_of_the_header()) == 9
    assert structs_of_the_contract() == structs_of_the_header()


def test_functions_are_the_same() -> None:
    declared = functions(HEADER, r"DLOPEN_\w+")
    assert len(declared) > 30
    assert functions(CONTRACT, rf"DLOPEN_\w+|{'|'.join(NAMES.values())}") == declared


def test_numbers_are_the_headers() -> None:
    enums = re.findall(r"^enum \w+ \{(.*?)\};", HEADER, re.MULTILINE | re.DOTALL)
    names = set(re.findall(r"DLOPEN_[A-Z]\w*", " ".join(enums)))
    names |= set(re.findall(r"^#define (DLOPEN_[A-Z]\w*) \S", HEADER, re.MULTILINE))
    assert set(re.findall(r"DLOPEN_[A-Z]\w*", CONTRACT)) == names
    size = re.search(r"DLOPEN_SEARCHED_MAX (\d+)", HEADER)
    assert size
    assert f"searched_errno[{size[1]}]" in CONTRACT
